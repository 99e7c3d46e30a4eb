"""What the default extension answers, and budgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from penstock.recovery.diagnosis.result import Category, Diagnosis
from penstock.recovery.failover import (
    Budgets,
    Decision,
    DiagnosingFailover,
    FailureInfo,
    FailureKind,
)
from penstock.recovery.strategy import FailoverStrategy

NORMAL = FailoverStrategy.NORMAL_FAILOVER
NODE = FailoverStrategy.NODE_FAILOVER
GLOBAL = FailoverStrategy.GLOBAL_FAILOVER
ABORTION = FailoverStrategy.ABORTION_FAILOVER


def diagnosis(strategy: FailoverStrategy, confidence: float = 0.9) -> Diagnosis:
    return Diagnosis(
        "DiskFull", Category.INFRASTRUCTURE, True, strategy, "", (), confidence, "rule:x"
    )


def answer(kind: FailureKind = FailureKind.EXCEPTION, **more: Any) -> FailoverStrategy:
    info = FailureInfo(fault=1, kind=kind, fingerprint="f", **more)
    return DiagnosingFailover().get_user_failover_strategy(info)


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if kind not in ("hash mismatch", "bad worker")]
)
def test_what_is_not_known_is_tried_again(kind: FailureKind) -> None:
    assert answer(kind) is NORMAL


def test_wrong_data_ends_the_job() -> None:
    assert answer(FailureKind.HASH_MISMATCH) is ABORTION
    assert answer(FailureKind.BAD_WORKER) is NODE


def test_a_worker_that_is_to_blame_is_retired() -> None:
    assert answer(diagnosis=diagnosis(NODE)) is NODE
    assert answer(diagnosis=diagnosis(NODE, confidence=0.4)) is NORMAL


def test_it_is_not_the_worker_if_a_second_one_fails_in_the_same_way() -> None:
    before = Decision(1, FailureKind.EXCEPTION, NODE, "f", "w1", None, "penstock", "")
    other = dataclasses.replace(before, fingerprint="g")
    assert answer(diagnosis=diagnosis(NODE), earlier=(before,)) is NORMAL
    assert answer(diagnosis=diagnosis(NODE), earlier=(other,)) is NODE


def test_a_worker_that_fails_on_what_others_make_is_retired() -> None:
    assert answer(blamed=3) is NODE
    assert answer(blamed=2) is NORMAL
    assert answer(blamed=3, failed_on=("w2",)) is NORMAL  # the split may be to blame


def test_a_script_error_does_not_end_the_job_before_the_record_is_known() -> None:
    assert answer(diagnosis=diagnosis(ABORTION)) is NORMAL


def test_a_diagnosis_of_anything_else_than_an_exception_decides_nothing() -> None:
    assert answer(FailureKind.DEATH, diagnosis=diagnosis(GLOBAL)) is NORMAL


def test_budgets_count_for_a_fingerprint_and_for_all() -> None:
    budgets = Budgets(node_each=2, node_all=3, global_each=1, global_all=1)
    for used, left in [((0, 0), (2, 3)), ((1, 2), (1, 1)), ((2, 2), (0, 1)), ((1, 5), (0, 0))]:
        use = budgets.use(NODE, *used)
        assert use is not None
        assert (use.left_here, use.left) == left
    assert budgets.use(NORMAL, 9, 9) is None
    assert budgets.use(ABORTION, 9, 9) is None


def test_a_record_tells_what_is_left() -> None:
    use = Budgets().use(GLOBAL, 1, 1)
    assert use is not None
    info = FailureInfo(fault=1, kind=FailureKind.HANG, budgets=(use,))
    assert info.left(GLOBAL) == 2
    assert info.left(NORMAL) is None


def test_each_record_has_its_own_time_and_none_can_be_changed() -> None:
    first = FailureInfo(fault=1, kind=FailureKind.DEATH)
    assert FailureInfo(fault=2, kind=FailureKind.DEATH).at_unix_s >= first.at_unix_s > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.fault = 3  # type: ignore[misc]
