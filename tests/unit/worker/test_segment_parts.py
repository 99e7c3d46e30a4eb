"""The parts of a segment file: names, heads, footers, where frames are; nothing is believed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.worker.segment_file import (
    END_MAGIC,
    HEAD_BYTES_MAX,
    MAGIC,
    TRAILER_BYTES,
    DamagedSegmentError,
    FrameEntry,
    Head,
    SegmentName,
    Source,
    pack_head,
    read_opening,
    read_trailer,
)
from penstock.worker.segment_frames import Frames, place, rows_of

from .segment_kit import HEAD, KEY, source

# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        ("", 0, "0"),
        ("../up", 0, "0"),
        ("ABC", 0, "0"),
        ("ab\n", 0, "0"),
        ("a" * 129, 0, "0"),
        ("ab", -1, "0"),
        ("ab", 1 << 63, "0"),
        ("ab", True, "0"),
        ("ab", 0, ""),
        ("ab", 0, "x/y"),
        ("ab", 0, "a" * 65),
        (7, 0, "0"),
        ("ab", "0", "0"),
    ],
)
def test_a_name_is_of_what_file_names_are_made_of(fields: tuple[str, int, str]) -> None:
    with pytest.raises(UsageError, match="not"):
        SegmentName(*fields)


# --- heads --------------------------------------------------------------------------------------


@given(
    key=st.text("0123456789abcdef", min_size=1, max_size=128),
    split=st.integers(0, (1 << 63) - 1),
    stamp=st.text("0123456789abcdef", min_size=1, max_size=64),
    tensorflow=st.text(max_size=256),
)
def test_a_head_comes_back(key: str, split: int, stamp: str, tensorflow: str) -> None:
    head = Head(SegmentName(key, split, stamp), "0123456789abcdef", tensorflow)
    data, opening = pack_head(head)
    assert read_opening(source(data + b"frames")) == opening
    assert (opening.head, opening.nbytes) == (head, len(data))


def test_every_flipped_bit_of_a_head_is_noticed() -> None:
    data, _ = pack_head(HEAD)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedSegmentError, match="segment it: "):
            read_opening(source(bytes(flipped)))


def test_every_cut_head_is_noticed() -> None:
    data, _ = pack_head(HEAD)
    for length in range(len(data)):
        with pytest.raises(DamagedSegmentError):
            read_opening(source(data[:length]))


def sealed(packed: bytes) -> bytes:
    """A head with right length and checksum around anything."""
    begin = MAGIC + struct.pack("<Q", len(packed))
    return begin + struct.pack("<Q", xxhash.xxh3_64_intdigest(begin + packed)) + packed


GOOD = {
    "name": {"cache_key": KEY, "split": 1, "stamp": "0"},
    "id": "0123456789abcdef",
    "tensorflow": "2.0",
    "protocol": 2,
}


@pytest.mark.parametrize(
    "fields",
    [
        7,
        [],
        {},
        {**GOOD, "id": "0123"},
        {**GOOD, "id": 7},
        {**GOOD, "tensorflow": "x" * 300},
        {**GOOD, "tensorflow": 2},
        {**GOOD, "protocol": "2"},
        {**GOOD, "name": "ab"},
        {**GOOD, "name": {"cache_key": "../..", "split": 1, "stamp": "0"}},
        {**GOOD, "name": {"cache_key": KEY, "split": -1, "stamp": "0"}},
        {**GOOD, "name": {"cache_key": KEY, "split": 1}},
    ],
)
def test_a_head_that_says_nonsense_is_damage(fields: object) -> None:
    read_opening(source(sealed(msgpack.packb(GOOD))))
    with pytest.raises(DamagedSegmentError, match="its head is none"):
        read_opening(source(sealed(msgpack.packb(fields))))


def test_a_head_that_is_not_msgpack_is_damage() -> None:
    for packed in (b"", b"\xc1", b"\x80\x80", b"\x91" * 2000):
        with pytest.raises(DamagedSegmentError, match="its head is none"):
            read_opening(source(sealed(packed)))


def test_frames_of_another_protocol_are_named() -> None:
    with pytest.raises(DamagedSegmentError, match="version 1 of the data protocol, not 2"):
        read_opening(source(sealed(msgpack.packb({**GOOD, "protocol": 1}))))


def test_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="a head of"):
        pack_head(replace(HEAD, tensorflow="x" * 300))


# --- lengths ------------------------------------------------------------------------------------


def refuse(offset: int, nbytes: int) -> bytes:
    raise AssertionError(f"{nbytes} bytes at {offset} were asked for")


def reader(known: bytes, at: int = 0) -> Callable[[int, int], bytes]:
    """Reads from a file of which only these bytes may be looked at."""

    def read_at(offset: int, nbytes: int) -> bytes:
        if not at <= offset <= offset + nbytes <= at + len(known):
            return refuse(offset, nbytes)
        return known[offset - at : offset - at + nbytes]

    return read_at


@pytest.mark.parametrize("nbytes", [HEAD_BYTES_MAX + 1, 1 << 60, (1 << 64) - 1])
def test_a_head_of_any_length_is_refused_before_it_is_read(nbytes: int) -> None:
    data = MAGIC + struct.pack("<QQ", nbytes, 0)
    with pytest.raises(DamagedSegmentError, match="which is too much"):
        read_opening(Source(Path("it"), 1 << 62, reader(data)))


def test_a_head_longer_than_its_file_is_refused_before_it_is_read() -> None:
    data = MAGIC + struct.pack("<QQ", 4096, 0)
    with pytest.raises(DamagedSegmentError, match="ends 4095 bytes early"):
        read_opening(Source(Path("it"), 25, reader(data)))


@pytest.mark.parametrize(
    "numbers_", [(1 << 60, 1, 1), (0, 1 << 60, 1), (200, 1, 1 << 61), (200, (1 << 64) - 1, 0)]
)
def test_a_footer_of_any_length_is_refused_before_it_is_read(
    numbers_: tuple[int, int, int],
) -> None:
    _, opening = pack_head(HEAD)
    fields = struct.pack("<QQQQQQ", *numbers_, 0, 0, 0)
    own = struct.pack("<Q", xxhash.xxh3_64_intdigest(fields, seed=opening.seal))
    trailer = fields + own + END_MAGIC
    assert len(trailer) == TRAILER_BYTES
    with pytest.raises(DamagedSegmentError, match="it has 1000 bytes and announces"):
        read_trailer(Source(Path("it"), 1000, reader(trailer, 1000 - TRAILER_BYTES)), opening)


def test_a_file_that_shrinks_while_it_is_read_is_damaged() -> None:
    with pytest.raises(DamagedSegmentError, match="it ends 5 bytes early"):
        source(b"12345", 10).read(0, 10)
    with pytest.raises(DamagedSegmentError, match="it ends 5 bytes early"):
        source(b"12345", 10).digest(0, 10)


# --- frames -------------------------------------------------------------------------------------

lengths = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 9))


@given(begin=st.integers(24, 500), shapes=st.lists(lengths, max_size=12))
def test_where_frames_are_follows_from_their_lengths(
    begin: int, shapes: list[tuple[int, int, int]]
) -> None:
    end, start, entries = begin, 0, []
    for header_bytes, payload_bytes, count in shapes:
        offset = place(end, header_bytes)
        assert 0 <= offset - end < 64
        payload_offset = offset + 32 + header_bytes
        assert payload_offset % 64 == 0
        entries.append(
            FrameEntry(offset, payload_offset, payload_bytes, start, count, 5, header_bytes)
        )
        end, start = payload_offset + payload_bytes, start + count
    frames = Frames(begin, rows_of(entries).tobytes(), 1 << 40, 1 << 20)
    assert list(frames) == entries
    assert [frames[number] for number in range(len(frames))] == entries
    assert (frames.end, frames.elements) == (end, start)
    for number, entry in enumerate(entries):
        for element in range(entry.start, entry.stop):
            assert frames.at(element) == number
    for element in (-1, start):
        with pytest.raises(IndexError, match=f"{element} is not one of {start}"):
            frames.at(element)


def test_there_is_no_frame_behind_the_last() -> None:
    frames = Frames(24, rows_of([FrameEntry(0, 0, 5, 0, 2, 9, 7)]).tobytes(), 100, 2)
    assert frames[-1] == frames[0]
    with pytest.raises(IndexError):
        frames[1]


@pytest.mark.parametrize(
    "row",
    [
        (1 << 63, 0, 1),
        (0, (1 << 64) - 1, 1),
        (150, 0, 1),
        (0, 150, 1),
        (0, 0, 0),
        (0, 0, 15),
        (0, 0, (1 << 64) - 1),
    ],
)
def test_frames_of_impossible_size_are_refused(row: tuple[int, int, int]) -> None:
    rows = np.array([[1, 1, 1, 0], [*row, 0]], np.uint64).tobytes()
    with pytest.raises(ValueError, match=r"impossible size|without elements"):
        Frames(24, rows, 100, 10)


sizes = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 56), st.just(1 << 61))


@given(st.lists(st.tuples(sizes, sizes, sizes.map(lambda n: max(n, 1))), max_size=100))
def test_sums_of_lengths_never_overflow_unseen(rows: list[tuple[int, int, int]]) -> None:
    data = np.array([[*row, 0] for row in rows], np.uint64).tobytes()
    try:
        frames = Frames(24, data, (1 << 62) - 1, (1 << 62) - 1)
    except ValueError:
        return
    assert frames.end >= sum(header + payload for header, payload, _ in rows)
    assert frames.elements == sum(count for _, _, count in rows)
