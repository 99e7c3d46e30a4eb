"""The core of in-situ recovery, without a clock or a training."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.recovery.decisions import (
    Decision,
    Fault,
    Handled,
    Means,
    Stage,
    decide,
    timed_out,
    why_not,
)
from penstock.recovery.policy import Action, Backoff, RecoveryPolicy, RecoveryRule

ALL = Means(refetch=True, rewind=True, operator=True, restore=True)
LADDER = RecoveryPolicy(
    (
        RecoveryRule(OSError, Action.RETRY, attempts=2, backoff=Backoff(1.0, jitter=0)),
        RecoveryRule(OSError, Action.REFETCH),
        RecoveryRule(OSError, Action.SKIP),
        RecoveryRule(OSError, Action.REWIND),
    )
)


def fault(step: int = 7, stage: Stage = Stage.STEP, fingerprint: str = "f") -> Fault:
    return Fault(step, 1, stage, fingerprint, (0, 1, 2, 3))


def play(policy: RecoveryPolicy, means: Means, *, stage: Stage = Stage.STEP) -> list[Decision]:
    """What is decided when the same step fails again and again."""
    history: list[Handled] = []
    made = []
    while not made or made[-1].action not in (Action.ABORT, Action.RESTART):
        made.append(decide(policy, fault(stage=stage), history, means, 0.5))
        history.append(Handled(7, "f", made[-1].rule, made[-1].action))
        assert len(made) < 1000, "it goes on for ever"
    return made


def test_rules_for_the_same_error_are_a_ladder() -> None:
    made = play(LADDER, ALL)
    assert [one.action.value for one in made] == [
        "retry", "retry", "refetch", "skip", "rewind", "abort"
    ]  # fmt: skip
    assert [one.pause_s for one in made[:3]] == [1.0, 2.0, 0.0]
    assert "retry was tried 2 times" in made[2].reason
    assert "rewind was tried 1 times" in made[-1].reason


def test_a_rung_that_cannot_be_carried_out_is_left_out_and_named() -> None:
    made = play(LADDER, dataclasses.replace(ALL, refetch=False, rewind=False))
    assert [one.action.value for one in made] == ["retry", "retry", "skip", "abort"]
    assert "no refetch: the batches cannot be delivered a second time" in made[2].reason


def test_another_step_begins_at_the_first_rung_again() -> None:
    history = [Handled(7, "f", 0, Action.RETRY)] * 2
    assert decide(LADDER, fault(8), history, ALL, 0).rule == 0
    assert decide(LADDER, fault(7), history, ALL, 0).rule == 1


def test_an_error_that_no_rule_is_about_is_raised() -> None:
    nobodys = Fault(1, 1, Stage.STEP, "f", ())
    assert decide(LADDER, nobodys, [], ALL, 0).action is Action.ABORT


@pytest.mark.parametrize("action", [Action.RETRY, Action.REFETCH, Action.SKIP])
def test_half_a_commit_is_not_run_again_without_a_snapshot(action: Action) -> None:
    without = dataclasses.replace(ALL, restore=False)
    assert "commit had begun" in why_not(action, Stage.COMMITTING, without)
    assert why_not(action, Stage.COMMITTING, ALL) == ""
    assert why_not(Action.REWIND, Stage.COMMITTING, without) == ""


def test_what_was_committed_may_be_gone_on_from_but_not_run_again() -> None:
    without = dataclasses.replace(ALL, restore=False)
    assert "was committed" in why_not(Action.RETRY, Stage.COMMITTED, without)
    assert why_not(Action.SKIP, Stage.COMMITTED, without) == ""
    assert [one.action.value for one in play(LADDER, without, stage=Stage.COMMITTED)] == [
        "skip", "rewind", "abort"
    ]  # fmt: skip


def test_a_batch_that_never_came_cannot_be_skipped() -> None:
    made = play(LADDER, ALL, stage=Stage.FETCH)
    assert [one.action.value for one in made] == ["retry", "retry", "rewind", "abort"]


def test_budgets_bound_one_fingerprint_and_all_faults() -> None:
    rules = (RecoveryRule(OSError, Action.SKIP),)
    policy = RecoveryPolicy(rules, per_fingerprint=3, overall=5, exhausted=Action.RESTART)
    history: list[Handled] = []
    seen = []
    for step, name in enumerate("aaaabbbb"):
        made = decide(policy, Fault(step, 1, Stage.STEP, name, (0,)), history, ALL, 0)
        seen.append(made.action.value)
        history.append(Handled(step, name, made.rule, made.action))
    # The fourth "a" is one too many; it counts among all, of which five are answered.
    assert seen == ["skip", "skip", "skip", "restart", "skip", "restart", "restart", "restart"]


def test_no_operator_in_time_means_the_default_or_the_end() -> None:
    policy = RecoveryPolicy(operator_default=Action.SKIP, operator_timeout_s=5)
    assert timed_out(policy, fault(), ALL).action is Action.SKIP
    made = timed_out(policy, fault(stage=Stage.FETCH), ALL)
    assert made.action is Action.ABORT
    assert "no operator in 5 s; no skip: there is no batch yet" in made.reason


ACTIONS = st.sampled_from(Action)
RULES = st.builds(RecoveryRule, st.just(OSError), ACTIONS, st.integers(1, 4))
POLICIES = st.builds(
    RecoveryPolicy,
    st.lists(RULES, max_size=6).map(tuple),
    st.integers(0, 12),
    st.integers(0, 12),
    st.sampled_from([Action.RESTART, Action.ABORT]),
)
MEANS = st.builds(Means, *[st.booleans()] * 4)


@given(POLICIES, MEANS, st.sampled_from(Stage))
def test_a_step_that_always_fails_ends_and_only_what_can_be_done_is_decided(
    policy: RecoveryPolicy, means: Means, stage: Stage
) -> None:
    numbers = tuple(range(len(policy.rules)))
    history: list[Handled] = []
    for _ in range(policy.overall + 2):
        this = Fault(1, len(history) + 1, stage, "f", numbers)
        made = decide(policy, this, history, means, 0.3)
        assert made == decide(policy, this, list(history), means, 0.3)
        assert why_not(made.action, stage, means) == ""
        assert made.reason
        if made.action in (Action.ABORT, Action.RESTART):
            return
        used = sum(past.rule == made.rule for past in history)
        assert used < policy.rules[made.rule].attempts
        history.append(Handled(1, "f", made.rule, made.action))
    pytest.fail("more faults were answered than the budget allows")
