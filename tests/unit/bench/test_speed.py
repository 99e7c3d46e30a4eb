"""Figures from what trainers answer, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.bench.children import one_line
from penstock.bench.speed import check, figures
from penstock.errors import VerificationError

TRUTH = {"count": 100, "total": 7, "nbytes": 800}


def answer(
    begin_s: float, end_s: float, first_s: float | None = 0.5, **more: Any
) -> dict[str, Any]:
    made = {"elements": 100, "begin_s": begin_s, "end_s": end_s, "first_s": first_s, "cpu_s": 1.0}
    return {**made, "digest": [100, 7], **more}


def test_the_rate_is_of_the_whole_epoch_with_what_it_takes_to_begin() -> None:
    told = figures([answer(10, 14, first_s=3)], nbytes=8_000_000, before_s=1.0, after_s=1.5)
    assert told["elements_per_s"] == 25
    assert told["mb_per_s"] == pytest.approx(2)
    assert told["first_s"] == 3
    assert told["client_cpu_s_per_gb"] == pytest.approx(125)
    assert told["worker_cpu_s_per_gb"] == pytest.approx(62.5)


def test_clients_that_read_at_once_count_together_from_the_first_to_the_last() -> None:
    told = figures([answer(10, 13), answer(11, 15, first_s=0.75)], 8_000_000, 0.0, 0.0)
    assert told["elements"] == 100
    assert told["elements_per_s"] == 40
    assert told["mb_per_s"] == pytest.approx(3.2)
    assert told["first_s"] == 0.75
    assert told["client_cpu_s_per_gb"] == pytest.approx(125)


def test_what_is_not_known_is_left_out() -> None:
    told = figures([answer(10, 14, first_s=None)], 8_000_000, None, None)
    assert told["first_s"] is None
    assert told["worker_cpu_s_per_gb"] is None


def test_what_a_local_run_gives_is_accepted() -> None:
    check("penstock", answer(0, 1), TRUTH)


@pytest.mark.parametrize(
    "wrong", [{"elements": 99}, {"digest": [99, 7]}, {"digest": [100, 8]}, {"elements": 101}]
)
def test_anything_else_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="a plain local run gives 100") as told:
        check("penstock/unix/eager/w1", answer(0, 1, **wrong), TRUTH)
    assert str(told.value).startswith("penstock/unix/eager/w1: ")


def test_an_error_is_told_in_one_line_that_ends() -> None:
    text = "InvalidArgumentError: {{function_node __wrapped__Next}} cannot\n  read [Op:Next]"
    assert one_line(text) == "InvalidArgumentError: cannot read [Op:Next]"
    assert len(one_line("x" * 5000)) < 400
