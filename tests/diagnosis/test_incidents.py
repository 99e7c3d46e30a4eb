"""Past incidents: stored with their outcome, found again, and kept apart from other databases."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.errors import UsageError
from penstock.recovery.diagnosis import diagnose
from penstock.recovery.diagnosis.incidents import Incidents


def has_fts5() -> bool:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE x USING fts5(y)")
        except sqlite3.OperationalError:
            return False
    return True


needs_fts5 = pytest.mark.skipif(
    "not has_fts5()", reason="this process's SQLite has no FTS5 (TensorFlow's has not)"
)


@needs_fts5
def test_the_most_similar_incident_comes_first_with_its_outcome(tmp_path: Path) -> None:
    store = Incidents(tmp_path / "incidents.db")
    disk = store.add(diagnose(["OSError: [Errno 28] No space left on device: '/scratch/a'"]))
    key = store.add(diagnose(["KeyError: 'input_ids'"]))
    store.add(diagnose(["ConnectionRefusedError: [Errno 111] Connection refused"]))
    store.close(disk, "recovered", "removed old checkpoints")
    again = Incidents(tmp_path / "incidents.db")
    found = again.similar(diagnose(["OSError: [Errno 28] No space left on device: '/scratch/b'"]))
    assert found[0].number == disk
    assert found[0].similarity == 1.0
    assert (found[0].outcome, found[0].note) == ("recovered", "removed old checkpoints")
    assert again.similar(diagnose(["KeyError: 'labels'"]))[0].number == key
    assert again.similar(diagnose([])) == []


@needs_fts5
def test_secrets_are_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "incidents.db"
    Incidents(path).add(
        diagnose(["ConnectionError: token=hunter2hunter2"]), note="password=hunter2"
    )
    assert b"hunter2" not in path.read_bytes()


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE x (y)")
    database.close()
    text = tmp_path / "text.db"
    text.write_text("hello, this is no database at all\n" * 40)
    for path, why in ((other, "something else"), (text, "not a database"), (tmp_path, "unable")):
        with pytest.raises(UsageError, match=why):
            Incidents(path)


@needs_fts5
def test_unknown_numbers_and_outcomes_are_named(tmp_path: Path) -> None:
    store = Incidents(tmp_path / "incidents.db")
    with pytest.raises(UsageError, match="no incident 7"):
        store.close(7, "recovered")
    with pytest.raises(UsageError, match="outcome must be open, recovered"):
        store.close(7, "splendid")


@needs_fts5
def test_the_command_shows_and_stores_incidents(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("KeyError: 'x'\n")
    arguments = ["diagnose", str(log), "--incidents", str(tmp_path / "incidents.db")]
    assert "incident 1" not in CliRunner().invoke(app, arguments).stdout.split("stored")[0]
    assert "incident 1: KeyError, open" in CliRunner().invoke(app, arguments).stdout


def test_without_fts5_it_says_so_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    script = f"""
import tensorflow, pathlib
from penstock.errors import UsageError
from penstock.recovery.diagnosis.incidents import Incidents
for _ in range(2):
    try:
        Incidents(pathlib.Path({str(tmp_path / "incidents.db")!r}))
    except UsageError as error:
        assert "without FTS5" in str(error), error
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
