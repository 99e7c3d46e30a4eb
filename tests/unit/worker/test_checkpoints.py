"""The checkpoints on a disk: whole or not there, whatever happens, and nobody else's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.worker import checkpoints
from penstock.worker.checkpoint_file import Checkpoint, Header, Layout
from penstock.worker.checkpoints import ASIDE_MAX, LEFT_AFTER_S, LOCK_NAME, CheckpointStore
from penstock.worker.keeper import Keeper
from penstock.worker.messages import Key

from .clients import DEADLINE_S
from .fakes import hashes

ADDRESS = "127.0.0.1:5000"
ONE, TWO = Key("d1", 0, 0, 1), Key("d1", 0, 0, 2)


class Crash(BaseException):
    """The process ends here."""


def point(key: Key = ONE, elements: int = 4, state: bytes = b"state") -> Checkpoint:
    header = Header(key, elements, Layout("stacked", 8), "2.0", "options")
    return Checkpoint(header, hashes(0, elements), state)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., CheckpointStore]]:
    """Opens the store of an address in the test's directory, after closing the one before."""
    stores: list[CheckpointStore] = []

    def open_(address: str = ADDRESS, tensorflow: str = "2.0", **more: int) -> CheckpointStore:
        for store in stores:
            store.close()
        stores.append(CheckpointStore(tmp_path, address, tensorflow, **more))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


Opened = Callable[..., CheckpointStore]


def same(found: Checkpoint | None, want: Checkpoint) -> bool:
    return (
        found is not None
        and found.header == want.header
        and found.state == want.state
        and np.array_equal(found.hashes, want.hashes)
    )


def names(store: CheckpointStore) -> list[str]:
    return sorted(p.name for p in store.directory.iterdir() if p.name != LOCK_NAME)


def test_what_is_written_is_there_in_the_next_life(opened: Opened) -> None:
    store = opened()
    for written in (point(), point(elements=8), point(TWO, 5, b"other")):
        assert store.write(written)
    for life in (store, opened()):
        assert life.newest() == [(ONE, 8), (TWO, 5)]
        assert life.elements(ONE) == [4, 8]
        assert same(life.read(ONE, 4), point())
        assert same(life.read(TWO, 5), point(TWO, 5, b"other"))


def test_what_is_removed_is_gone(opened: Opened) -> None:
    store = opened()
    store.write(point())
    store.write(point(elements=8))
    store.remove(ONE, [4])
    assert store.elements(ONE) == [8]
    store.remove(ONE, [8, 4])
    assert store.newest() == []
    assert names(store) == []
    assert store.read(ONE, 8) is None


def test_a_crash_at_any_point_leaves_the_old_or_the_new(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    monkeypatch.setattr(checkpoints, "failpoint", passed.append)
    opened().write(point(state=b"old"))
    assert passed == [
        "worker.checkpoint.before_write",
        "worker.checkpoint.after_write",
        "worker.checkpoint.before_rename",
        "worker.checkpoint.after_rename",
    ]
    for name in passed.copy():

        def crash(here: str, there: str = name) -> None:
            if here == there:
                raise Crash

        store = opened()
        monkeypatch.setattr(checkpoints, "failpoint", lambda name: None)
        store.write(point(state=b"old"))
        monkeypatch.setattr(checkpoints, "failpoint", crash)
        with pytest.raises(Crash):
            store.write(point(state=b"new"))
        monkeypatch.setattr(checkpoints, "failpoint", lambda name: None)
        after = opened()
        want = b"new" if name.endswith("after_rename") else b"old"
        assert same(after.read(ONE, 4), point(state=want)), name
        assert len(names(after)) == 1, "the temporary file is still there"


def test_a_file_has_its_name_only_when_its_bytes_are_durable(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    steps: list[str] = []
    fsync, replaced = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append("directory" if os.path.isdir(target) else "file")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replaced(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    store.write(point())
    assert steps == ["file", "rename", "directory"]


def test_a_disk_that_refuses_leaves_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()

    def refuse(name: str) -> None:
        if name == "worker.checkpoint.after_write":
            raise OSError("no space")

    monkeypatch.setattr(checkpoints, "failpoint", refuse)
    with pytest.raises(OSError, match="no space"):
        store.write(point())
    assert names(store) == []
    assert store.newest() == []


def test_damage_is_set_aside_by_name_and_never_served(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.write(point())
    (name,) = names(store)
    path = store.directory / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert store.read(ONE, 4) is None
    assert store.newest() == []
    assert names(store) == [f"{name}.damaged"]
    assert str(path) in caplog.text
    assert "its checksum does not fit its content" in caplog.text
    path.write_bytes(content[:39])
    assert opened().newest() == []
    assert "it does not begin as a checkpoint" in caplog.text


def test_a_file_under_anothers_name_is_damage(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.write(point())
    store.write(point(TWO, 4))
    one, two = (store._path(key, 4) for key in (ONE, TWO))
    one.replace(two)
    assert store.read(TWO, 4) is None
    assert "it is of split 1" in caplog.text
    two.with_name(two.name + ".damaged").replace(two)
    assert opened().newest() == []


def test_the_state_of_another_tensorflow_is_set_aside(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    opened().write(point())
    store = opened(tensorflow="2.1")
    assert store.newest() == []
    assert "TensorFlow 2.0 wrote it, 2.1 runs" in caplog.text
    assert names(store)[0].endswith(".unusable")


def test_few_files_are_kept_aside(opened: Opened) -> None:
    store = opened()
    for elements in range(1, 9):
        store.write(point(elements=elements))
        store.set_aside(ONE, elements, ".unusable", "it is Tuesday")
    assert len(names(store)) == ASIDE_MAX
    assert any(f"-{8}." in name for name in names(store))


def test_there_is_a_limit_for_all_together(opened: Opened) -> None:
    store = opened(total_bytes_max=1000)
    assert store.write(point(state=bytes(500)))
    assert not store.write(point(TWO, state=bytes(500)))
    store.remove(ONE, [4])
    assert store.write(point(TWO, state=bytes(500)))


def test_temporary_files_of_an_earlier_life_are_removed(opened: Opened) -> None:
    store = opened()
    (store.directory / "x-4.checkpoint.tmp").write_bytes(b"half")
    assert names(opened()) == []


LOCKER = """
import sys
from pathlib import Path
from penstock.worker.checkpoints import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), sys.argv[2], "2.0")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store of ADDRESS open."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(tmp_path), ADDRESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_two_workers_of_one_address_are_told_apart(
    locker: subprocess.Popen[str], opened: Opened
) -> None:
    with pytest.raises(UsageError, match=f"127.0.0.1_5000 is in use by process {locker.pid}"):
        opened()
    locker.kill()
    locker.wait()
    assert opened().newest() == []


def test_workers_of_other_addresses_share_the_directory(
    locker: subprocess.Popen[str], opened: Opened, tmp_path: Path
) -> None:
    store = opened("127.0.0.1:5001")
    store.write(point())
    for address in ("[::1]:5002", "a/../b:5003"):
        assert opened(address).newest() == []
    assert all(p.parent == tmp_path for p in tmp_path.iterdir())
    assert opened("127.0.0.1:5001").newest() == [(ONE, 4)]


def age(directory: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*directory.iterdir(), directory):
        os.utime(path, (then, then))


def test_what_dead_workers_left_is_removed_after_a_day(
    opened: Opened, tmp_path: Path, locker: subprocess.Popen[str]
) -> None:
    for address in ("h:1", "h:2", "h:3"):
        opened(address).write(point())
    strange = tmp_path / "photographs"
    strange.mkdir()
    (strange / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "h_3" / "notes.txt").write_text("mine")
    for name in ("h_1", "h_3", "127.0.0.1_5000", "photographs"):
        age(tmp_path / name, LEFT_AFTER_S + 60)
    age(tmp_path / "h_2", LEFT_AFTER_S - 60)
    opened("h:4")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.name != LOCK_NAME}
    assert "h_1" not in found
    assert "127.0.0.1_5000" in found  # its worker lives
    assert "photographs/cat.jpg" in found
    assert "h_3/notes.txt" in found
    assert opened("h:2").newest() == [(ONE, 4)]


def test_a_directory_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match=f"--checkpoint-dir {path}: "):
        CheckpointStore(path, ADDRESS, "2.0")


def test_the_keeper_does_what_it_is_told_in_order_and_all_of_it(opened: Opened) -> None:
    keeper = Keeper(opened())
    keeper.save(point(), 0)
    keeper.save(point(elements=8), 0)
    keeper.forget(ONE, above=4)
    keeper.save(point(TWO), 0)
    keeper.forget(TWO)
    assert keeper.busy(ONE)
    keeper.start()
    assert keeper.close(DEADLINE_S)
    assert not keeper.busy(ONE)
    assert opened().newest() == [(ONE, 4)]


def test_the_keeper_keeps_what_a_client_may_still_need(opened: Opened) -> None:
    keeper = Keeper(opened())
    for elements in (2, 4, 6, 8):
        keeper.save(point(elements=elements), acknowledged=5)
    keeper.start()
    assert keeper.close(DEADLINE_S)
    assert opened().elements(ONE) == [4, 6, 8]


def test_a_disk_that_refuses_is_told_once_and_tried_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = iter([True, True, False])

    def refuse(name: str) -> None:
        if name == "worker.checkpoint.before_rename" and next(failing):
            raise OSError("the disk is on fire")

    monkeypatch.setattr(checkpoints, "failpoint", refuse)
    keeper = Keeper(opened())
    for elements in (2, 4, 6):
        keeper.save(point(elements=elements), acknowledged=0)
    keeper.start()
    assert keeper.close(DEADLINE_S)
    assert caplog.text.count("the disk is on fire") == 1
    assert opened().elements(ONE) == [6]


def test_a_bug_does_not_end_the_keeper(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper(opened())
    with caplog.at_level(logging.ERROR):
        keeper.save(replace(point(), state=7), 0)  # type: ignore[arg-type]
        keeper.save(point(), 0)
        keeper.start()
        assert keeper.close(DEADLINE_S)
    assert "a checkpoint was not written" in caplog.text
    assert opened().newest() == [(ONE, 4)]


def test_what_the_dispatcher_does_not_want_is_forgotten(opened: Opened) -> None:
    keeper = Keeper(opened())
    keeper.store.write(point())
    keeper.store.write(point(TWO))
    assert keeper.offered() == [(ONE, 4), (TWO, 4)]
    keeper.retain([TWO], [ONE, TWO])
    keeper.start()
    assert keeper.close(DEADLINE_S)
    assert opened().newest() == [(TWO, 4)]
