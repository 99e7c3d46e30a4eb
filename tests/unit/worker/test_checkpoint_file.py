"""The bytes of a checkpoint: what was written comes back, or nothing does."""

from __future__ import annotations

import io
import struct
from dataclasses import asdict, replace

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.worker.checkpoint_file import (
    MAGIC,
    Checkpoint,
    DamagedError,
    Header,
    Layout,
    encode,
    read,
    read_header,
)
from penstock.worker.checkpointing import CHECKPOINT_BYTES_MAX
from penstock.worker.messages import Key

from .fakes import hashes

HEADER = Header(Key("d1", 3, 2, 1), 4, Layout("stacked", 8), "2.0", "options")
SMALL = Checkpoint(HEADER, hashes(0, 4), b"the state of an iterator")


def packed(checkpoint: Checkpoint) -> bytes:
    return b"".join(encode(checkpoint))


def unpacked(data: bytes) -> Checkpoint:
    return read(io.BytesIO(data), len(data))


@given(
    elements=st.integers(0, 200),
    state=st.binary(max_size=300),
    seed=st.integers(0, (1 << 64) - 1),
    dataset=st.text(max_size=50),
)
def test_what_is_written_is_read(elements: int, state: bytes, seed: int, dataset: str) -> None:
    header = replace(HEADER, key=Key(dataset, seed, 0, 7), elements=elements)
    data = packed(Checkpoint(header, hashes(0, elements), state))
    found = unpacked(data)
    assert found.header == header == read_header(io.BytesIO(data), len(data))
    assert found.state == state
    np.testing.assert_array_equal(found.hashes, hashes(0, elements))
    assert found.hashes.dtype == np.uint64


def test_a_file_that_ends_early_or_late_is_damaged() -> None:
    data = packed(SMALL)
    for length in range(len(data)):
        with pytest.raises(DamagedError):
            unpacked(data[:length])
    with pytest.raises(DamagedError, match="announces"):
        unpacked(data + b"\x00")


def test_every_flipped_bit_is_noticed() -> None:
    data = packed(SMALL)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(DamagedError):
                unpacked(bytes(flipped))


def test_a_file_that_shrinks_while_it_is_read_is_damaged() -> None:
    data = packed(SMALL)
    with pytest.raises(DamagedError, match="ends 5 bytes early"):
        read(io.BytesIO(data[:-5]), len(data))


class Unwilling(io.BytesIO):
    """Fails if more is asked for than a file's first part can have."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= 1 << 16
        return super().read(size)


@pytest.mark.parametrize(
    "lengths", [(1 << 60, 0, 0), (10, 1 << 60, 0), (10, 0, CHECKPOINT_BYTES_MAX + 1)]
)
def test_announced_lengths_are_checked_before_anything_is_allocated(
    lengths: tuple[int, int, int],
) -> None:
    data = struct.pack("<8sQQQQ", MAGIC, *lengths, 0)
    with pytest.raises(DamagedError, match="too much"):
        read(Unwilling(data), sum(lengths) + 48)


@pytest.mark.parametrize(
    "header",
    [
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb({}),
        msgpack.packb({**asdict(HEADER), "elements": -4}),
        msgpack.packb({**asdict(HEADER), "elements": 5}),
        msgpack.packb({**asdict(HEADER), "key": {"dataset": 7}}),
        msgpack.packb({**asdict(HEADER), "options": "x" * 5000}),
    ],
)
def test_a_header_that_says_nonsense_is_damage(header: bytes) -> None:
    lengths = struct.pack("<8sQQQ", MAGIC, len(header), 32, 0)
    sums = xxhash.xxh3_64_intdigest(lengths + header)
    body = xxhash.xxh3_64_intdigest(bytes(32), seed=sums)
    data = lengths + struct.pack("<Q", sums) + header + bytes(32) + struct.pack("<Q", body)
    with pytest.raises(DamagedError):
        unpacked(data)


def test_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        encode(replace(SMALL, header=replace(HEADER, options="x" * (1 << 17))))
