"""The real disk and the simulated one keep the same contract; the simulated one forgets."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from penstock.journal import Disk, RealDisk
from penstock.testing.disk import Crash, SimDisk


@pytest.fixture(params=[RealDisk, SimDisk])
def any_disk(request: pytest.FixtureRequest) -> Disk:
    made: Disk = request.param()
    return made


@pytest.fixture
def place(any_disk: Disk, tmp_path: Path) -> Path:
    any_disk.make_directory(tmp_path / "a" / "b")
    return tmp_path / "a" / "b"


def test_what_is_appended_is_read(any_disk: Disk, place: Path) -> None:
    file = any_disk.create(place / "f")
    file.append(b"one")
    file.fsync()
    file.close()
    file = any_disk.open(place / "f")
    file.append(b" two")
    file.close()
    assert any_disk.read(place / "f") == b"one two"
    assert any_disk.names(place) == ["f"]


def test_a_rename_replaces_and_an_open_file_stays_the_same_file(
    any_disk: Disk, place: Path
) -> None:
    any_disk.create(place / "old").close()
    file = any_disk.create(place / "new")
    any_disk.rename(place / "new", place / "old")
    any_disk.fsync_dir(place)
    file.append(b"content")
    file.close()
    assert any_disk.read(place / "old") == b"content"
    any_disk.remove(place / "old")
    assert any_disk.names(place) == []


def test_creating_what_exists_and_reading_what_does_not_is_refused(
    any_disk: Disk, place: Path
) -> None:
    any_disk.create(place / "f").close()
    with pytest.raises(FileExistsError):
        any_disk.create(place / "f")
    for use in (any_disk.read, any_disk.open, any_disk.remove):
        with pytest.raises(FileNotFoundError):
            use(place / "none")
    with pytest.raises(FileNotFoundError):
        any_disk.names(place / "none")


def test_a_file_is_locked_once_at_a_time(any_disk: Disk, place: Path) -> None:
    lock = any_disk.lock(place / "LOCK")
    with pytest.raises(BlockingIOError):
        any_disk.lock(place / "LOCK")
    lock.close()
    lock.close()
    any_disk.lock(place / "LOCK").close()


def test_a_lock_tells_whether_its_file_still_has_its_name(any_disk: Disk, place: Path) -> None:
    first = any_disk.lock(place / "LOCK", new=True)
    with pytest.raises(FileExistsError):
        any_disk.lock(place / "LOCK", new=True)
    assert first.held()
    any_disk.remove(place / "LOCK")
    assert not first.held()
    second = any_disk.lock(place / "LOCK", new=True)
    assert second.held()
    assert not first.held(), "another file has the name now"


def test_a_lock_says_who_holds_it_and_when_it_was_touched(any_disk: Disk, place: Path) -> None:
    lock = any_disk.lock(place / "LOCK")
    lock.describe("7 on elsewhere")
    assert any_disk.holder(place / "LOCK") == "7 on elsewhere"
    before = any_disk.stamp(place / "LOCK")
    while any_disk.stamp(place / "LOCK") == before:  # a clock may tick slowly
        lock.touch()
    with pytest.raises(FileNotFoundError):
        any_disk.stamp(place / "none")


def contents(disk: SimDisk) -> set[tuple[tuple[str, bytes], ...]]:
    return {
        tuple(sorted((path.name, content) for path, content in state.files().items()))
        for state in disk.crash_states()
    }


def test_a_crash_keeps_any_prefix_of_what_was_not_synced(disk: SimDisk, directory: Path) -> None:
    disk.put(directory / "f", b"ab")
    disk.open(directory / "f").append(b"cd")
    assert contents(disk) == {(("f", b"ab"),), (("f", b"abc"),), (("f", b"abcd"),)}
    with_zeros = {state.read(directory / "f") for state in disk.crash_states(zeros=True)}
    assert with_zeros == {b"ab", b"abc", b"abcd", b"ab\0\0", b"abc\0"}


def test_a_crash_keeps_any_of_the_names_that_were_not_synced(
    disk: SimDisk, directory: Path
) -> None:
    disk.put(directory / "old", b"")
    disk.create(directory / "new").close()
    disk.remove(directory / "old")
    kept = {tuple(name for name, _ in state) for state in contents(disk)}
    assert kept == {(), ("new",), ("old",), ("new", "old")}
    disk.fsync_dir(directory)
    assert {tuple(name for name, _ in state) for state in contents(disk)} == {("new",)}


def test_what_a_failed_fsync_was_to_write_is_readable_and_never_durable(
    disk: SimDisk, directory: Path
) -> None:
    disk.put(directory / "f", b"a")
    file = disk.open(directory / "f")
    file.append(b"lost")

    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "no")

    disk.before = refuse
    with pytest.raises(OSError, match="no"):
        file.fsync()
    disk.before = None
    file.fsync()
    assert disk.read(directory / "f") == b"alost"
    assert (("f", b"a"),) in contents(disk)
    assert (("f", b"alost"),) not in contents(disk)


def test_a_full_disk_takes_what_fits(directory: Path) -> None:
    disk = SimDisk(capacity_bytes=3)
    file = disk.create(directory / "f")
    with pytest.raises(OSError, match="no space") as caught:
        file.append(b"abcdef")
    assert caught.value.errno == errno.ENOSPC
    assert disk.read(directory / "f") == b"abc"


def test_after_a_crash_nothing_works_and_the_write_under_way_may_be_torn(
    disk: SimDisk, directory: Path
) -> None:
    disk.put(directory / "f", b"")
    file = disk.open(directory / "f")

    def crash(_: object) -> None:
        raise Crash

    disk.before = crash
    with pytest.raises(Crash):
        file.append(b"ab")
    with pytest.raises(Crash):
        file.append(b"more")
    with pytest.raises(Crash):
        disk.read(directory / "f")
    assert contents(disk) == {(("f", b""),), (("f", b"a"),), (("f", b"ab"),)}
    assert disk.restarted().read(directory / "f") == b"ab"
