"""Reports of incidents: everything a person needs, bounded, without secrets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from penstock.recovery.decisions import Fault, Means, Stage
from penstock.recovery.guard import Scene
from penstock.recovery.policy import RecoveryPolicy
from penstock.recovery.reports import report_of, text_of
from penstock.recovery.tracebacks import fingerprint_of, summary_of
from penstock.recovery.values import named, summary


class Surprising:
    """Its texts may do anything."""

    shape = (3, None)

    def __repr__(self) -> str:
        raise AssertionError("must not be asked")


def fail(batch: Any) -> None:
    password = "correct horse"
    weights = np.linspace(0.0, 1.0, 10_000)
    strange = Surprising()
    loss = float(weights.sum()) * batch["x"].mean()
    if not np.isfinite(loss):
        assert password, strange
        raise ValueError(f"loss is {loss}, token=abcdef0123456789")


def report(batch: Any, stage: Stage = Stage.STEP, **settable: str) -> dict[str, Any]:
    try:
        fail(batch)
    except ValueError as error:
        fault = Fault(50, 2, stage, fingerprint_of(error), (0,), summary_of(error))
        means = Means(operator=True)
        scene = Scene(fault, means, (), "epoch 0, batch 50", batch, RecoveryPolicy(), "rule 0")
        return report_of(error, scene, settable)
    raise AssertionError("it was to fail")


BATCH = {"x": np.array([1.0, np.nan] * 10), "name": "a.png"}


def test_frames_are_told_with_the_values_of_their_variables() -> None:
    frame = report(BATCH)["errors"][0]["frames"][-1]
    assert frame["function"] == "fail"
    assert frame["source"].startswith("raise ValueError")
    assert frame["values"]["weights"] == "float64[10000] from 0.0 to 1.0"
    assert frame["values"]["password"] == "[masked]"
    assert "Surprising (3, None)" in frame["values"]["strange"]


def test_no_secret_is_in_a_report() -> None:
    told = json.dumps(report(BATCH)) + text_of(report(BATCH), "x")
    assert "correct horse" not in told
    assert "abcdef0123456789" not in told


def test_a_batch_that_holds_no_numbers_is_named_and_skipping_it_suggested() -> None:
    found = report(BATCH)
    assert found["batch"] == [
        "batch['x']: float64[20] with 10 NaN and 0 infinite from 1.0 to 1.0",
        "batch['name']: 'a.png'",
    ]
    assert "batch['x'] has values that are no numbers: --skip" in found["suggestions"][0]


def test_what_cannot_be_answered_is_told_with_the_reason() -> None:
    found = report(BATCH, Stage.COMMITTING)
    assert "no snapshot" in found["answers"]["retry"]
    assert "no commit to go back to" in found["answers"]["rewind"]
    assert found["answers"]["abort"] == ""
    text = text_of(found, "20260101-000000-abcdef")
    assert "penstock repair 20260101-000000-abcdef --retry   not now: the step's commit" in text
    assert "without an answer in 1800 s: abort" in text
    assert "float64[10000] from 0.0 to 1.0" in text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x" * 5000, "'xxxx"),
        (b"abc", "b'abc'"),
        ([1, 2, 3], "[1, 2, 3]"),
        (list(range(100)), "<list of 100>"),
        ({"a": object()}, "<dict of 1>"),
        (np.float32(2.5), "float32[] 2.5"),
        (np.array(["a", None], object), "object[2]"),
        (np.zeros((0, 3)), "float64[0, 3]"),
        (np.array([np.inf] * 9), "float64[9] with 0 NaN and 9 infinite"),
        (np.arange(9), "int64[9] from 0 to 8"),
        (test_no_secret_is_in_a_report, "<builtins.function>"),
    ],
)
def test_a_value_is_told_in_a_bounded_line(value: Any, told: str) -> None:
    found = summary(value)
    assert len(found) <= 220
    assert found.startswith(told)
    assert "\n" not in found


def test_an_error_that_cannot_be_shown_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError("no")

    assert summary_of(Mute()).endswith("Mute: <its message cannot be shown: KeyError>")
    assert len(summary_of(ValueError("x" * 10_000))) == 300


def test_a_variable_with_the_name_of_a_secret_is_masked() -> None:
    assert named("API_TOKEN", "abc") == "[masked]"
    assert named("tokens", 3) == "3"
