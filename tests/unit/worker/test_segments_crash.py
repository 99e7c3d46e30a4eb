"""Crashes and refusing disks at every step of a put: the old or the new, and the put goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.worker import segments
from penstock.worker.segment_file import SegmentName
from penstock.worker.segments import PartialSegment, SegmentStore

from .segment_kit import (
    KEY,
    ONE,
    TWO,
    Opened,
    append,
    begun,
    digest_of,
    got,
    holds,
    names,
    opening,
    part,
    put,
    read,
    seg,
    split_of,
)

#: Every call by which a put changes something.
CALLS = ("pwrite", "ftruncate", "fsync", "link", "unlink", "mkdir")


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with opening(tmp_path) as open_:
        yield open_


class Steps:
    """Counts calls, and does something else instead of one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._at = -1
        self._instead: Callable[[Callable[[], Any]], Any] = lambda call: call()
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def plan(self, at: int, instead: Callable[[Callable[[], Any]], Any]) -> None:
        """From now on, call number `at` is handed over instead of being made."""
        self.seen, self._at, self._instead = [], at, instead

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            number = len(self.seen)
            self.seen.append(name)
            if number != self._at:
                return real(*args, **more)
            if name == "pwrite":  # half of it gets there
                descriptor, data, offset = args
                real(descriptor, data[: len(data) // 2], offset)
            return self._instead(lambda: real(*args, **more))

        return call


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def life(store: SegmentStore) -> bool:
    """All of a put, with a checkpoint on the way."""
    partial = store.put(ONE)
    if partial is None:
        return False
    rest = [chunk for chunk in split_of() if chunk.start >= partial.elements]
    for chunk in rest:
        append(partial, chunk)
        partial.sync()
    return partial.commit(digest_of(split_of()))


def drop(store: SegmentStore) -> None:
    """What the end of a process does to what it was writing: nothing but closing."""
    for partial in store._writing.values():
        if not partial._ended:
            os.close(partial._descriptor)
            partial._ended = True


def number_of_steps(steps: Steps, root: Path) -> int:
    with opening(root) as open_:
        store = open_()
        steps.plan(-1, lambda call: call())
        assert life(store)
    assert steps.seen.count("fsync") > 6
    assert {"pwrite", "fsync", "link", "unlink", "mkdir", "ftruncate"} == set(steps.seen)
    return len(steps.seen)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step_leaves_nothing_or_all_of_it(
    steps: Steps, tmp_path: Path, when: str
) -> None:
    def crash(call: Callable[[], Any]) -> None:
        if when == "after":
            call()
        raise Crash

    for at in range(number_of_steps(steps, tmp_path / "calm")):
        root = tmp_path / str(at)
        with opening(root) as open_:
            store = open_()
            steps.plan(at, crash)
            with pytest.raises(Crash):
                life(store)
            drop(store)
            steps.plan(-1, crash)
            other = open_("h:2").get(ONE)
            assert other is None or holds(other, split_of()), at
            again = open_()
            if again.get(ONE) is None:
                assert life(again), at
            assert holds(again.get(ONE), split_of()), at
            assert names(root) == [f"{KEY}/1-5a.seg"], at


def test_a_disk_that_refuses_any_step_costs_the_put_and_nothing_else(
    steps: Steps, tmp_path: Path
) -> None:
    def refuse(call: Callable[[], Any]) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    for at in range(number_of_steps(steps, tmp_path / "calm")):
        root = tmp_path / str(at)
        with opening(root) as open_:
            store = open_()
            steps.plan(at, refuse)
            done = None
            with contextlib.suppress(OSError):
                done = life(store)
            for partial in list(store._writing.values()):
                partial.discard()
            steps.plan(-1, refuse)
            if done or store.get(ONE) is not None:  # what was refused came after its name
                assert holds(store.get(ONE), split_of()), at
            else:
                assert life(store), at
            assert [each for each in names(root) if not each.endswith(".partial")] == [
                f"{KEY}/1-5a.seg"
            ]
            assert open_().put(ONE) is None
            assert names(root) == [f"{KEY}/1-5a.seg"], at


def test_a_disk_that_refuses_is_said_once(
    steps: Steps, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(call: Callable[[], Any]) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    store = opened()
    for split in range(3):
        steps.plan(0, refuse)
        assert store.put(SegmentName(KEY, split, "0")) is None
    assert caplog.text.count("read-only file system") == 1
    assert put(store, ONE)


def test_a_chunk_that_could_not_be_written_may_be_written_later(
    steps: Steps, opened: Opened, tmp_path: Path
) -> None:
    def refuse(call: Callable[[], Any]) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    store = opened()
    partial = begun(store)
    first, second, third = split_of()
    append(partial, first)
    before = partial.nbytes
    steps.plan(1, refuse)
    with pytest.raises(OSError, match="no space"):
        append(partial, second)
    assert (partial.elements, partial.nbytes) == (4, before)
    assert part(tmp_path).stat().st_size == before
    for chunk in (second, third):
        append(partial, chunk)
    assert partial.commit(digest_of(split_of()))
    assert holds(store.get(ONE), split_of())


def test_a_failed_fsync_is_not_tried_again(steps: Steps, opened: Opened, tmp_path: Path) -> None:
    def fail(call: Callable[[], Any]) -> None:
        raise OSError(errno.EIO, "input/output error")

    partial = begun(opened())
    append(partial, split_of()[0])
    steps.plan(0, fail)
    with pytest.raises(OSError, match="input/output"):
        partial.sync()
    for use in (
        partial.sync,
        lambda: append(partial, split_of()[1]),
        lambda: partial.cut(0),
        lambda: partial.commit(partial.digest),
    ):
        with pytest.raises(OSError, match="has failed before"):
            use()
    partial.release()
    assert names(tmp_path) == []


def test_a_segment_has_its_name_only_when_its_bytes_are_durable(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = begun(opened())
    append(partial, split_of()[0])
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append(f"fsync {'directory' if target.is_dir() else target.suffix}")
        fsync(descriptor)

    def note_link(source: Path, target: Path) -> None:
        done.append(f"link {source.suffix} {target.suffix}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    partial.sync()
    assert done == ["fsync .partial", "fsync directory", "fsync directory"]
    done.clear()
    partial.commit(partial.digest)
    assert done == ["fsync .partial", "link .partial .seg", "fsync directory", "fsync directory"]


def common(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("finished", [False, True], ids=["frames", "footer"])
def test_whatever_a_power_cut_leaves_is_gone_on_with_where_it_is_whole(
    tmp_path: Path, zeros: bool, finished: bool
) -> None:
    stops = {}
    with opening(tmp_path) as open_:
        partial = begun(open_())
        stops[partial.nbytes] = 0
        for chunk in split_of():
            append(partial, chunk)
            stops[partial.nbytes] = partial.elements
        data = part(tmp_path).read_bytes()
        if finished:
            partial.commit(partial.digest)
            data = seg(tmp_path).read_bytes()
            seg(tmp_path).unlink()
    for length in range(0, len(data), 3):
        found = data[:length].ljust(len(data) if zeros else length, b"\0")
        part(tmp_path).write_bytes(found)
        with opening(tmp_path) as open_:
            store = open_()
            partial = begun(store)
            same = common(found, data)
            whole = [elements for nbytes, elements in stops.items() if nbytes <= same]
            assert partial.elements == max(whole, default=0), length
            if length % 7 == 0:
                for chunk in split_of():
                    if chunk.start >= partial.elements:
                        append(partial, chunk)
                assert partial.commit(digest_of(split_of())), length
                assert holds(store.get(ONE), split_of()), length
                seg(tmp_path).unlink()
            else:
                partial.discard()


# --- one file, two names ------------------------------------------------------------------------


def linked(opened: Opened, root: Path) -> None:
    """A process died between giving a segment its name and taking the other one from it."""
    put(opened(), ONE)
    os.link(seg(root), part(root))


def test_of_two_names_the_one_that_is_read_stays(opened: Opened, tmp_path: Path) -> None:
    linked(opened, tmp_path)
    size = seg(tmp_path).stat().st_size
    assert opened("h:2").total_bytes() == size, "it is there once"
    store = opened()
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]
    assert holds(store.get(ONE), split_of())


def test_a_finished_file_whose_name_was_taken_gets_it_again(opened: Opened, tmp_path: Path) -> None:
    linked(opened, tmp_path)
    store = opened("h:2")
    segment = got(store)
    seg(tmp_path).unlink()
    again = opened()
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]
    assert holds(again.get(ONE), split_of())
    assert holds(segment, split_of())


def test_a_finished_file_is_found_when_it_is_put_too(opened: Opened, tmp_path: Path) -> None:
    told: list[tuple[SegmentName, bool]] = []
    store = opened(changed=lambda name, present: told.append((name, present)))
    put(store, ONE)
    seg(tmp_path).replace(part(tmp_path))
    assert store.put(ONE) is None
    assert told == [(ONE, True), (ONE, True)]
    assert holds(store.get(ONE), split_of())


def test_a_file_that_somebody_may_be_reading_is_never_written(
    opened: Opened, tmp_path: Path
) -> None:
    store = opened()
    linked(opened, tmp_path)
    segment = got(store)
    store.set_aside(ONE, "it is Tuesday")
    partial = begun(store)
    assert partial.elements == 0
    for chunk in split_of("strings"):
        append(partial, chunk)
    assert [chunk.count for chunk in read(segment)] == [4, 3, 5]
    assert partial.commit(partial.digest)


def test_a_finished_file_that_is_damaged_is_removed(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    put(store, ONE)
    data = bytearray(seg(tmp_path).read_bytes())
    data[len(data) // 2] ^= 1
    seg(tmp_path).unlink()
    part(tmp_path).parent.mkdir(exist_ok=True)
    part(tmp_path).write_bytes(data)
    opened()
    assert names(tmp_path) == []


# --- two at once --------------------------------------------------------------------------------


def test_of_two_who_finish_the_same_segment_one_has_made_it(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "written_elsewhere", lambda *args: False)
    told: list[bool] = []
    stores = [opened(f"h:{n}", changed=lambda name, present: told.append(present)) for n in (1, 2)]
    partials: list[PartialSegment] = [begun(store) for store in stores]
    for partial in partials:
        for chunk in split_of():
            append(partial, chunk)
    assert [partial.commit(digest_of(split_of())) for partial in partials] == [True, False]
    assert told == [True]
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]
    assert got(stores[1]).id == partials[0].id
    assert stores[1].put(TWO) is not None, "nobody claims it any more"
