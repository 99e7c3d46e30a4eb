"""The limit of the cache: who goes to make room, who never does, and that it holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.worker import cache_files, cache_room, leftover
from penstock.worker.cache_files import ABANDONED_AFTER_S, CacheFile, Kind, evictable
from penstock.worker.segment_file import SegmentName
from penstock.worker.segments import CapacityError, PartialSegment, SegmentStore

from .segment_kit import (
    KEY,
    ONE,
    OTHER_KEY,
    Opened,
    append,
    begun,
    digest_of,
    got,
    holds,
    names,
    numbers,
    opening,
    part,
    put,
    seg,
    split_of,
    store_somewhere,
)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with opening(tmp_path) as open_:
        yield open_


@pytest.fixture
def size() -> int:
    """Bytes of every segment of `split_of()` here."""
    with store_somewhere() as store:
        assert put(store, ONE)
        return store.total_bytes()


def of(key: str, split: int, stamp: str = "5a") -> SegmentName:
    return SegmentName(key, split, stamp)


def fill(partial: PartialSegment) -> None:
    fill_from(partial, 0)


def fill_from(partial: PartialSegment, first: int) -> None:
    for chunk in split_of()[first:]:
        append(partial, chunk)


def age(root: Path, name: SegmentName, seconds: float) -> None:
    then = seg(root, name).stat().st_mtime - seconds
    os.utime(seg(root, name), (then, then))


def test_those_go_that_nobody_used_for_the_longest_time(
    opened: Opened, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    gone: list[tuple[SegmentName, bool]] = []
    store = opened(limit=4 * size, changed=lambda name, present: gone.append((name, present)))
    others = [of(f"{number:06x}", 1) for number in range(4)]
    for number, name in enumerate(others):
        assert put(store, name)
        age(tmp_path, name, 100 - number)
    got(store, others[0]).close()
    with caplog.at_level(logging.INFO):
        assert put(store, ONE)
    assert [name for name in others if store.get(name) is None] == [others[1]]
    assert gone[4:] == [(others[1], False), (ONE, True)]
    assert f"removed 1 segments, {size} bytes, to cache {ONE}" in caplog.text
    assert not (tmp_path / others[1].cache_key).exists()


def test_segments_of_the_same_key_stay_and_the_put_is_given_up(
    opened: Opened, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(limit=3 * size + size // 2)
    for split in range(3):
        assert put(store, of(KEY, split))
    before = names(tmp_path)
    partial = begun(store, of(KEY, 3))
    append(partial, split_of()[0])
    with pytest.raises(CapacityError, match=f"no room: .* of {3 * size + size // 2} are left"):
        fill_from(partial, 1)
    assert partial.elements in (4, 7)
    partial.discard()
    assert names(tmp_path) == before
    assert all(holds(store.get(of(KEY, split)), split_of()) for split in range(3))
    assert opened("h:2").total_bytes() == 3 * size


def test_nothing_is_removed_in_vain(opened: Opened, size: int) -> None:
    store = opened(limit=4 * size)
    other = of(OTHER_KEY, 1)
    for name in (of(KEY, 0), of(KEY, 2), other):
        assert put(store, name)
    partial = begun(store)
    with pytest.raises(CapacityError):
        append(partial, numbers(0, 4, 5 * size))
    assert holds(store.get(other), split_of())
    fill(partial)
    assert partial.commit(digest_of(split_of()))


def test_older_sources_of_the_same_split_go_before_other_keys(
    opened: Opened, tmp_path: Path, size: int
) -> None:
    store = opened(limit=3 * size)
    old, same_key, other = of(KEY, 1, "01d"), of(KEY, 2), of(OTHER_KEY, 7)
    for seconds, name in ((10, old), (50, same_key), (90, other)):
        assert put(store, name)
        age(tmp_path, name, seconds)
    assert put(store, ONE)
    assert store.get(old) is None
    assert all(store.get(name) is not None for name in (ONE, same_key, other))


def test_what_was_set_aside_goes_first(opened: Opened, tmp_path: Path, size: int) -> None:
    store = opened(limit=3 * size)
    other, damaged = of(OTHER_KEY, 1), of(OTHER_KEY, 2)
    for name in (other, damaged, of(KEY, 2)):
        assert put(store, name)
    store.set_aside(damaged, "it is Tuesday")
    age(tmp_path, other, 1000)
    assert put(store, ONE)
    assert [each for each in names(tmp_path) if "damaged" in each] == []
    assert holds(store.get(other), split_of())


def test_what_nobody_goes_on_with_goes_and_what_is_written_stays(
    opened: Opened, tmp_path: Path, size: int
) -> None:
    left, slow = of(KEY, 7), of(KEY, 8)
    earlier = opened("h:2", limit=3 * size)
    fill(begun(earlier, left))
    earlier.close()
    fill(begun(opened("h:3", limit=3 * size), slow))
    for name, owner in ((left, "h_2"), (slow, "h_3")):
        path = part(tmp_path, name, owner)
        then = path.stat().st_mtime - ABANDONED_AFTER_S - 60
        os.utime(path, (then, then))
    store = opened(limit=2 * size)
    assert put(store, ONE)
    assert names(tmp_path) == [f"{KEY}/1-5a.seg", f"{KEY}/8-5a.h_3.partial"]
    # Both files and what one of them will yet have leave no room for another.
    partial = store.put(of(KEY, 9))
    if partial is not None:
        with pytest.raises(CapacityError):
            fill(partial)


def test_finishing_needs_no_more_room(opened: Opened, tmp_path: Path, size: int) -> None:
    store = opened(limit=size)
    partial = begun(store)
    fill(partial)
    assert store.total_bytes() < size
    assert partial.commit(digest_of(split_of()))
    assert store.total_bytes() == size


def test_what_is_about_to_get_its_name_is_counted_once(
    opened: Opened, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(limit=2 * size)
    others = iter([of(OTHER_KEY, 2)])

    def meanwhile(point: str) -> None:
        for other in others:
            assert point == "worker.put.after_rename"
            assert put(store, other)

    monkeypatch.setattr(leftover, "failpoint", meanwhile)
    assert put(store, ONE)
    assert all(holds(store.get(name), split_of()) for name in (ONE, of(OTHER_KEY, 2)))


def test_one_byte_too_few_is_too_few(opened: Opened, size: int) -> None:
    partial = begun(opened(limit=size - 1))
    with pytest.raises(CapacityError):
        fill(partial)
    assert partial.elements == 7


def test_what_is_cut_off_leaves_room(opened: Opened, size: int) -> None:
    store = opened(limit=size)
    partial = begun(store)
    for _ in range(5):
        fill(partial)
        assert partial.cut(0)
    fill(partial)
    assert partial.commit(digest_of(split_of()))


def test_what_another_life_left_is_counted(opened: Opened, tmp_path: Path, size: int) -> None:
    store = opened(limit=size)
    fill(begun(store))
    store.close()
    again = opened(limit=size)
    other = begun(again, of(KEY, 2))
    with pytest.raises(CapacityError):
        fill(other)
    other.discard()
    partial = begun(again)
    assert partial.elements == 12
    assert partial.commit(digest_of(split_of()))


def test_a_full_cache_is_said_once(
    opened: Opened, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(limit=size + 10)
    assert put(store, ONE)
    for split in range(2, 6):
        assert store.put(of(KEY, split)) is None
    assert caplog.text.count("is not cached: there is no room") == 1
    seg(store.directory).unlink()
    assert put(store, of(KEY, 6))
    assert store.put(of(KEY, 7)) is None
    assert caplog.text.count("is not cached: there is no room") == 2


def test_a_file_that_cannot_be_removed_makes_no_room(
    opened: Opened, size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(limit=2 * size)
    stubborn, other = of(OTHER_KEY, 1), of(OTHER_KEY, 2)
    for name in (stubborn, other):
        assert put(store, name)
    age(store.directory, stubborn, 50)

    def refuse(file: CacheFile) -> bool:
        if file.name == stubborn:
            raise OSError("it is nailed down")
        return cache_files.remove(file)

    monkeypatch.setattr(cache_room, "remove", refuse)
    assert put(store, ONE)
    assert "it is nailed down" in caplog.text
    assert holds(store.get(stubborn), split_of())
    assert store.put(of(KEY, 2)) is None


def test_readers_keep_what_is_removed(opened: Opened, size: int) -> None:
    store = opened(limit=size)
    other = of(OTHER_KEY, 1)
    assert put(store, other)
    segment = got(store, other)
    assert put(store, ONE)
    assert store.get(other) is None
    assert holds(segment, split_of())


def test_workers_who_share_a_directory_share_its_limit(opened: Opened, size: int) -> None:
    one, two = opened("h:1", limit=3 * size), opened("h:2", limit=3 * size)
    for split in range(3):
        assert put((one, two)[split % 2], of(KEY, split))
    assert one.put(of(KEY, 3)) is None
    assert two.put(of(KEY, 3)) is None
    assert put(two, of(OTHER_KEY, 0)), "for which any of the other key goes"
    assert one.total_bytes() <= 3 * size


def file(kind: Kind, key: str, split: int, stamp: str, used_s: float) -> CacheFile:
    name = SegmentName(key, split, stamp)
    return CacheFile(Path(f"{key}-{split}-{stamp}-{kind}"), kind, name, "", 1, used_s)


@given(
    st.lists(
        st.builds(
            file,
            st.sampled_from(Kind),
            st.sampled_from([KEY, OTHER_KEY]),
            st.integers(0, 2),
            st.sampled_from(["a", "b"]),
            st.floats(0, 2 * ABANDONED_AFTER_S),
        ),
        max_size=20,
    )
)
def test_what_may_be_removed_and_in_which_order(files: list[CacheFile]) -> None:
    writing, now_s = SegmentName(KEY, 1, "a"), 2 * ABANDONED_AFTER_S
    found = evictable(files, writing, now_s)

    def group(each: CacheFile) -> int:
        if each.kind is Kind.ASIDE:
            return 0
        if each.kind is Kind.PARTIAL:
            return 1
        return 2 if each.name.cache_key == KEY else 3

    order = [(group(each), each.used_s) for each in found]
    assert order == sorted(order)
    for each in files:
        stays = {
            Kind.ASIDE: False,
            Kind.PARTIAL: now_s - each.used_s <= ABANDONED_AFTER_S,
            Kind.SEGMENT: each.name.cache_key == KEY
            and (each.name.split != 1 or each.name == writing),
        }[each.kind]
        assert (each not in found) == stays


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=25))
def test_the_limit_holds_whatever_is_put(steps: list[tuple[int, int, bool]]) -> None:
    limit = 6000
    with store_somewhere() as big:
        store = SegmentStore(big.directory, "h:9", limit, "2.0")
        writing: dict[SegmentName, PartialSegment] = {}
        for key, split, finish in steps:
            name = of(f"{key:02x}", split)
            partial = writing.pop(name, None) or store.put(name)
            if partial is None:
                continue
            try:
                append(partial, numbers(partial.elements, 3 + split))
                if finish:
                    partial.commit(partial.digest)
                else:
                    writing[name] = partial
            except CapacityError:
                partial.discard()
            assert store.total_bytes() <= limit
        for partial in writing.values():
            partial.commit(partial.digest)
            assert store.total_bytes() <= limit
        store.close()
