"""`penstock journal verify` and `dump`."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest
from typer.testing import CliRunner

from penstock.cli.journal import app
from penstock.journal import Log

runner = CliRunner()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    with Log.open(tmp_path)[0] as log:
        log.append(b"before the snapshot")
        log.snapshot(msgpack.packb({"jobs": []}))
        log.append(msgpack.packb({"kind": "register", "graph": bytes(100), 3: [1.5, None]}))
        log.append(b"\xc1 is never msgpack")
    return tmp_path


def damage(journal: Path) -> Path:
    (path,) = journal.glob("*.log")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return path


def test_verify_says_what_is_there(journal: Path) -> None:
    result = runner.invoke(app, ["verify", str(journal)])
    assert result.exit_code == 0
    assert "snapshot of record 1" in result.output
    assert "2 records after it, up to 3" in result.output
    assert "the journal is whole" in result.output


def test_verify_says_it_in_json_too(journal: Path) -> None:
    result = runner.invoke(app, ["verify", str(journal), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert (found["ok"], found["snapshot_seq"], found["last_seq"]) == (True, 1, 3)


def test_verify_calls_a_torn_tail_no_damage(journal: Path) -> None:
    (path,) = journal.glob("*.log")
    path.write_bytes(path.read_bytes() + b"torn")
    result = runner.invoke(app, ["verify", str(journal)])
    assert result.exit_code == 0
    assert "4 bytes of an unfinished record" in result.output


def test_damage_exits_with_6_and_is_named(journal: Path) -> None:
    path = damage(journal)
    result = runner.invoke(app, ["verify", str(journal)])
    assert result.exit_code == 6
    assert f"penstock: {path}, byte" in result.stderr
    result = runner.invoke(app, ["verify", str(journal), "--json"])
    assert result.exit_code == 6
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["file"] == str(path)
    assert found["offset"] > 40
    result = runner.invoke(app, ["dump", str(journal)])
    assert result.exit_code == 6
    assert result.stdout.count("\n") == 2, "the snapshot and the record before the damage"


def test_dump_decodes_what_is_msgpack(journal: Path) -> None:
    result = runner.invoke(app, ["dump", str(journal)])
    assert result.exit_code == 0
    snapshot, first, second = result.output.splitlines()
    assert snapshot.startswith("snapshot")
    assert '{"jobs": []}' in snapshot
    assert '"graph": "(100 bytes: 000000' in first
    assert '"3": [1.5, null]' in first
    assert second.endswith("(not msgpack)")


def test_dump_prints_a_json_object_a_line_and_stops_at_the_limit(journal: Path) -> None:
    result = runner.invoke(app, ["dump", str(journal), "--json", "--limit", "2"])
    assert result.exit_code == 0
    snapshot, record = (json.loads(line) for line in result.output.splitlines())
    assert snapshot == {"kind": "snapshot", "seq": 1, "bytes": 7, "payload": {"jobs": []}}
    assert record["seq"] == 2
    assert record["payload"]["kind"] == "register"


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1, they say
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x91" * 200 + b"\x01",
        b"\x81\x90\x01",  # a list as a key
        b"\xc7\x04\x05abcd",
        b"\xa2\xff\xfe",  # not UTF-8
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"",
        b"\x01\x02",
        bytes(2 << 20),
    ],
    ids=range(11),
)
def test_dump_survives_any_payload(tmp_path: Path, payload: bytes) -> None:
    with Log.open(tmp_path)[0] as log:
        log.append(payload)
    for options in ([], ["--json"]):
        result = runner.invoke(app, ["dump", str(tmp_path), *options])
        assert result.exit_code == 0, result.exception
        assert len(result.output) < 2000


def test_a_directory_without_a_journal_is_6_and_one_that_is_not_there_is_2(tmp_path: Path) -> None:
    assert runner.invoke(app, ["verify", str(tmp_path)]).exit_code == 6
    assert runner.invoke(app, ["dump", str(tmp_path)]).exit_code == 6
    assert runner.invoke(app, ["verify", str(tmp_path / "none")]).exit_code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["dump", "--help"]])
def test_help_says_what_it_does(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "journal" in result.output
