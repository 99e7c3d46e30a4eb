"""`in_situ`: a decorator that recovers a step function in place.

    @penstock.in_situ(policy=policy)
    def train_step(images, labels): ...

Theory of operation. Each call is a step, its arguments are the batch. A call that fails is made
again with the same arguments, or given up, as the policy says. A function knows no data source, so
it can neither fetch again nor rewind; `Session` can.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InSituError, RestartNeededError, UsageError
from .decisions import Means, Stage
from .guard import Guard
from .policy import Action, RecoveryPolicy
from .quarantine import Quarantine
from .steps import Step
from .tracebacks import forget, summary_of
from .waiting import operator_for

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    Function = TypeVar("Function", bound=Callable[..., Any])


class _Calls:
    """Looks after the calls of one function (see `steps.Steward`); many threads may call."""

    def __init__(
        self,
        guard: Guard,
        snapshot: Callable[[], Any] | None,
        restore: Callable[[Any], None] | None,
        quarantine: Quarantine | None,
    ) -> None:
        self._guard = guard
        self._snapshot, self._restore = snapshot, restore
        self._quarantine = quarantine

    def begin(self, step: Step) -> None:
        if step.attempt == 1 and self._snapshot is not None:
            step.state = self._snapshot()

    def done(self, step: Step) -> None:
        self._guard.settle(succeeded=True)

    def fault(self, step: Step, error: BaseException) -> bool:
        summary = summary_of(error)
        means = Means(operator=self._guard.operator, restore=self._restore is not None)
        action = self._guard.handle(
            error,
            step=step.number,
            attempt=step.attempt,
            stage=step.stage,
            means=means,
            position=f"call {step.number}",
            batch=step.batch,
        )
        if action is Action.ABORT:
            step.over = True
            return False
        if action is Action.RESTART:
            raise RestartNeededError(
                f"call {step.number} cannot be recovered in this process ({summary})"
            ) from error
        forget(error)
        if step.stage is Stage.COMMITTED and self._restore is None:
            step.over = True
            self._guard.settle(succeeded=True)
            return True
        if self._restore is not None:
            try:
                self._restore(step.state)
            except Exception as failure:
                raise InSituError(f"restore failed: {summary_of(failure)}") from failure
            self._guard.restored(step.number)
        step.stage = Stage.STEP
        if action is Action.SKIP:
            step.over = step.skipped = True
            if self._quarantine is not None:
                about = {"error": summary, "attempts": step.attempt}
                self._quarantine.store(step.number, step.batch, about)
            self._guard.settle(succeeded=True)
        return True


def in_situ(
    function: Function | None = None,
    *,
    policy: RecoveryPolicy | None = None,
    snapshot: Callable[[], Any] | None = None,
    restore: Callable[[Any], None] | None = None,
    quarantine: str | os.PathLike[str] | None = None,
    incidents: str | os.PathLike[str] | bool | None = None,
    settable: dict[str, Any] | None = None,
    allow_patch: bool = False,
    pass_step: bool = False,
    skipped: Any = None,
) -> Any:
    """Recovers a step function in place: `@in_situ` or `@in_situ(policy=…)`.

    Args:
        function: the function or method; it must not be a generator or `async`.
        policy: what is done about faults; by default `RecoveryPolicy()`.
        snapshot: gives the state that a half-done call may have touched; called before each call.
        restore: sets that state again; called before the function is called again.
        quarantine: a directory for the arguments of calls that are skipped; None keeps none.
        incidents: a directory in which an operator finds what waits for an answer; True for the
            default one, None if nobody is to be asked.
        settable: what an operator may set, by name: `{"config": config}`.
        allow_patch: the operator may replace functions of the program (`penstock repair --patch`).
        pass_step: the function gets its `Step` as the keyword argument `step`, for `step.commit()`.
        skipped: what a call gives that is skipped.

    Returns:
        the function, guarded.

    Raises:
        UsageError: an argument is not accepted.
    """
    if function is None:
        return functools.partial(
            in_situ,
            policy=policy,
            snapshot=snapshot,
            restore=restore,
            quarantine=quarantine,
            incidents=incidents,
            settable=settable,
            allow_patch=allow_patch,
            pass_step=pass_step,
            skipped=skipped,
        )
    if not callable(function) or _is_suspended(function):
        raise UsageError(f"in_situ is for an ordinary function, not {function!r:.80}")
    if (snapshot is None) != (restore is None):
        raise UsageError("snapshot and restore belong together: give both or neither")
    operator = operator_for(incidents, settable, allow_patch)
    kept = None if quarantine is None else Quarantine(quarantine)
    calls = _Calls(Guard(policy, operator), snapshot, restore, kept)
    return _guarded(function, calls, pass_step, skipped)


def _guarded(function: Function, calls: _Calls, pass_step: bool, skipped: Any) -> Any:
    numbers = itertools.count()

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        step = Step(calls, next(numbers), (args, dict(kwargs)))
        if pass_step:
            kwargs["step"] = step
        for attempt in step.attempts():
            with attempt:
                return function(*args, **kwargs)
        return skipped

    return guarded


def _is_suspended(function: Any) -> bool:
    """Whether a call gives something that runs later, when no attempt is there any more."""
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )
