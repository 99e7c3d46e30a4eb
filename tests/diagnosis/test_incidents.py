"""Past incidents: stored with their outcome, found again, learned from, and kept apart from other
databases; with a full-text index and without one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.errors import UsageError
from penstock.recovery.diagnosis import Diagnosis, diagnose
from penstock.recovery.diagnosis.answer import Suggestion
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.incidents import Incidents, has_fts5
from penstock.recovery.diagnosis.learning import learn_from_incident
from penstock.recovery.diagnosis.pending import load_pending

FLUX = "acme.FluxTrouble: the flux of capacitor 7 is off by 0.5"


@pytest.fixture(params=["full-text", "plain"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    if request.param == "full-text" and not has_fts5():
        pytest.skip("TensorFlow's SQLite has no FTS5: done in a process without, below")
    return tmp_path / "incidents.db", request.param == "full-text"


@pytest.fixture
def store(path: tuple[Path, bool]) -> Incidents:
    return Incidents(path[0], full_text=path[1])


def traceback(place: str, message: str) -> Diagnosis:
    frame = f'  File "/run/{place}.py", line 7, in {place}'
    return diagnose(["Traceback (most recent call last):", frame, message])


def unknown(message: str) -> Diagnosis:
    found = traceback("main", message)
    assert found.source == "none"
    return found


def test_the_most_similar_incident_comes_first_with_its_outcome(
    path: tuple[Path, bool], store: Incidents
) -> None:
    disk = store.add(diagnose(["OSError: [Errno 28] No space left on device: '/scratch/a'"]))
    key = store.add(diagnose(["KeyError: 'input_ids'"]))
    store.add(diagnose(["ConnectionRefusedError: [Errno 111] Connection refused"]))
    store.close(disk, "recovered", "removed old checkpoints")
    again = Incidents(path[0], full_text=path[1])
    found = again.similar(diagnose(["OSError: [Errno 28] No space left on device: '/scratch/b'"]))
    assert found[0].number == disk
    assert found[0].similarity == 1.0
    assert (found[0].outcome, found[0].note) == ("recovered", "removed old checkpoints")
    assert again.similar(diagnose(["KeyError: 'labels'"]))[0].number == key
    assert again.similar(diagnose([])) == []


def test_the_same_place_counts_more_than_the_same_root_cause_and_that_more_than_words(
    store: Incidents,
) -> None:
    words = store.add(traceback("load", "TypeError: cannot load sample of shard 3"))
    cause = store.add(traceback("train", "ValueError: something else entirely"))
    place = store.add(traceback("load", "ValueError: quite another thing"))
    same = store.add(traceback("load", "ValueError: cannot load sample of shard 4"))
    wanted = traceback("load", "ValueError: cannot load sample of shard 5")
    ranked = store.similar(wanted, at_most=4)
    assert [one.number for one in ranked] == [same, place, cause, words]
    assert [one.similarity for one in ranked] == sorted(
        (one.similarity for one in ranked), reverse=True
    )


def test_what_was_stored_without_an_index_is_in_it_later(tmp_path: Path) -> None:
    plain = Incidents(tmp_path / "incidents.db", full_text=False)
    number = plain.add(diagnose(["KeyError: 'x'"]))
    later = Incidents(tmp_path / "incidents.db")
    assert later.similar(diagnose(["KeyError: 'y'"]))[0].number == number


def test_secrets_are_not_stored(path: tuple[Path, bool], store: Incidents) -> None:
    found = diagnose(["ConnectionError: token=hunter2hunter2"])
    guess = dataclasses.replace(found, source="model", mitigation="use password=hunter2hunter2")
    store.add(found, note="password=hunter2hunter2", suggestion=Suggestion(guess, "m"))
    assert b"hunter2" not in path[0].read_bytes()


def test_what_a_model_suggested_is_stored_beside_the_verdict(store: Incidents) -> None:
    found = diagnose(["KeyError: 'x'"])
    guess = dataclasses.replace(found, root_cause="FluxError", source="model")
    one = store.get(store.add(found, suggestion=Suggestion(guess, "m")))
    assert (one.root_cause, one.diagnosis, one.suggestion, one.model) == (
        "KeyError",
        found,
        guess,
        "m",
    )
    assert json.loads(json.dumps(one.to_dict()))["suggestion"]["root_cause"] == "FluxError"


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


def test_a_damaged_incident_is_named(path: tuple[Path, bool], store: Incidents) -> None:
    number = store.add(diagnose(["KeyError: 'x'"]))
    for damage in ("{", "[]", '{"root_cause": 7}', "[" * 100_000):
        with contextlib.closing(sqlite3.connect(path[0])) as database, database:
            database.execute("UPDATE incident SET diagnosis = ?", (damage,))
        with pytest.raises(UsageError, match=f"incident {number} is no diagnosis"):
            store.get(number)


def test_unknown_numbers_and_outcomes_are_named(store: Incidents) -> None:
    with pytest.raises(UsageError, match="no incident 7"):
        store.close(7, "recovered")
    with pytest.raises(UsageError, match="no incident 7"):
        store.get(7)
    with pytest.raises(UsageError, match="outcome must be open, recovered"):
        store.close(7, "splendid")


def closed(store: Incidents, found: Diagnosis, root_cause: str, note: str = "") -> int:
    number = store.add(found)
    store.close(number, "recovered", note, root_cause=root_cause)
    return number


def test_a_rule_is_what_incidents_of_one_root_cause_have_in_common(store: Incidents) -> None:
    closed(store, unknown("acme.FluxTrouble: the flux of device 3 is off by 1.25"), "FluxError")
    number = closed(store, unknown(FLUX), "FluxError", "Filled it.")
    past = [one for one in store.newest() if one.number != number]
    rule = learn_from_incident(store.get(number), past, builtin_rules())
    assert (rule.reason, rule.origin, rule.mitigation) == ("FluxError", "learned", "Filled it.")
    other = "ERROR acme.FluxTrouble: the flux of machine 12 is off by 9"
    assert diagnose([other], rules=[rule]).root_cause == "FluxError"
    assert diagnose(["acme.FluxTrouble: the capacitor is full"], rules=[rule]).source == "none"


def test_a_known_root_cause_brings_what_is_done_about_it(store: Incidents) -> None:
    number = closed(store, unknown(FLUX), "DiskFull")
    rule = learn_from_incident(store.get(number), [], builtin_rules())
    known = next(one for one in builtin_rules() if one.reason == "DiskFull")
    assert (rule.category, rule.action) == (known.category, known.action)


def test_a_rule_that_would_find_other_failures_is_refused(store: Incidents) -> None:
    for message, root_cause, why in (
        ("acme.Trouble: it is off", "", "give the root cause"),
        ("KeyError: 'x'", "KeyError", "not needed: rule:"),
    ):
        number = store.add(traceback("main", message))
        store.close(number, "recovered", root_cause=root_cause or None)
        with pytest.raises(UsageError, match=why):
            learn_from_incident(store.get(number), [], builtin_rules())
    first = closed(store, unknown(FLUX), "FluxError")
    second = closed(store, unknown(FLUX), "VoltError")
    with pytest.raises(UsageError, match=f"would find incident {first}, too"):
        learn_from_incident(store.get(second), [store.get(first)], builtin_rules())
    stolen = dataclasses.replace(unknown(FLUX), evidence=builtin_rules()[0].positive)
    number = closed(store, stolen, "FluxError")
    with pytest.raises(UsageError, match="would find what rule"):
        learn_from_incident(store.get(number), [], builtin_rules())


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["diagnose", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_a_failure_is_understood_once_and_known_from_then_on(tmp_path: Path) -> None:
    log, store = tmp_path / "a.log", tmp_path / "incidents.db"
    pending, rules = tmp_path / "pending.json", tmp_path / "rules.json"
    log.write_text(f"Traceback (most recent call last):\n{FLUX}\n")
    incidents = ("--incidents", str(store))
    assert "stored as incident 1" in run(str(log), *incidents)
    assert "incident 1: Unknown, open" in run(str(log), *incidents)
    close = ("--close", "1", "--root-cause", "FluxError", "--note", "Filled it.")
    assert "waits in" in run(*incidents, *close, "--pending", str(pending))
    assert len(load_pending(pending, builtin_rules()).rules) == 1
    assert "FluxError: recovered (Filled it.)" in run(*incidents)
    listed = [json.loads(line) for line in run(*incidents, "--json").splitlines()]
    found = [(one["number"], one["root_cause"]) for one in listed]
    assert found == [(2, "Unknown"), (1, "FluxError")]
    assert "1 rules were added" in run("--accept", str(pending), "--rules", str(rules))
    assert "FluxError" not in run(str(log))
    found = json.loads(run(str(log), "--rules", str(rules), "--json"))
    assert (found["root_cause"], found["mitigation"]) == ("FluxError", "Filled it.")
    assert "nothing is learned" in run(
        *incidents, "--close", "2", "--root-cause", "Unknown", "--pending", str(pending)
    )


def test_with_an_index_all_of_this_holds_too() -> None:
    if has_fts5():
        return  # it was done with one
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "full-text"]
    result = subprocess.run([*command, __file__], capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout
