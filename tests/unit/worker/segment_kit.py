"""Splits of real elements, and segments that hold them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.hashing import Digest, DigestBuilder
from penstock.proto.spec import STRING, ComponentSpec
from penstock.worker.cache_files import partial_path, segment_path
from penstock.worker.segment import Segment
from penstock.worker.segment_file import Head, SegmentName, Source
from penstock.worker.segments import PartialSegment, SegmentStore

OWNER = "127.0.0.1:5000"
TENSORFLOW = "2.0"
KEY, OTHER_KEY = "c0ffee", "decaf0"
ONE, TWO = SegmentName(KEY, 1, "5a"), SegmentName(KEY, 2, "5a")
LIMIT = 1 << 30
HEAD = Head(ONE, "0123456789abcdef", TENSORFLOW)


Opened = Callable[..., SegmentStore]


@contextlib.contextmanager
def opening(root: Path) -> Iterator[Opened]:
    """Opens workers' stores in a directory; the others stay open, as other workers' are."""
    stores: list[SegmentStore] = []

    def open_(
        owner: str = OWNER, tensorflow: str = TENSORFLOW, limit: int = LIMIT, **more: Any
    ) -> SegmentStore:
        stores.append(SegmentStore(root, owner, limit, tensorflow, **more))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@contextlib.contextmanager
def store_somewhere() -> Iterator[SegmentStore]:
    """A store in a directory of its own, for each example of Hypothesis."""
    with tempfile.TemporaryDirectory() as directory, opening(Path(directory)) as open_:
        yield open_()


def begun(store: SegmentStore, name: SegmentName = ONE) -> PartialSegment:
    """What `put` returns when nothing is in the way."""
    partial = store.put(name)
    assert partial is not None
    return partial


def got(store: SegmentStore, name: SegmentName = ONE) -> Segment:
    """What `get` returns when it is there."""
    segment = store.get(name)
    assert segment is not None
    return segment


def numbers(start: int, count: int, size: int = 3) -> Chunk:
    """Elements of one shape: `size` numbers, and their index."""
    index = np.arange(start, start + count)
    return Chunk.from_stacked(start, [np.outer(index, np.arange(size)).astype(np.float32), index])


def strings(start: int, count: int) -> Chunk:
    """Strings of different lengths."""
    texts = np.empty(count, object)
    texts[:] = [b"element %d" % index * (index % 4) for index in range(start, start + count)]
    return Chunk.from_stacked(start, [texts])


def varying(start: int, count: int) -> Chunk:
    """Elements with shapes of their own, some without any bytes."""
    elements = [
        (np.full((index % 3, 2), index, np.int16), np.array([b"x"] * (index % 2), object))
        for index in range(start, start + count)
    ]
    specs = [ComponentSpec("int16", (None, 2)), ComponentSpec(STRING, (None,))]
    return Chunk.from_elements(start, elements, specs)


KINDS = {"numbers": numbers, "strings": strings, "varying": varying}


@functools.cache
def split_of(kind: str = "numbers", counts: Sequence[int] = (4, 3, 5)) -> list[Chunk]:
    """The chunks of a split."""
    starts = np.cumsum([0, *counts]).tolist()
    make = KINDS[kind]
    return [make(start, count) for start, count in zip(starts, counts, strict=False)]


def digest_of(chunks: Sequence[Chunk]) -> Digest:
    builder = DigestBuilder()
    for chunk in chunks:
        builder.update(chunk.hashes)
    return builder.digest()


def append(partial: PartialSegment, chunk: Chunk, **ids: int) -> None:
    header, buffers = encode(chunk, ids or {"epoch": 0, "attempt": 7})
    partial.append(header, buffers, chunk.start, chunk.count, chunk.hashes)


def put(store: SegmentStore, name: SegmentName, chunks: Sequence[Chunk] | None = None) -> bool:
    """Writes a whole segment; whether it is there because of that."""
    chunks = split_of() if chunks is None else chunks
    partial = store.put(name)
    if partial is None:
        return False
    for chunk in chunks[sum(chunk.stop <= partial.elements for chunk in chunks) :]:
        append(partial, chunk)
    return partial.commit(digest_of(chunks))


def read(segment: Segment) -> list[Chunk]:
    """All that a segment holds, checked as a client would."""
    found = []
    for number in range(len(segment.frames)):
        chunk = decode(segment.header(number), segment.payload(number))
        chunk.verify()
        found.append(chunk)
    return found


def holds(segment: Segment | None, chunks: Sequence[Chunk]) -> bool:
    """Whether a segment holds these elements, in these frames; closes it."""
    if segment is None:
        return False
    with segment:
        found = read(segment)
        return (
            segment.digest == digest_of(chunks)
            and [entry.start for entry in segment.frames] == [chunk.start for chunk in chunks]
            and all(map(same, found, chunks))
        )


def same(one: Chunk, other: Chunk) -> bool:
    alike: Any = np.array_equal(one.hashes, other.hashes)
    return one.start == other.start and one.count == other.count and bool(alike)


def seg(root: Path, name: SegmentName = ONE) -> Path:
    return segment_path(root, name)


def part(root: Path, name: SegmentName = ONE, owner: str = "127.0.0.1_5000") -> Path:
    return partial_path(root, name, owner)


def names(root: Path) -> list[str]:
    """The files of a cache, without its id."""
    found = [path for path in root.rglob("*") if path.is_file() and path.name != "STORE"]
    return sorted(str(path.relative_to(root)) for path in found)


def source(data: bytes, size: int | None = None) -> Source:
    """A file of these bytes, which says that it has `size`."""

    def read_at(offset: int, nbytes: int) -> bytes:
        return data[offset : offset + nbytes]

    return Source(Path("it"), len(data) if size is None else size, read_at)
