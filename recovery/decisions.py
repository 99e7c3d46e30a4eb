"""The core of in-situ recovery: (policy, fault, history) -> decision.

Theory of operation. A fault says at which step it happened, how far the step had got, and which of
the policy's rules fit its error; the history says what was decided before. `decide` takes the first
fitting rule that is not used up for the step and that can be carried out: a half-done commit may
not run again unless the state can be restored, a batch that was never delivered cannot be skipped.
The same arguments give the same decision. No clock, no I/O, no threads; the jitter is drawn
outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .policy import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .policy import RecoveryPolicy


class Stage(str, Enum):
    """How far a step had got when it failed.

    Attributes:
        FETCH: its batch was not there yet: the iterator failed.
        STEP: nothing was done that must not be done twice.
        COMMITTING: in the middle of that.
        COMMITTED: after it.
    """

    FETCH = "fetch"
    STEP = "step"
    COMMITTING = "committing"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is known of a failed attempt.

    Attributes:
        step: number of the step within the session.
        attempt: number of the attempt at it, from 1.
        stage: how far it had got.
        fingerprint: the same for faults of the same type at the same place.
        rules: numbers of the rules that fit the error.
        summary: type and message, one line.
    """

    step: int
    attempt: int
    stage: Stage
    fingerprint: str
    rules: tuple[int, ...]
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Handled:
    """What was decided about a fault.

    Attributes:
        step, fingerprint: of the fault.
        rule: number of the rule that was taken; -1 if it was none.
        action: what was decided.
    """

    step: int
    fingerprint: str
    rule: int
    action: Action


@dataclass(frozen=True, slots=True)
class Means:
    """What can be done at all.

    Attributes:
        refetch: the source can deliver a batch again.
        rewind: there is a commit to go back to, and a way to.
        operator: somebody can be asked.
        restore: the state that a half-done step has touched can be restored.
    """

    refetch: bool = False
    rewind: bool = False
    operator: bool = False
    restore: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done.

    Attributes:
        action: what.
        rule: number of the rule that says so; -1 if none does.
        pause_s: wait so long before.
        reason: why, in words.
    """

    action: Action
    rule: int
    pause_s: float
    reason: str


def decide(
    policy: RecoveryPolicy, fault: Fault, history: Sequence[Handled], means: Means, draw: float
) -> Decision:
    """The answer to a fault.

    Args:
        policy: what the user wants.
        fault: what happened.
        history: what this session decided so far, oldest first.
        means: what can be done.
        draw: a number drawn from [0, 1), for the jitter of the pause.
    """
    if not fault.rules:
        return Decision(Action.ABORT, -1, 0.0, "no rule is about such an error")
    alike = sum(1 for past in history if past.fingerprint == fault.fingerprint)
    if alike >= policy.per_fingerprint:
        return _exhausted(policy, fault, means, f"{alike} faults like it were answered")
    if len(history) >= policy.overall:
        return _exhausted(policy, fault, means, f"{len(history)} faults were answered in all")
    left_out: list[str] = []
    for number in fault.rules:
        rule = policy.rules[number]
        used = sum(1 for past in history if past.step == fault.step and past.rule == number)
        if used >= rule.attempts:
            left_out.append(f"{rule.action.value} was tried {used} times")
            continue
        refusal = why_not(rule.action, fault.stage, means)
        if refusal:
            left_out.append(f"no {rule.action.value}: {refusal}")
            continue
        pause_s = rule.backoff.pause_s(used, draw)
        reason = f"rule {number}, {used + 1} of {rule.attempts}"
        return Decision(rule.action, number, pause_s, "; ".join([reason, *left_out]))
    return _exhausted(policy, fault, means, "; ".join(left_out))


def why_not(action: Action, stage: Stage, means: Means) -> str:
    """Why an action cannot be carried out at a stage; "" if it can."""
    needs = {
        Action.REFETCH: (means.refetch, "the batches cannot be delivered a second time"),
        Action.REWIND: (
            means.rewind,
            "there is no commit to go back to, or no `rewind` that restores the model",
        ),
        Action.WAIT: (means.operator, "no operator can be asked: `incidents` names no directory"),
    }
    possible, refusal = needs.get(action, (True, ""))
    if not possible:
        return refusal
    if stage is Stage.FETCH and action in (Action.REFETCH, Action.SKIP):
        return "there is no batch yet"
    again = action in (Action.RETRY, Action.REFETCH)
    if stage is Stage.COMMITTING and (again or action is Action.SKIP) and not means.restore:
        return "the step's commit had begun, and there is no snapshot to restore"
    if stage is Stage.COMMITTED and again and not means.restore:
        return "the step was committed, and there is no snapshot to restore"
    return ""


def timed_out(policy: RecoveryPolicy, fault: Fault, means: Means) -> Decision:
    """The answer when no operator came in time."""
    action, reason = policy.operator_default, f"no operator in {policy.operator_timeout_s:g} s"
    refusal = why_not(action, fault.stage, means)
    if refusal:
        return Decision(Action.ABORT, -1, 0.0, f"{reason}; no {action.value}: {refusal}")
    return Decision(action, -1, 0.0, reason)


def _exhausted(policy: RecoveryPolicy, fault: Fault, means: Means, reason: str) -> Decision:
    refusal = why_not(policy.exhausted, fault.stage, means)
    if refusal:
        action = policy.exhausted.value
        return Decision(Action.ABORT, -1, 0.0, f"{reason}; no {action}: {refusal}")
    return Decision(policy.exhausted, -1, 0.0, reason)
