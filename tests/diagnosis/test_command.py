"""`penstock diagnose`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.errors import UsageError

HERE = Path(__file__).parent


def test_it_says_the_root_cause() -> None:
    log = str(HERE / "corpus" / "ECCError-2.log")
    result = CliRunner().invoke(app, ["diagnose", log])
    assert result.exit_code == 0
    assert "ECCError (infrastructure)" in result.stdout
    found = json.loads(CliRunner().invoke(app, ["diagnose", "--json", log]).stdout)
    assert found["root_cause"] == "ECCError"
    assert found["strategy"] == "NODE_FAILOVER"


def test_standard_input_without_trouble_ends_with_1() -> None:
    result = CliRunner().invoke(app, ["diagnose", "-"], input="step 1\n")
    assert result.exit_code == 1
    assert "Unknown" in result.stdout


def test_evaluation_shows_what_is_right_and_wrong(tmp_path: Path) -> None:
    (tmp_path / "KeyError-1.log").write_text("KeyError: 'x'\n")
    (tmp_path / "DiskFull-1.log").write_text("KeyError: 'x'\n")
    result = CliRunner().invoke(app, ["diagnose", "--evaluate", str(tmp_path), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["right"], found["total"]) == (1, 2)
    assert found["wrong"] == {"DiskFull-1.log": "KeyError"}


def test_bad_input_is_named() -> None:
    for arguments in ([], ["--evaluate", "."], ["/no/such/file"], ["x", "--evaluate", "."]):
        result = CliRunner().invoke(app, ["diagnose", *arguments])
        assert isinstance(result.exception, UsageError), arguments


@pytest.mark.parametrize(
    "option", ["--settle=nan", "--settle=inf", "--model-below=nan", "--model-below=inf"]
)
def test_a_number_that_is_none_is_refused_by_name(option: str, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("KeyError: 'x'\n")
    result = CliRunner().invoke(app, ["diagnose", str(log), option])
    assert result.exit_code != 0
    assert option.partition("=")[0] in f"{result.output} {result.exception}"


def test_an_option_that_would_have_no_effect_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("KeyError: 'x'\n")
    for more, needed in (
        (["--alert-url-file", "url"], "--follow"),
        (["--note", "filled it"], "--close"),
        (["--root-cause", "FluxError"], "--close"),
    ):
        result = CliRunner().invoke(app, ["diagnose", str(log), *more])
        assert isinstance(result.exception, UsageError), more
        assert f"{more[0]} needs {needed}" in str(result.exception)
