"""`penstock cache ls`, `verify` and `rm` on caches that workers have written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.cache import app
from penstock.cli.main import app as main_app
from penstock.errors import PenstockError, RefusedError, UsageError
from penstock.worker.segment_file import SegmentName
from penstock.worker.segments import PartialSegment, SegmentStore

from ..worker.segment_kit import append, begun, names, opening, part, put, seg, split_of

MANY, FEW = "aaaa11", "aabb22"
DAMAGED = SegmentName(MANY, 0, "5a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SegmentStore]:
    """A worker's cache with two keys, of three splits and of one."""
    with opening(tmp_path) as open_:
        made = open_()
        for split in range(3):
            put(made, SegmentName(MANY, split, "5a"))
        put(made, SegmentName(FEW, 0, "0"), split_of("strings"))
        yield made


def run(*arguments: str | Path, answer: str = "") -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def writing(store: SegmentStore, split: int) -> PartialSegment:
    """A segment that the worker is writing at this moment."""
    partial = begun(store, SegmentName(MANY, split, "5a"))
    append(partial, split_of()[0])
    return partial


def damage(store: SegmentStore, name: SegmentName = DAMAGED) -> Path:
    path = seg(store.directory, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


# --- ls -----------------------------------------------------------------------------------------


def test_ls_tells_what_there_is_of_each_key(store: SegmentStore, tmp_path: Path) -> None:
    writing(store, 7)
    writing(store, 8).release()
    store.set_aside(SegmentName(MANY, 1, "5a"), "it is Tuesday")
    used_s = seg(tmp_path, DAMAGED).stat().st_mtime
    os.utime(seg(tmp_path, SegmentName(MANY, 2, "5a")), (used_s + 500, used_s + 500))
    found = document("ls", tmp_path)
    many, few = found["keys"]
    assert (found["store"], found["bytes"]) == (store.store_id, store.total_bytes())
    assert (found["segments"], found["elements"]) == (3, 36)
    assert {**many, "bytes": 0, "last_used_s": 0} == {
        "cache_key": MANY,
        "splits": 2,
        "segments": 2,
        "elements": 24,
        "bytes": 0,
        "last_used_s": 0,
        "unfinished": 2,
        "writing": 1,
        "damaged": 1,
    }
    assert many["last_used_s"] == pytest.approx(used_s + 500)
    assert (few["splits"], few["elements"]) == (1, 12)
    assert many["bytes"] + few["bytes"] == found["bytes"]


def test_ls_tells_people_too(store: SegmentStore, tmp_path: Path) -> None:
    writing(store, 7)
    then = seg(tmp_path, SegmentName(FEW, 0, "0")).stat().st_mtime - 7200
    os.utime(seg(tmp_path, SegmentName(FEW, 0, "0")), (then, then))
    result = CliRunner().invoke(app, ["ls", str(tmp_path)], env={"COLUMNS": "200"})
    for text in (MANY, FEW, "36", "2 h ago", "1 (1 being written)", "2 keys", "48"):
        assert text in result.stdout, result.stdout


def test_ls_counts_several_sources_of_one_split_as_one(store: SegmentStore, tmp_path: Path) -> None:
    put(store, SegmentName(FEW, 0, "1"))
    (_, few) = document("ls", tmp_path)["keys"]
    assert (few["splits"], few["segments"]) == (1, 2)


def test_ls_counts_what_does_not_end_as_a_segment_as_damaged(
    store: SegmentStore, tmp_path: Path
) -> None:
    seg(tmp_path, DAMAGED).write_bytes(b"half")
    (many, _) = document("ls", tmp_path)["keys"]
    assert (many["splits"], many["damaged"]) == (2, 1)


def test_an_empty_cache_is_one(tmp_path: Path) -> None:
    with opening(tmp_path) as open_:
        open_()
    assert "is empty" in run("ls", tmp_path).stdout
    assert document("ls", tmp_path)["keys"] == []
    assert document("verify", tmp_path)["ok"]
    assert "removed: nothing" in run("rm", tmp_path, "--all").stdout


# --- verify -------------------------------------------------------------------------------------


def test_verify_reads_everything(store: SegmentStore, tmp_path: Path) -> None:
    writing(store, 7)
    found = document("verify", tmp_path)
    assert (found["ok"], found["segments"], found["elements"]) == (True, 4, 48)
    assert found["damaged"] == []
    assert "segments: 4, 5.7 kB, all whole" in run("verify", tmp_path).stdout
    assert document("verify", tmp_path, FEW)["segments"] == 1


def test_verify_names_each_damaged_file_and_exits_with_5(
    store: SegmentStore, tmp_path: Path
) -> None:
    paths = [damage(store), damage(store, SegmentName(FEW, 0, "0"))]
    result = run("verify", tmp_path)
    assert result.exit_code == 5
    assert all(f"damaged: segment {path}: " in result.stdout for path in paths)
    assert "segments: 4, 5.7 kB, 2 damaged" in result.stdout
    found = document("verify", tmp_path, code=5)
    assert [each["file"] for each in found["damaged"]] == [str(path) for path in paths]
    assert (found["ok"], found["segments"]) == (False, 4)
    assert seg(tmp_path, DAMAGED).exists(), "looking changes nothing"
    assert run("verify", tmp_path, FEW).exit_code == 5


def test_verify_mentions_what_was_set_aside_before(store: SegmentStore, tmp_path: Path) -> None:
    damage(store)
    assert store.get(DAMAGED) is None or store.set_aside(DAMAGED, "damaged") is None
    assert document("verify", tmp_path)["set_aside"] == 1
    assert "set aside before: 1;" in run("verify", tmp_path).stdout


def test_verify_survives_what_goes_or_cannot_be_read_meanwhile(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.worker import segment

    errors = iter([FileNotFoundError("gone"), OSError("bad sector")])
    real = segment.verify

    def sometimes(path: Path, advanced: Any) -> segment.SegmentReport:
        for error in errors:
            raise error
        return real(path, advanced)

    monkeypatch.setattr(segment, "verify", sometimes)
    found = document("verify", tmp_path, code=5)
    assert found["segments"] == 3
    assert "cannot be read: bad sector" in found["damaged"][0]["reason"]


# --- rm -----------------------------------------------------------------------------------------


def test_rm_removes_one_key_when_it_is_told_twice(store: SegmentStore, tmp_path: Path) -> None:
    result = run("rm", tmp_path, MANY, answer="n\n")
    assert result.exit_code == 1
    assert len(names(tmp_path)) == 4
    result = run("rm", tmp_path, MANY, answer="y\n")
    assert result.exit_code == 0
    assert f"Remove from {tmp_path}: 3 finished (4.3 kB)?" in result.stdout
    assert "removed: 3 finished (4.3 kB)" in result.stdout
    assert names(tmp_path) == [f"{FEW}/0-0.seg"]
    assert not (tmp_path / MANY).exists()


def test_rm_all_leaves_a_cache_that_workers_go_on_with(store: SegmentStore, tmp_path: Path) -> None:
    writing(store, 7).release()
    result = run("rm", tmp_path, "--all", "--yes")
    assert (result.exit_code, names(tmp_path)) == (0, [])
    assert "removed: 4 finished, 1 unfinished" in result.stdout
    assert put(store, DAMAGED)


def test_rm_damaged_leaves_everything_else(store: SegmentStore, tmp_path: Path) -> None:
    writing(store, 7).release()
    for name in (DAMAGED, SegmentName(FEW, 0, "0")):
        store.set_aside(name, "it is Tuesday")
    assert run("rm", tmp_path, FEW, "--damaged", "--yes").exit_code == 0
    assert len(names(tmp_path)) == 4
    assert run("rm", tmp_path, "--damaged", "--yes").exit_code == 0
    assert names(tmp_path) == [
        f"{MANY}/1-5a.seg",
        f"{MANY}/2-5a.seg",
        f"{MANY}/7-5a.127.0.0.1_5000.partial",
    ]


def test_rm_leaves_what_is_being_written(store: SegmentStore, tmp_path: Path) -> None:
    partial = writing(store, 7)
    with pytest.raises(RefusedError, match=r"being written stays \(split 7 by 127.0.0.1_"):
        run("rm", tmp_path, MANY, "--yes")
    assert names(tmp_path) == [f"{MANY}/7-5a.127.0.0.1_5000.partial", f"{FEW}/0-0.seg"]
    assert partial.commit(partial.digest)


def test_rm_leaves_what_somebody_began_to_write_meanwhile(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.worker import cache_files

    writing(store, 7)
    monkeypatch.setattr(cache_files, "is_written", lambda path: False)
    with pytest.raises(RefusedError, match="stop these workers first"):
        run("rm", tmp_path, "--all", "--yes")
    assert part(tmp_path, SegmentName(MANY, 7, "5a")).exists()


def test_readers_keep_what_is_removed(store: SegmentStore, tmp_path: Path) -> None:
    segment = store.get(DAMAGED)
    assert segment is not None
    run("rm", tmp_path, "--all", "--yes")
    assert len(segment.payload(0)) > 0
    assert store.get(DAMAGED) is None


# --- usage --------------------------------------------------------------------------------------


def test_a_key_may_be_cut_short_as_long_as_it_is_the_only_one(
    store: SegmentStore, tmp_path: Path
) -> None:
    assert document("verify", tmp_path, "aab")["segments"] == 1
    with pytest.raises(UsageError, match="2 cache keys begin with 'aa'"):
        run("verify", tmp_path, "aa")
    with pytest.raises(UsageError, match="there is no cache key 'beef'"):
        run("rm", tmp_path, "beef", "--yes")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [([], "what is to go"), ([MANY, "--all"], "which of the two")],
)
def test_rm_wants_to_be_told_what(
    store: SegmentStore, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        run("rm", tmp_path, *arguments, "--yes")
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("command", [["ls"], ["verify"], ["rm", "--all"]])
def test_a_directory_that_is_no_cache_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / "1-0.seg").write_text("mine")
    with pytest.raises(UsageError, match="is not a worker's --cache-dir") as raised:
        run(command[0], tmp_path, *command[1:])
    assert isinstance(raised.value, PenstockError)
    assert raised.value.exit_code == 2
    assert run(command[0], tmp_path / "none", *command[1:]).exit_code == 2
    assert (tmp_path / "aa" / "1-0.seg").exists()


@pytest.mark.parametrize("command", [["cache"], ["cache", "rm"], ["cache", "verify"]])
def test_help_says_what_it_does(command: list[str]) -> None:
    result = CliRunner().invoke(main_app, [*command, "--help"])
    assert result.exit_code == 0
    assert "segment" in result.output
