"""The bytes of a segment: what was written comes back, or nothing does."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.proto.chunk import encode
from penstock.proto.wire import FrameType, encode_frame, encode_head
from penstock.worker.segment import Segment, verify
from penstock.worker.segment_file import (
    DamagedSegmentError,
    FrameEntry,
    pack_footer,
    pack_head,
    read_footer,
    read_opening,
    read_trailer,
)
from penstock.worker.segment_frames import Frames, place
from penstock.worker.segments import SegmentStore

from .segment_kit import (
    HEAD,
    ONE,
    OWNER,
    TENSORFLOW,
    digest_of,
    numbers,
    put,
    read,
    seg,
    source,
    split_of,
)


@functools.cache
def small() -> bytes:
    """A segment of two frames."""
    with tempfile.TemporaryDirectory() as directory:
        put(SegmentStore(Path(directory), OWNER, 1 << 20, TENSORFLOW), ONE, split_of(counts=(2, 1)))
        return seg(Path(directory)).read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a segment of that name is."""
    seg(tmp_path).parent.mkdir()
    return seg(tmp_path)


def everything(path: Path) -> None:
    """Opens a segment and reads all of it, as a worker does to serve it."""
    with Segment(path, ONE) as segment:
        read(segment)


def test_what_was_written_is_read(file: Path) -> None:
    file.write_bytes(small())
    everything(file)
    assert verify(file).damage == ""


def test_every_flipped_byte_is_noticed(file: Path) -> None:
    data = small()
    served = set()
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        file.write_bytes(flipped)
        assert str(file) in verify(file).damage, f"byte {at}"
        try:
            everything(file)
            served.add(at)
        except DamagedSegmentError as error:
            assert str(file) in str(error)  # noqa: PT017
    # Zeros between frames belong to nothing that is served.
    frames = Frames(*footer_of(data))
    ends = [read_opening(source(data)).nbytes, *(entry.end for entry in frames)]
    between = {
        at for end, entry in zip(ends, frames, strict=False) for at in range(end, entry.offset)
    }
    assert served == between


def footer_of(data: bytes) -> tuple[int, bytes, int, int]:
    opening = read_opening(source(data))
    trailer = read_trailer(source(data), opening)
    rows = data[trailer.offset : trailer.offset + 32 * trailer.frames]
    return opening.nbytes, rows, len(data), trailer.digest.count


def test_a_file_that_ends_early_or_late_is_damaged(file: Path) -> None:
    data = small()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert verify(file).damage
        with pytest.raises(DamagedSegmentError):
            everything(file)
    for more in (b"\0", b"\0" * 64, data[-64:], data):
        file.write_bytes(data + more)
        assert verify(file).damage
        with pytest.raises(DamagedSegmentError):
            everything(file)


@given(at=st.integers(0, 10_000), removed=st.integers(0, 200), put_in=st.binary(max_size=200))
def test_whatever_is_replaced_is_noticed(at: int, removed: int, put_in: bytes) -> None:
    data = small()
    at %= len(data)
    changed = data[:at] + put_in + data[at + removed :]
    with tempfile.TemporaryDirectory() as directory:
        path = seg(Path(directory))
        path.parent.mkdir()
        path.write_bytes(changed)
        assert (verify(path).damage == "") == (changed == data)


def rebuilt(data: bytes, **changed: int) -> bytes:
    """The file with a trailer that is right but for what is changed, or other."""
    opening = read_opening(source(data))
    trailer = read_trailer(source(data), opening)
    frames, hashes = read_footer(source(data), opening, trailer)
    digest = replace(trailer.digest, **changed)
    return data[: trailer.offset] + pack_footer(
        opening, trailer.offset, list(frames), hashes, digest
    )


@pytest.mark.parametrize("field", ["total", "chain"])
def test_a_digest_that_is_not_the_hashes_is_damage(file: Path, field: str) -> None:
    file.write_bytes(rebuilt(small()))
    everything(file)
    file.write_bytes(rebuilt(small(), **{field: 7}))
    with pytest.raises(DamagedSegmentError, match="do not have its digest"):
        everything(file)


def test_a_footer_of_another_file_does_not_fit(file: Path) -> None:
    data = small()
    offset = read_trailer(source(data), read_opening(source(data))).offset
    other = pack_head(replace(HEAD, id="f" * 16))[0]
    assert len(other) == read_opening(source(data)).nbytes
    file.write_bytes(other + data[len(other) : offset] + data[offset:])
    with pytest.raises(DamagedSegmentError, match="its trailer's checksum does not fit"):
        everything(file)


def written(file: Path, frames: list[tuple[bytes, FrameEntry]], hashes: np.ndarray) -> None:
    """A file of frames as they are given, with everything else right."""
    head, opening = pack_head(HEAD)
    data = head
    for frame, entry in frames:
        data += bytes(entry.offset - len(data)) + frame
    digest = digest_of([replace(numbers(0, 1), hashes=hashes)])
    footer = pack_footer(opening, len(data), [entry for _, entry in frames], hashes, digest)
    file.write_bytes(data + footer)


def framed(header: dict[str, object], payload: bytes, **changed: int) -> tuple[bytes, FrameEntry]:
    """A first frame, and an entry for it."""
    digest = xxhash.xxh3_64_intdigest(payload)
    head = b"".join(encode_head(FrameType.CHUNK, header, len(payload), digest))
    offset = place(pack_head(HEAD)[1].nbytes, len(head) - 32)
    count = changed.get("count", 2)
    return head + payload, FrameEntry(
        offset, offset + len(head), len(payload), 0, count, digest, len(head) - 32
    )


def test_a_frame_that_is_not_of_its_elements_is_damage(file: Path) -> None:
    chunk = numbers(0, 2)
    header, buffers = encode(chunk, {})
    payload = b"".join(buffers)
    written(file, [framed(header, payload)], chunk.hashes)
    everything(file)
    for change in ({"start": 1}, {"count": 3}, {"hashes": b""}, {"hashes": 7}, {"start": "0"}):
        written(file, [framed({**header, **change}, payload)], chunk.hashes)
        with pytest.raises(DamagedSegmentError, match="the frame at byte"):
            everything(file)
        assert "the frame at byte" in verify(file).damage


def test_hashes_that_are_not_the_frames_are_found(file: Path) -> None:
    chunk = numbers(0, 2)
    header, buffers = encode(chunk, {})
    written(file, [framed(header, b"".join(buffers))], chunk.hashes[::-1])
    assert "is not the one that its footer has there" in verify(file).damage


def test_elements_that_do_not_have_their_hashes_are_found(file: Path) -> None:
    chunk = numbers(0, 2)
    wrong = chunk.hashes ^ np.uint64(1)
    header, buffers = encode(replace(chunk, hashes=wrong), {})
    written(file, [framed(header, b"".join(buffers))], wrong)
    assert "element 0 is not what was sent" in verify(file).damage


def test_a_frame_of_another_kind_is_damage(file: Path) -> None:
    chunk = numbers(0, 2)
    header, buffers = encode(chunk, {})
    _, entry = framed(header, b"".join(buffers))
    other = b"".join(encode_frame(FrameType.END, header, buffers))
    written(file, [(other, entry)], chunk.hashes)
    with pytest.raises(DamagedSegmentError, match="it is not what the footer says"):
        everything(file)
    assert "it is not one that belongs there" in verify(file).damage


def test_a_file_of_another_name_is_not_a_segment(file: Path) -> None:
    path = file.with_name("notes.txt")
    path.write_bytes(small())
    assert "its name is not that of a segment" in verify(path).damage
