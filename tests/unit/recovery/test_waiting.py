"""A training that waits for an operator, and the command that answers it."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from penstock.cli.incidents import incidents, repair
from penstock.errors import PenstockError, RestartNeededError, UsageError
from penstock.recovery.incidents import checked_root, create, default_root, find, load_all
from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
from penstock.recovery.session import Session
from penstock.recovery.waiting import IncidentOperator

WAIT = RecoveryPolicy((RecoveryRule(Exception, Action.WAIT, 5),), operator_timeout_s=30)


def command(root: Path, *arguments: str) -> str:
    """What `penstock ARGUMENTS --directory ROOT` prints; raises what it fails with."""
    app = typer.Typer()
    app.command()(incidents)
    app.command()(repair)
    result = CliRunner().invoke(app, [*arguments, "--directory", str(root)])
    if isinstance(result.exception, PenstockError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def wait_for_incident(root: Path, number: int = 1) -> str:
    """The identity of the incident of that number, once its program waits."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = load_all(root)
        if len(found) >= number and found[-1].waiting:
            return found[-1].identity
        threading.Event().wait(0.01)
    raise AssertionError("no program waits")


def training(
    root: Path, fails: Callable[[int, Any], None], policy: RecoveryPolicy = WAIT, **more: Any
) -> tuple[Session, Future[list[int]]]:
    """A loop over 0 to 4 in a thread; `fails` is called with each batch and the config."""
    config = SimpleNamespace(size=64)
    session = Session(
        range(5), policy, operator=IncidentOperator(root, settable={"config": config}), **more
    )

    def loop() -> list[int]:
        trained = []
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    fails(step.batch, config)
                    trained.append(step.batch)
        return trained

    pool = ThreadPoolExecutor(1)
    future = pool.submit(loop)
    pool.shutdown(wait=False)
    return session, future


def too_large(batch: int, config: Any) -> None:
    if batch == 2 and config.size > 32:
        raise ValueError(f"no room for {config.size}")


def test_a_value_is_set_and_the_very_same_step_goes_on(tmp_path: Path) -> None:
    session, trained = training(tmp_path, too_large)
    identity = wait_for_incident(tmp_path)
    shown = command(tmp_path, "incidents", identity[-6:])
    assert "ValueError: no room for 64" in shown
    assert "config.size = 64" in shown
    assert "state: waits" in shown
    # Too little is refused by the step itself, and it waits in an incident of its own.
    assert "retry" in command(tmp_path, "repair", identity[-6:], "--set", "config.size=48")
    second = wait_for_incident(tmp_path, 2)
    told = command(tmp_path, "repair", second, "--set", "config.size=16", "--retry")
    assert told == f"incident {second}: retry; config.size is 16\n"
    assert trained.result(20) == [0, 1, 2, 3, 4]
    assert session.report().actions == {"wait": 2}
    outcomes = [one.outcome for one in load_all(tmp_path)]
    assert [one["result"] for one in outcomes if one] == [
        "the step failed again",
        "the training went on",
    ]


def compute(batch: int) -> int:
    raise ZeroDivisionError(f"batch {batch}")


def test_a_function_is_patched_and_reverted_if_that_does_not_help(tmp_path: Path) -> None:
    operator = IncidentOperator(tmp_path / "incidents", allow_patch=True)
    session = Session([1], WAIT, operator=operator)
    trained = []

    def loop() -> None:
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    trained.append(compute(step.batch))

    old, root, path = compute.__code__, tmp_path / "incidents", tmp_path / "fix.py"
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(loop)
        try:
            identity = wait_for_incident(root)
            path.write_text(f'MODULE = "{__name__}"\ndef compute(batch): return missing(batch)\n')
            path.chmod(0o600)
            other = tmp_path / "other.py"
            other.write_text(f'MODULE = "{__name__}"\ndef other(): pass\n')
            other.chmod(0o600)
            with pytest.raises(PenstockError, match="no function other"):
                command(root, "repair", identity, "--patch", str(other))
            command(root, "repair", identity, "--patch", str(path))
            second = wait_for_incident(root, 2)
            assert compute.__code__ is old, "it did not help"
            path.write_text(f'MODULE = "{__name__}"\ndef compute(batch): return batch + 41\n')
            command(root, "repair", second, "--patch", str(path))
            ended.result(20)
            assert trained == [42]
            assert compute(1) == 42, "what helps stays"
        finally:
            session.close()
            compute.__code__ = old
    one, two = load_all(root)
    assert one.outcome is not None
    assert (one.outcome["patched"], one.outcome["result"]) == (["compute"], "the step failed again")
    assert "missing" in two.report["error"]
    assert "missing" in (one.directory / "patch.py").read_text()
    assert stat.S_IMODE((one.directory / "patch.py").stat().st_mode) == 0o600


def test_a_program_that_does_not_allow_it_takes_no_patch(tmp_path: Path) -> None:
    _, trained = training(tmp_path, too_large)
    identity = wait_for_incident(tmp_path)
    with pytest.raises(PenstockError, match="takes no patch: it would need allow_patch=True"):
        command(tmp_path, "repair", identity, "--patch", __file__)
    command(tmp_path, "repair", identity, "--skip")
    assert trained.result(20) == [0, 1, 3, 4]
    with pytest.raises(UsageError, match="allow_patch must be"):
        IncidentOperator(tmp_path, allow_patch=1)  # type: ignore[arg-type]


def test_a_refused_answer_leaves_it_waiting(tmp_path: Path) -> None:
    _, trained = training(tmp_path, too_large, quarantine=tmp_path / "quarantine")
    identity = wait_for_incident(tmp_path)
    for arguments, why in (
        (("--rewind",), "no rewind now: there is no commit"),
        (("--set", "config.sizes=1"), "there is no 'sizes'"),
        (("--set", "config.size"), "NAME=JSON"),
        (("--set", "config.size=big"), "not JSON"),
        (("--retry", "--skip"), "say what to do"),
        ((), "say what to do"),
    ):
        with pytest.raises(PenstockError, match=why):
            command(tmp_path, "repair", identity, *arguments)
    assert "skip" in command(tmp_path, "repair", identity, "--skip")
    assert trained.result(20) == [0, 1, 3, 4]
    with pytest.raises(PenstockError, match="no program waits"):
        command(tmp_path, "repair", identity, "--retry")


def test_values_that_cannot_be_looked_at_leave_the_program_waiting(tmp_path: Path) -> None:
    class Strange:
        @property
        def rate(self) -> float:
            raise RuntimeError("look away")

        @rate.setter
        def rate(self, value: float) -> None: ...

        def __len__(self) -> int:
            raise RuntimeError("look away")

    class Batch(list[Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("look away")

    session = Session(
        [Batch([1])], WAIT, operator=IncidentOperator(tmp_path, settable={"strange": Strange()})
    )
    with ThreadPoolExecutor(1) as pool:

        def repair_it() -> str:
            identity = wait_for_incident(tmp_path)
            with pytest.raises(PenstockError, match="the answer failed: RuntimeError: look away"):
                command(tmp_path, "repair", identity, "--set", "strange.rate=1")
            return command(tmp_path, "repair", identity, "--skip")

        answered = pool.submit(repair_it)
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    raise ValueError("no")
        assert "skip" in answered.result(20)
    (one,) = load_all(tmp_path)
    assert "the whole report failed: RuntimeError: look away" in one.report["reason"]


def test_abort_raises_the_error_as_it_was(tmp_path: Path) -> None:
    _, trained = training(tmp_path, too_large)
    command(tmp_path, "repair", wait_for_incident(tmp_path), "--abort")
    with pytest.raises(ValueError, match="no room for 64"):
        trained.result(20)
    (one,) = load_all(tmp_path)
    assert one.outcome is not None
    assert (one.outcome["action"], one.outcome["result"]) == ("abort", "the training ends")


def test_an_operator_may_rewind_and_then_have_the_process_started_again(tmp_path: Path) -> None:
    weights = [0]
    session = Session(
        range(5), WAIT, operator=IncidentOperator(tmp_path), rewind=lambda: weights.clear()
    )

    def loop() -> None:
        session.commit()
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    if step.batch == 2:
                        raise ValueError("no")
                    weights.append(step.batch)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(loop)
        assert "rewind" in command(tmp_path, "repair", wait_for_incident(tmp_path), "--rewind")
        second = wait_for_incident(tmp_path, 2)
        assert weights == [0, 1], "from the beginning again"
        assert "restart" in command(tmp_path, "repair", second, "--restart")
        with pytest.raises(RestartNeededError, match="the data is at epoch 0, batch 2"):
            ended.result(20)
    states = [one["state"] for one in json.loads(command(tmp_path, "incidents", "--json"))]
    assert states == [
        "rewind by operator, the training went on",
        "restart by operator, the training restarts",
    ]


def test_nobody_in_time_means_the_default(tmp_path: Path) -> None:
    policy = RecoveryPolicy(WAIT.rules, operator_timeout_s=0.05, operator_default=Action.SKIP)
    session, trained = training(tmp_path, too_large, policy)
    assert trained.result(20) == [0, 1, 3, 4]
    assert session.report().skipped[0].step == 2
    listed = json.loads(command(tmp_path, "incidents", "--json"))
    assert [one["state"] for one in listed] == ["skip by default, the training went on"]
    assert "skip by default" in command(tmp_path, "incidents")


def test_closing_the_session_ends_the_wait(tmp_path: Path) -> None:
    session, trained = training(tmp_path, too_large)
    wait_for_incident(tmp_path)
    session.close()
    with pytest.raises(ValueError, match="no room"):
        trained.result(20)


def test_a_training_that_ends_without_being_asked_leaves_a_report(tmp_path: Path) -> None:
    policy = RecoveryPolicy((RecoveryRule(ValueError, Action.ABORT),))
    _, trained = training(tmp_path, too_large, policy)
    with pytest.raises(ValueError, match="no room"):
        trained.result(20)
    (one,) = load_all(tmp_path)
    assert one.report["error"] == "ValueError: no room for 64"
    assert not one.waiting
    assert stat.S_IMODE(one.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_needs_no_report(tmp_path: Path, error: type[BaseException]) -> None:
    session = Session([1], WAIT, operator=IncidentOperator(tmp_path))
    with pytest.raises(error), next(session.steps()):
        raise error
    assert load_all(tmp_path) == []


def test_a_full_disk_does_not_take_the_place_of_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("penstock.recovery.waiting.create", full)
    policy = RecoveryPolicy(WAIT.rules, operator_default=Action.SKIP)
    _, trained = training(tmp_path, too_large, policy)
    assert trained.result(20) == [0, 1, 3, 4]
    _, trained = training(tmp_path, too_large)
    with pytest.raises(ValueError, match="no room for 64"):
        trained.result(20)


def test_an_outcome_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("penstock.recovery.waiting.conclude", full)
    _, trained = training(tmp_path, too_large)
    assert "skip" in command(tmp_path, "repair", wait_for_incident(tmp_path), "--skip")
    assert trained.result(20) == [0, 1, 3, 4]


def test_a_session_that_is_closed_asks_nobody(tmp_path: Path) -> None:
    operator = IncidentOperator(tmp_path)
    session = Session([1], WAIT, operator=operator)
    steps = session.steps()
    step = next(steps)
    session.close()  # by another thread, while the step fails
    began_s = time.monotonic()
    with pytest.raises(ValueError, match="no"), step:
        raise ValueError("no")
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("text", ["no [/INST]", "name \udcff of bytes", "no \x1b[2J"])
def test_an_error_of_any_text_is_shown(tmp_path: Path, text: str) -> None:
    def fails(batch: int, config: Any) -> None:
        raise ValueError(text)

    _, trained = training(tmp_path, fails, RecoveryPolicy(()))
    with pytest.raises(ValueError, match=r"no|bytes"):
        trained.result(20)
    shown = ascii(text)[1:-1]
    assert shown in command(tmp_path, "incidents")
    (one,) = load_all(tmp_path)
    assert shown in command(tmp_path, "incidents", one.identity)
    (one.directory / "report.txt").unlink()
    with pytest.raises(PenstockError, match="has no report"):
        command(tmp_path, "incidents", one.identity)


def test_the_root_belongs_to_the_user_alone(tmp_path: Path) -> None:
    open_root = tmp_path / "open"
    open_root.mkdir()
    open_root.chmod(0o777)
    with pytest.raises(UsageError, match="others may write"):
        checked_root(open_root)
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", 3):
        with pytest.raises(UsageError, match="incidents"):
            checked_root(wrong)  # type: ignore[arg-type]
    made = checked_root(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert default_root({"PENSTOCK_INCIDENTS": "/x"}) == Path("/x")
    assert default_root({"XDG_STATE_HOME": "/s"}) == Path("/s/penstock/incidents")


def test_an_incident_is_found_by_the_end_of_its_name(tmp_path: Path) -> None:
    root = checked_root(tmp_path / "root")
    names = [create(root, {"step": n}, lambda report, name: name)[0] for n in range(2)]
    assert find(root, names[1][-6:]).report["step"] == 1
    for wrong in ("", "zzz"):
        with pytest.raises(PenstockError, match="incident"):
            find(root, wrong)
    (find(root, names[0]).directory / "report.json").write_text("{damaged")
    assert find(root, names[0]).report == {}
