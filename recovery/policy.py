"""The policy of in-situ recovery: which fault of a training step is answered how, and how often.

Theory of operation. A policy is data. Its rules are looked through in order, and the first one that
fits the error and is not used up for this step is taken; so two rules for the same error are a
ladder (retry twice, then skip the batch). Budgets bound what a session does about one kind of
fault, and about all of them together; past them, or past the last rule, stands what `exhausted`
says. `decisions` applies a policy; nothing here has a clock or does anything.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("penstock.in_situ")

#: Not retried, skipped or waited for unless a rule names them, or a class of theirs.
FATAL = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)
_COUNT_MAX = 1_000_000
_SECONDS_MAX = 30 * 24 * 3600.0
#: What CUDA says when nothing more can be done on the device in this process.
_DEVICE_LOST = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "uncorrectable ecc error",
    "misaligned address",
    "cuda_error_illegal_address",
)


class Action(str, Enum):
    """What is done about a fault.

    Attributes:
        RETRY: the step runs again on the very same batch.
        REFETCH: the batch is fetched again and compared with what the step got; then a retry.
        SKIP: the batch is put into quarantine, and the next step begins.
        REWIND: the model and the data go back to the last commit.
        WAIT: an operator decides, within a time.
        RESTART: the process is to be started again.
        ABORT: the error is raised.
    """

    RETRY = "retry"
    REFETCH = "refetch"
    SKIP = "skip"
    REWIND = "rewind"
    WAIT = "wait"
    RESTART = "restart"
    ABORT = "abort"


def checked_action(
    name: str, value: object, accepted: tuple[Action, ...] = tuple(Action)
) -> Action:
    """An action, from itself or its name.

    Raises:
        UsageError: it is none of those accepted.
    """
    try:
        action = Action(value)
    except ValueError:
        action = None
    if action not in accepted:
        names = ", ".join(one.value for one in accepted)
        raise UsageError(f"{name} must be one of {names}, not {value!r:.80}")
    return action


def _ask(predicate: Callable[[BaseException], object], error: BaseException) -> bool:
    try:
        return bool(predicate(error))
    except Exception:
        _logger.exception("a rule's function failed, and is taken to say no: %r", predicate)
        return False


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _is_predicate(value: object) -> bool:
    return callable(value) and not isinstance(value, type)


def check_count(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= _COUNT_MAX:
        raise UsageError(
            f"{name} must be a whole number from {least} to {_COUNT_MAX}, not {value!r:.80}"
        )


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        raise UsageError(f"{name} must be a number from {least:g} to {most:g}, not {value!r:.80}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to pause before the step runs again.

    Attributes:
        first_s: before the first retry; 0 for none.
        factor: each pause is so many times the one before.
        most_s: the longest pause.
        jitter: a pause is made longer or shorter at random by up to this part of it.

    Raises:
        UsageError: a value is not accepted.
    """

    first_s: float = 0.0
    factor: float = 2.0
    most_s: float = 30.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        _check_number("first_s", self.first_s, 0, _SECONDS_MAX)
        _check_number("factor", self.factor, 1, 100)
        _check_number("most_s", self.most_s, 0, _SECONDS_MAX)
        _check_number("jitter", self.jitter, 0, 1)

    def pause_s(self, retries: int, draw: float) -> float:
        """The pause, in seconds.

        Args:
            retries: how many there were before.
            draw: a number drawn from [0, 1).
        """
        # An exponent that is too large would overflow; any pause has reached its limit by then.
        grown = self.first_s * self.factor ** min(retries, 64)
        return min(grown, self.most_s) * (1 + self.jitter * (2 * draw - 1))


@dataclass(frozen=True, slots=True)
class RecoveryRule:
    """What is done about some errors.

    Attributes:
        errors: an exception class, a tuple of them, or a function of the exception that says
            whether it is meant. `KeyboardInterrupt`, `SystemExit` and `MemoryError` are only meant
            by a class that is theirs.
        action: what is done.
        attempts: how often for one step; after that, the next rule is looked for.
        backoff: the pause before it.

    Raises:
        UsageError: a value is not accepted.
    """

    errors: Any
    action: Action
    attempts: int = 1
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        classes = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        if not all(_is_error(one) for one in classes) and not _is_predicate(self.errors):
            raise UsageError(
                "errors must be an exception class, a tuple of them, or a function of the"
                f" exception, not {self.errors!r:.80}"
            )
        object.__setattr__(self, "action", checked_action("action", self.action))
        check_count("attempts", self.attempts, 1)
        if not isinstance(self.backoff, Backoff):
            raise UsageError(f"backoff must be a Backoff, not {self.backoff!r:.80}")

    def fits(self, error: BaseException) -> bool:
        """Whether the rule is about this error; a predicate that fails says no, and is logged."""
        if _is_predicate(self.errors):
            if isinstance(error, FATAL):
                return False
            return _ask(self.errors, error)
        classes = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        if isinstance(error, FATAL):
            classes = tuple(one for one in classes if issubclass(one, FATAL))
        return isinstance(error, classes)


def device_is_lost(error: BaseException) -> bool:
    """Whether the error says that the accelerator can do nothing more in this process."""
    text = str(error).lower()
    return any(words in text for words in _DEVICE_LOST)


#: Restart when the device is lost; I/O is tried five times more, all else once; then an operator.
DEFAULT_RULES = (
    RecoveryRule(device_is_lost, Action.RESTART),
    RecoveryRule(OSError, Action.RETRY, attempts=5, backoff=Backoff(first_s=0.1)),
    RecoveryRule(Exception, Action.RETRY),
    RecoveryRule(Exception, Action.WAIT, attempts=10),
)


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """All rules, and the bounds.

    Attributes:
        rules: the first one that fits and is not used up for the step is taken.
        per_fingerprint: how many faults of one fingerprint a session answers.
        overall: how many faults it answers.
        exhausted: what is done when a budget or all rules are used up: wait, restart or abort.
        operator_timeout_s: how long an operator is waited for.
        operator_default: what is done when none came: skip, restart or abort.

    Raises:
        UsageError: a value is not accepted.
    """

    rules: tuple[RecoveryRule, ...] = DEFAULT_RULES
    per_fingerprint: int = 20
    overall: int = 200
    exhausted: Action = Action.ABORT
    operator_timeout_s: float = 1800.0
    operator_default: Action = Action.ABORT

    def __post_init__(self) -> None:
        if not isinstance(self.rules, (tuple, list)) or not all(
            isinstance(rule, RecoveryRule) for rule in self.rules
        ):
            raise UsageError(f"rules must be a tuple of RecoveryRules, not {self.rules!r:.80}")
        object.__setattr__(self, "rules", tuple(self.rules))
        check_count("per_fingerprint", self.per_fingerprint, 0)
        check_count("overall", self.overall, 0)
        # What could go on for ever by itself is not among them.
        for name, accepted in (
            ("exhausted", (Action.WAIT, Action.RESTART, Action.ABORT)),
            ("operator_default", (Action.SKIP, Action.RESTART, Action.ABORT)),
        ):
            action = checked_action(name, getattr(self, name), accepted)
            object.__setattr__(self, name, action)
        _check_number("operator_timeout_s", self.operator_timeout_s, 0, _SECONDS_MAX)

    def matching(self, error: BaseException) -> tuple[int, ...]:
        """Numbers of the rules that are about this error, in order."""
        return tuple(number for number, rule in enumerate(self.rules) if rule.fits(error))

    def has(self, action: Action) -> bool:
        """Whether a rule, or what stands past them, may do this."""
        actions = [rule.action for rule in self.rules]
        return action in (*actions, self.exhausted, self.operator_default)
