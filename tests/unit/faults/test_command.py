"""The command around the tests: exit codes, what is printed where, and which files stay."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.errors import UsageError
from penstock.faults import run as run_module
from penstock.faults.result import EpochFound, TestResult
from penstock.faults.run import Observer, Options

Invoke = Callable[..., tuple[Result, list[Options]]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command with tests that only pretend: those named in `wrong` fail."""

    def invoked(
        *arguments: str, wrong: tuple[str, ...] = (), interrupt: signal.Signals | None = None
    ) -> tuple[Result, list[Options]]:
        asked: list[Options] = []

        class Pretended:
            def __init__(self, options: Options, observer: Observer) -> None:
                asked.append(options)
                self._observer = observer

            def results(self) -> Iterator[TestResult]:
                for test in asked[0].tests:
                    for run in range(asked[0].repeat or 1):
                        epochs = (EpochFound(0, 9, 0, 0, 0, in_order=True),)
                        problems = ("3 lost",) if test.name in wrong else ()
                        place = asked[0].directory / test.name
                        told = TestResult(
                            test.name, run, 1.0, epochs, 0.5, 7, "done", problems, place
                        )
                        self._observer.ended(told)
                        yield told
                if interrupt:
                    signal.raise_signal(interrupt)

        monkeypatch.setattr(run_module, "Run", Pretended)
        return CliRunner().invoke(app, ["faults", *arguments]), asked

    return invoked


def test_when_all_is_well_it_exits_with_0_and_leaves_nothing(invoke: Invoke) -> None:
    result, (options,) = invoke("recover", "failover", "--repeat", "2", "--seed", "7")
    assert result.exit_code == 0
    assert [line.split()[:5] for line in result.stdout.splitlines()] == [
        ["[", "OK", "]", name, number] for name in ("failover", "recover") for number in ("1", "2")
    ]
    assert (options.repeat, options.seed) == (2, 7)
    assert not options.directory.exists()


def test_without_names_all_tests_run_once_at_their_fixed_moments(invoke: Invoke) -> None:
    _, (options,) = invoke()
    assert len(options.tests) >= 8
    assert options.repeat is None


def test_a_failure_exits_with_1_says_why_and_keeps_the_directory(invoke: Invoke) -> None:
    result, (options,) = invoke("failover", "recover", wrong=("recover",))
    assert result.exit_code == 1
    assert "[FAILED] recover" in result.stdout
    assert "3 lost" in result.stdout
    assert f"logs: {options.directory / 'recover'}" in result.stdout
    options.directory.rmdir()


def test_json_is_all_that_is_printed(invoke: Invoke) -> None:
    result, _ = invoke("failover", "recover", "--json")
    assert [one["name"] for one in json.loads(result.stdout)] == ["failover", "recover"]
    assert "[ OK ]" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_exits_with_130_and_shows_what_had_ended(
    invoke: Invoke, number: signal.Signals
) -> None:
    result, (options,) = invoke("failover", "--json", interrupt=number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert result.exit_code == 130
    assert len(json.loads(result.stdout)) == 1
    assert not options.directory.exists()


def test_a_directory_that_was_given_is_kept(invoke: Invoke, tmp_path: Path) -> None:
    result, (options,) = invoke("failover", "--directory", str(tmp_path / "new"))
    assert result.exit_code == 0
    assert options.keep
    assert options.directory == tmp_path / "new"
    assert options.directory.is_dir()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nofial"], "no test 'nofial'; there are nofail, nofail-cache, getfail"),
        (["failover", "--directory", __file__], "--directory must be an empty directory"),
    ],
)
def test_bad_usage_names_what_is_accepted(
    invoke: Invoke, arguments: list[str], complaint: str
) -> None:
    result, asked = invoke(*arguments)
    assert isinstance(result.exception, UsageError)  # which exits with 2, see `cli.main.main`
    assert complaint in str(result.exception)
    assert not asked
