"""Unfinished segments: the next life of a worker goes on with what is whole of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.worker.segments import LEFT_AFTER_S

from .segment_kit import (
    KEY,
    ONE,
    TWO,
    Opened,
    append,
    begun,
    digest_of,
    holds,
    names,
    numbers,
    opening,
    part,
    put,
    split_of,
    store_somewhere,
)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with opening(tmp_path) as open_:
        yield open_


def test_a_restarted_worker_goes_on_where_it_was(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    first, second, third = split_of()
    partial = begun(store)
    append(partial, first)
    append(partial, second)
    partial.sync()
    store.close()
    assert names(tmp_path) == [f"{KEY}/1-5a.127.0.0.1_5000.partial"]
    assert store.put(TWO) is None, "it is closed"
    again = begun(opened())
    assert (again.elements, again.nbytes, again.id) == (7, partial.nbytes, partial.id)
    append(again, third)
    assert again.commit(digest_of(split_of()))
    assert holds(opened().get(ONE), split_of())


def test_a_worker_at_another_address_does_not(opened: Opened) -> None:
    store = opened()
    partial = begun(store)
    append(partial, split_of()[0])
    store.close()
    other = begun(opened("h:2"))
    assert other.elements == 0


def test_it_is_cut_where_a_frame_ends_and_nowhere_else(opened: Opened, tmp_path: Path) -> None:
    partial = begun(opened())
    sizes = {0: partial.nbytes}
    for chunk in split_of():
        append(partial, chunk)
        sizes[chunk.stop] = partial.nbytes
    for elements in (-1, 1, 6, 8, 13):
        assert not partial.cut(elements)
        assert partial.elements == 12
    for elements in (12, 7, 4, 0, 0):
        assert partial.cut(elements)
        assert (partial.elements, partial.nbytes) == (elements, sizes[elements])
        assert part(tmp_path).stat().st_size == sizes[elements]
        assert not partial.cut(12) or elements == 12
        assert partial.digest.count == elements


@given(st.lists(st.sampled_from(["append", "cut", "release", "sync"]), max_size=30), st.data())
def test_after_any_cuts_and_restarts_it_holds_what_it_should(
    steps: list[str], data: object
) -> None:
    draw = data.draw  # type: ignore[attr-defined]
    with store_somewhere() as store:
        partial, chunks = begun(store), []
        for step in steps:
            if step == "append":
                start = chunks[-1].stop if chunks else 0
                chunks.append(numbers(start, draw(st.integers(1, 5)), draw(st.integers(0, 9))))
                append(partial, chunks[-1])
            elif step == "cut":
                del chunks[draw(st.integers(0, len(chunks))) :]
                assert partial.cut(chunks[-1].stop if chunks else 0)
            elif step == "sync":
                partial.sync()
            else:
                partial.release()
                partial = begun(store)
        assert partial.commit(digest_of(chunks))
        assert holds(store.get(ONE), chunks)


def test_what_fits_another_tensorflow_is_begun_anew(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    partial = begun(store)
    append(partial, split_of()[0])
    store.close()
    again = opened(tensorflow="2.1")
    assert names(tmp_path) == []
    fresh = begun(again)
    assert fresh.elements == 0


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(500)])
def test_a_leftover_that_is_none_is_removed(opened: Opened, tmp_path: Path, junk: bytes) -> None:
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(junk)
    store = opened()
    assert names(tmp_path) == []
    part(tmp_path).parent.mkdir(exist_ok=True)
    part(tmp_path).write_bytes(junk)
    assert put(store, ONE)


def test_a_leftover_of_another_name_is_removed(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    partial = begun(store)
    append(partial, split_of()[0])
    store.close()
    part(tmp_path).replace(part(tmp_path, TWO))
    opened()
    assert names(tmp_path) == []


def test_what_others_left_is_removed_after_a_day(opened: Opened, tmp_path: Path) -> None:
    for owner in ("h:2", "h:3"):
        store = opened(owner)
        begun(store)
        store.close()
    begun(opened("h:4"), TWO)
    now = part(tmp_path, ONE, "h_3").stat().st_mtime
    for name, owner, age in ((ONE, "h_2", 60), (ONE, "h_3", -60), (TWO, "h_4", 60)):
        then = now - LEFT_AFTER_S - age
        os.utime(part(tmp_path, name, owner), (then, then))
    opened()
    assert names(tmp_path) == [f"{KEY}/1-5a.h_3.partial", f"{KEY}/2-5a.h_4.partial"]


def test_a_leftover_that_cannot_be_opened_stops_no_worker(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part(tmp_path).mkdir(parents=True)
    store = opened()
    assert f"{part(tmp_path)} is left as it is" in caplog.text
    assert store.put(ONE) is None
    assert put(store, TWO)


def test_what_cannot_be_read_of_a_leftover_is_cut_off(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    partial = begun(store)
    for chunk in split_of():
        append(partial, chunk)
    store.close()
    bad = partial._entries[1].payload_offset
    pread = os.pread

    def sometimes(descriptor: int, nbytes: int, offset: int) -> bytes:
        if offset <= bad < offset + nbytes:
            raise OSError("bad sector")
        return pread(descriptor, nbytes, offset)

    monkeypatch.setattr(os, "pread", sometimes)
    again = begun(opened())
    assert again.elements == 4
