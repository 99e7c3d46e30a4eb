"""The shell around `decisions`: a fault is recorded, decided about, told of, and waited out.

Theory of operation. One guard belongs to one session or one guarded function, and keeps its
history. `handle` turns an exception into a fault, asks the core, writes the log line, waits (for
the backoff, or for the operator), and returns the action that is to be carried out: never WAIT. It
carries out nothing itself. `close` ends a pause, from whatever thread.
"""

from __future__ import annotations

import collections
import logging
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .decisions import Decision, Fault, Handled, Means, Stage, decide, timed_out, why_not
from .policy import Action, RecoveryPolicy
from .tracebacks import fingerprint_of, summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .arbitration import Arbiter, Ruling

_logger = logging.getLogger("penstock.in_situ")
#: Of how many steps the rounds are kept; the dispatcher keeps fewer.
_ROUNDS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Scene:
    """What an operator or a report is told besides the error.

    Attributes:
        fault: what is known of it.
        means: what can be done.
        history: what was decided before.
        position: where the data is, in words.
        batch: what the step was given; None if there is none.
        policy: what the user wants.
        reason: why it was decided so.
    """

    fault: Fault
    means: Means
    history: tuple[Handled, ...]
    position: str
    batch: Any
    policy: RecoveryPolicy
    reason: str


class Operator(Protocol):
    """Somebody who can be asked, and told."""

    def ask(self, error: BaseException, scene: Scene) -> Action | None:
        """Waits for an answer that can be carried out; None if there was none in time."""

    def tell(self, error: BaseException, scene: Scene, action: Action) -> None:
        """The training ends because of this."""

    def settled(self, *, succeeded: bool) -> None:
        """What the answer led to: the training went on, or the step failed again."""

    def repeat(self, step: int) -> None:
        """Sets again what was set in answers to faults of this step: its state was restored."""

    def close(self) -> None:
        """Ends a wait, from another thread, as if its time were over."""


class _Answer(threading.local):
    """Whether the operator has answered about the step that this thread is at."""

    pending = False


class Guard:
    """Decides about the faults of one session.

    Args:
        policy: what the user wants.
        operator: who can be asked; None for nobody.
        draw: gives numbers from [0, 1), for the jitter of pauses.
        arbiter: rules for all ranks; None if there is one.

    Attributes:
        policy: the policy.
        history: what was decided so far; at most as many as the policy answers, the last one being
            the latest.

    Raises:
        UsageError: the policy is none.
    """

    def __init__(
        self,
        policy: RecoveryPolicy | None = None,
        operator: Operator | None = None,
        draw: random.Random | None = None,
        arbiter: Arbiter | None = None,
    ) -> None:
        if policy is not None and not isinstance(policy, RecoveryPolicy):
            raise UsageError(f"policy must be a RecoveryPolicy, not {policy!r:.80}")
        self.policy = policy or RecoveryPolicy()
        self.history: list[Handled] = []
        self._counts: collections.Counter[str] = collections.Counter()
        self._operator = operator
        self._draw = draw or random.Random()
        self._arbiter = arbiter
        #: What was ruled about each step that failed, how often.
        self._rounds: dict[int, int] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._answer = _Answer()

    @property
    def operator(self) -> bool:
        """Whether somebody can be asked."""
        return self._operator is not None

    def handle(
        self,
        error: BaseException,
        *,
        step: int,
        attempt: int,
        stage: Stage,
        means: Means,
        position: str = "",
        batch: Any = None,
    ) -> Action:
        """What to do about an error, after the pause that this takes.

        Args:
            error: what was raised; its traceback is left as it is.
            step, attempt, stage: see `Fault`.
            means: what can be done.
            position: where the data is, in words.
            batch: what the step was given.

        Returns:
            the action; never WAIT.
        """
        self.settle(succeeded=False)
        fault = Fault(
            step,
            attempt,
            stage,
            fingerprint_of(error),
            self.policy.matching(error),
            summary_of(error),
        )
        with self._lock:
            decision = decide(self.policy, fault, self.history, means, self._draw.random())
            past = tuple(self.history)
            self._note(Handled(step, fault.fingerprint, decision.rule, decision.action))
        _tell(fault, decision)
        scene = Scene(fault, means, past, position, batch, self.policy, decision.reason)
        # Whoever interrupts this process does not ask the others.
        if self._arbiter is not None and isinstance(error, Exception):
            decision = self._ruled(self._arbiter, decision, error, scene)
            _tell(fault, decision)
        elif decision.action is Action.WAIT:
            decision = self._wait(error, scene)
            _tell(fault, decision)
        if decision.pause_s > 0:
            self._closing.wait(decision.pause_s)
        # Ctrl-C, or an exit that no rule is about, is nothing that anybody has to be told of.
        if decision.action in (Action.ABORT, Action.RESTART) and (
            isinstance(error, Exception) or fault.rules
        ):
            self._report(error, scene, decision.action)
        return decision.action

    def _report(self, error: BaseException, scene: Scene, action: Action) -> None:
        if self._operator is not None:
            try:
                self._operator.tell(error, scene, action)
            except OSError:  # a full disk must not take the place of the error itself
                _logger.exception("the report of step %d cannot be kept", scene.fault.step)

    def settle(self, *, succeeded: bool) -> None:
        """Says what became of the operator's last answer, if there was one."""
        if self._answer.pending and self._operator is not None:
            self._answer.pending = False
            self._operator.settled(succeeded=succeeded)

    def restored(self, step: int) -> None:
        """The state before the step was restored, which may have undone what an operator set."""
        if self._operator is not None:
            self._operator.repeat(step)

    def counts(self) -> Mapping[str, int]:
        """How often each action was decided."""
        with self._lock:
            return collections.Counter(self._counts)

    def _note(self, handled: Handled) -> None:
        """Puts a decision on record; when there may be no more, in the place of the last one.

        All after that are exhausted, whatever the history says of the others.
        """
        self._counts[handled.action.value] += 1
        if len(self.history) >= max(1, self.policy.overall):
            self.history.pop()
        self.history.append(handled)

    def close(self) -> None:
        """Ends a pause, and a wait for an operator. Closing twice is fine."""
        self._closing.set()
        if self._operator is not None:
            self._operator.close()

    def _ruled(
        self, arbiter: Arbiter, own: Decision, error: BaseException, scene: Scene
    ) -> Decision:
        """What all ranks do, given what this one would."""
        fault = scene.fault
        step, round, fingerprint = fault.step, self._rounds.get(fault.step, 0), fault.fingerprint
        self._rounds.pop(step, None)  # the latest is the last
        self._rounds[step] = round + 1
        for old in list(self._rounds)[:-_ROUNDS_MAX]:
            del self._rounds[old]
        ruling: Ruling | None = arbiter.rule(step, round, fingerprint, own.action)
        if ruling is not None and ruling.action is Action.WAIT:
            self._rounds[step] = round + 2
            if ruling.rank == arbiter.rank:
                answered = self._wait(error, scene).action
                ruling = arbiter.answer(step, round + 1, fingerprint, answered)
            else:
                _logger.warning("step %d: rank %d waits for an operator", step, ruling.rank)
                timeout_s = self.policy.operator_timeout_s
                ruling = arbiter.await_answer(step, round + 1, timeout_s)
        if ruling is None:
            return Decision(Action.ABORT, -1, 0.0, "no answer of the rank that asks an operator")
        refusal = why_not(ruling.action, fault.stage, scene.means)
        reason = f"ruled for all ranks, proposed by rank {ruling.rank}"
        if refusal:
            reason = f"{reason}: {ruling.action.value}, but {refusal}"
            return Decision(Action.ABORT, -1, 0.0, reason)
        return Decision(ruling.action, -1, own.pause_s, reason)

    def _wait(self, error: BaseException, scene: Scene) -> Decision:
        assert self._operator is not None, "nobody could be asked, and it was not decided to"
        try:
            answer = self._operator.ask(error, scene)
        except OSError:
            _logger.exception("no operator can be asked about step %d", scene.fault.step)
            answer = None
        self._answer.pending = True
        if answer is None:
            return timed_out(self.policy, scene.fault, scene.means)
        return Decision(answer, -1, 0.0, "by the operator")


def _tell(fault: Fault, decision: Decision) -> None:
    pause = f" after {decision.pause_s:.2g} s" if decision.pause_s else ""
    where = f"step {fault.step}, attempt {fault.attempt}"
    if fault.stage is Stage.FETCH:
        where = f"fetching the batch of step {fault.step}, attempt {fault.attempt}"
    elif fault.stage is not Stage.STEP:
        where += f" ({fault.stage.value})"
    _logger.warning(
        "%s: %s; %s%s (%s)", where, fault.summary, decision.action.value, pause, decision.reason
    )
