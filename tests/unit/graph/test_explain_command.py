"""`penstock explain MODULE:FUNCTION`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from penstock.cli.explain import explain_command
from penstock.errors import NotShippableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

PIPELINES = """
import tensorflow as tf

def numbers():
    return tf.data.Dataset.range(100).shuffle(10).batch(8)

def random():
    generator = tf.random.Generator.from_seed(1)
    return tf.data.Dataset.range(3).map(lambda x: generator.uniform([]))

def wrong():
    return 3

def needs(argument):
    return argument

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pipelines_of_a_test.py").write_text(PIPELINES)
    monkeypatch.chdir(tmp_path)
    return "pipelines_of_a_test"


def test_text(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain_command(f"{module}:numbers")
    out = capsys.readouterr().out
    assert "Range of 100: 50 splits of 2 elements, of a seeded permutation" in out


def test_json(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain_command(f"{module}:numbers", json=True)
    assert json.loads(capsys.readouterr().out)["rebatch"] is True


def test_strict(module: str) -> None:
    with pytest.raises(NotShippableError, match="map_lambda: "):
        explain_command(f"{module}:random", strict=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("numbers", "MODULE:FUNCTION"),
        (":numbers", "MODULE:FUNCTION"),
        ("no_such_module_at_all:numbers", "cannot import"),
        ("{}:nothing", "no function"),
        ("{}:constant", "no function"),
        ("{}:wrong", "returned int"),
        ("{}:needs", "without arguments"),
    ],
)
def test_bad_targets(module: str, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain_command(target.format(module))
