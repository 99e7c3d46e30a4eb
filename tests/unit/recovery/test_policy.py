"""Policies: which rule is about which error, pauses, and values that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.recovery.policy import Action, Backoff, RecoveryPolicy, RecoveryRule


def test_rules_that_fit_are_told_in_order() -> None:
    policy = RecoveryPolicy(
        (
            RecoveryRule(OSError, Action.RETRY),
            RecoveryRule((KeyError, FileNotFoundError), Action.SKIP),
            RecoveryRule(lambda error: "nan" in str(error), Action.SKIP),
            RecoveryRule(Exception, Action.ABORT),
        )
    )
    assert policy.matching(FileNotFoundError("x")) == (0, 1, 3)
    assert policy.matching(ValueError("loss is nan")) == (2, 3)
    assert policy.matching(ValueError("shape")) == (3,)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError("no room")])
def test_what_ends_a_process_is_not_meant_unless_it_is_named(error: BaseException) -> None:
    broad = (
        RecoveryRule(BaseException, Action.RETRY),
        RecoveryRule((Exception, BaseException), Action.RETRY),
        RecoveryRule(lambda error: True, Action.RETRY),
    )
    assert RecoveryPolicy(broad).matching(error) == ()
    assert RecoveryPolicy().matching(error) == ()
    named = (*broad, RecoveryRule((type(error), ValueError), Action.WAIT))
    assert RecoveryPolicy(named).matching(error) == (3,)


def test_a_rules_function_that_fails_says_no_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule = RecoveryRule(lambda error: error.no_such_thing, Action.RETRY)
    assert not rule.fits(ValueError())
    assert "no_such_thing" in caplog.text


def test_a_lost_device_means_a_restart_by_default() -> None:
    policy = RecoveryPolicy()
    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert policy.rules[policy.matching(lost)[0]].action is Action.RESTART
    other = RuntimeError("no such attribute")
    assert policy.rules[policy.matching(other)[0]].action is Action.RETRY


@given(
    st.floats(0, 100),
    st.floats(1, 10),
    st.floats(0, 100),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_never_longer_than_its_limit_and_the_jitter(
    first: float, factor: float, most: float, jitter: float, retries: int, draw: float
) -> None:
    pause = Backoff(first, factor, most, jitter).pause_s(retries, draw)
    assert 0 <= pause <= most * (1 + jitter) + 1e-9
    assert Backoff(first, factor, most, 0).pause_s(0, draw) == min(first, most)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RecoveryRule(3, Action.RETRY), "errors"),
        (lambda: RecoveryRule(int, Action.RETRY), "errors"),
        (lambda: RecoveryRule((OSError, 3), Action.RETRY), "errors"),
        (lambda: RecoveryRule(OSError, "again"), "action must be one of retry, refetch, skip"),
        (lambda: RecoveryRule(OSError, "retry", attempts=0), "attempts"),
        (lambda: RecoveryRule(OSError, "retry", attempts=True), "attempts"),
        (lambda: RecoveryRule(OSError, "retry", backoff=1), "backoff"),
        (lambda: Backoff(first_s=-1), "first_s"),
        (lambda: Backoff(factor=float("nan")), "factor"),
        (lambda: Backoff(jitter=2), "jitter"),
        (lambda: RecoveryPolicy((OSError,)), "rules"),
        (lambda: RecoveryPolicy(RecoveryRule(OSError, "retry")), "rules must be a tuple"),
        (lambda: RecoveryPolicy(exhausted="retry"), "exhausted must be one of wait, restart, abo"),
        (lambda: RecoveryPolicy(operator_default="rewind"), "operator_default"),
        (lambda: RecoveryPolicy(overall=-1), "overall"),
        (lambda: RecoveryPolicy(operator_timeout_s=float("inf")), "operator_timeout_s"),
    ],
)
def test_a_value_that_is_not_accepted_is_named(make: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make()


def test_actions_may_be_given_by_name() -> None:
    assert RecoveryRule(OSError, "skip").action is Action.SKIP
    assert RecoveryPolicy(exhausted="wait").has(Action.WAIT)
    assert not RecoveryPolicy((RecoveryRule(OSError, "skip"),)).has(Action.WAIT)
