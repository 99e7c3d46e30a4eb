"""Runs one attempt: the dataset of a split becomes pieces.

Elements whose shapes are all known are batched by tf.data itself, so Python does a fixed amount of
work for each batch; batches that are too small to travel alone are put together. Elements whose
shapes vary are collected one by one. A piece is done at about 1 MiB or after about 50 ms.

From the second trial on every piece holds one element, so that an error names the exact one.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import UsageError
from ..proto.chunk import Chunk, encode
from ..proto.hashing import DigestBuilder
from ..proto.wire import DEFAULT_LIMITS
from .checkpoint_file import Layout
from .iterators import Source
from .messages import DETAIL_BYTES_MAX, PIPELINE, AttemptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..proto.hashing import Digest, Hashes
    from ..proto.spec import ComponentSpec
    from .messages import Assignment, Piece
    from .recorder import Recorder

    Arrays = tuple[NDArray[Any], ...]

TARGET_BYTES = 1 << 20
TARGET_S = 0.05
ELEMENTS_MAX = 4096
#: Elements in a batch of a stream whose rate is not known yet.
_FIRST_BATCH = 8
#: Characters of a split's description in a failure: many file names must not crowd out the error.
_SOURCE_MAX = 1000
_NODE = re.compile(r"\{\{(?:function_)?node ([^}]*)\}\}")
_NODE_PREFIX = re.compile(r"^\s*\{\{function_node [^}]*\}\}\s*")


class SplitStream(Protocol):
    """What is used of `graph.LoadedStream`."""

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The types of an element."""

    @property
    def fixed_element_bytes(self) -> int | None:
        """The size of every element, if they are all the same."""

    def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
        """The tf.data.Dataset of one split, of flat tuples of dense tensors."""

    def describe_split(self, split: int) -> str:
        """What a split reads, for messages."""


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """A chunk, and the frame that it is sent as: encoded once, where it is made."""

    chunk: Chunk
    ids: dict[str, int]
    header: dict[str, Any]
    buffers: Sequence[bytes | memoryview]
    nbytes: int

    @classmethod
    def of(cls, chunk: Chunk, ids: dict[str, int]) -> EncodedPiece:
        """Encodes a chunk; numeric components stay in the tensors' memory.

        Raises:
            UsageError: it is too large to be sent.
        """
        header, buffers = encode(chunk, ids)
        nbytes = sum(memoryview(part).nbytes for part in buffers)
        if nbytes > DEFAULT_LIMITS.payload_bytes_max:  # no client would accept the frame
            raise UsageError(
                f"elements {chunk.start}..{chunk.stop} have {nbytes} bytes together,"
                f" {DEFAULT_LIMITS.payload_bytes_max} can be sent at once"
            )
        return cls(chunk, ids, header, buffers, nbytes)

    @property
    def start(self) -> int:
        """Index in the split of the first element."""
        return self.chunk.start

    @property
    def stop(self) -> int:
        """Index in the split of the element after the last."""
        return self.chunk.stop

    @property
    def hashes(self) -> Hashes:
        """One hash an element."""
        return self.chunk.hashes

    def slice(self, a: int, b: int) -> Piece:
        """Elements `a .. b-1` as a piece of their own."""
        return EncodedPiece.of(self.chunk.slice(a, b), self.ids)


@dataclass(slots=True)
class Rate:
    """What the elements of one stream cost, learned from the splits before. Thread-safe.

    Attributes:
        element_bytes: mean payload bytes of an element; None while unknown.
        element_s: mean seconds to make one; None while unknown.
    """

    element_bytes: float | None = None
    element_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, elements: int, nbytes: int, timed: int, seconds: float) -> None:
        """Takes in a chunk: `timed` of its elements took `seconds`; older measurements fade."""
        with self._lock:
            self.element_bytes = _blend(self.element_bytes, nbytes / elements)
            if timed:
                self.element_s = _blend(self.element_s, seconds / timed)

    def batch_size(self, fixed_bytes: int | None) -> int:
        """How many elements make a piece of the intended size and time."""
        with self._lock:
            nbytes = self.element_bytes if fixed_bytes is None else fixed_bytes
            seconds = self.element_s
        by_bytes = _FIRST_BATCH if nbytes is None else TARGET_BYTES / max(nbytes, 1)
        by_time = _FIRST_BATCH if seconds is None else TARGET_S / max(seconds, 1e-9)
        return int(max(1, min(by_bytes, by_time, ELEMENTS_MAX)))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.75 * old + 0.25 * new


def run_attempt(
    stream: SplitStream,
    assignment: Assignment,
    put: Callable[[Piece], bool],
    rate: Rate,
    stopped: threading.Event,
    recorder: Recorder | None = None,
) -> Digest | None:
    """Produces one split, from its beginning or from a checkpoint.

    Args:
        stream: where the split's dataset comes from.
        assignment: which split, and the trial.
        put: takes a piece; waits for space; False once the attempt is stopped.
        rate: of the stream; used and improved.
        stopped: set when the attempt is not wanted any more.
        recorder: of the run; None: without checkpoints.

    Returns:
        The digest of all elements, those before the checkpoint too, or None if the attempt was
        stopped.

    Raises:
        AttemptError: the pipeline raised; the message names split, file and element.
    """
    builder = DigestBuilder()
    ids = {
        "epoch": assignment.epoch,
        "split": assignment.split,
        "attempt": assignment.attempt,
    }
    made = 0
    try:
        source, before = _begin(stream, assignment, rate, recorder)
        builder.update(before)
        made = len(before)
        for chunk in _chunks(source, stream, rate, made):
            piece = EncodedPiece.of(chunk, ids)
            builder.update(chunk.hashes)
            made = chunk.stop
            if recorder is not None:
                recorder.pause()
            if not put(piece) or stopped.is_set():
                return None
            if recorder is not None:
                recorder.resume(made, source)
    except Exception as error:
        raise AttemptError(PIPELINE, _explain(stream, assignment, made, error)) from error
    return None if stopped.is_set() else builder.digest()


def _begin(
    stream: SplitStream, assignment: Assignment, rate: Rate, recorder: Recorder | None
) -> tuple[Source, Hashes]:
    """The split's elements that are to be made, and the hashes of those before them."""
    kind = "collected"
    if assignment.trial > 1:
        kind = "single"
    elif all(spec.static_shape is not None for spec in stream.components):
        kind = "stacked"

    def make(layout: Layout | None) -> Source:
        if layout is None:
            size = rate.batch_size(stream.fixed_element_bytes) if kind == "stacked" else 1
            layout = Layout(kind, size)
        dataset = stream.split_dataset(
            assignment.split, seed=assignment.seed, epoch=assignment.epoch
        )
        return Source(dataset, layout)

    if recorder is None:
        return make(None), np.empty(0, np.uint64)
    return recorder.begin(kind, make)


def _chunks(source: Source, stream: SplitStream, rate: Rate, start: int) -> Iterator[Chunk]:
    """Chunks from element `start` on. At each, the source has yielded no element beyond it."""
    if source.layout.kind == "single":
        return _single(source, stream, start)
    if source.layout.kind == "stacked":
        return _stacked(source, rate, start)
    return _collected(source, stream, rate, start)


def _array(tensor: Any) -> NDArray[Any]:
    """The tensor's own memory where TensorFlow lends it; strings are objects."""
    return np.asarray(tensor)


def _single(source: Source, stream: SplitStream, start: int) -> Iterator[Chunk]:
    """One element a chunk: slow, and exact about errors."""
    for index, element in enumerate(source, start):
        yield Chunk.from_elements(index, [tuple(map(_array, element))], stream.components)


def _stacked(source: Source, rate: Rate, start: int) -> Iterator[Chunk]:
    """Batches made by tf.data, joined while they are too small."""
    parts: list[Arrays] = []
    meter = _Meter(rate)
    for batch in source:
        arrays = tuple(map(_array, batch))
        parts.append(arrays)
        meter.add(len(arrays[0]), sum(map(_size, arrays)))
        if meter.full:
            meter.flush()
            chunk = Chunk.from_stacked(start, _join(parts))
            parts, start = [], chunk.stop
            yield chunk
            meter.restart()  # waiting for space is not the pipeline's time
    if parts:
        meter.flush()
        yield Chunk.from_stacked(start, _join(parts))


def _collected(source: Source, stream: SplitStream, rate: Rate, start: int) -> Iterator[Chunk]:
    """Elements of varying shapes, gathered one by one."""
    elements: list[Arrays] = []
    meter = _Meter(rate)
    for element in source:
        arrays = tuple(map(_array, element))
        elements.append(arrays)
        meter.add(1, sum(map(_size, arrays)))
        if meter.full:
            meter.flush()
            chunk = Chunk.from_elements(start, elements, stream.components)
            elements, start = [], chunk.stop
            yield chunk
            meter.restart()
    if elements:
        meter.flush()
        yield Chunk.from_elements(start, elements, stream.components)


class _Meter:
    """Says when a chunk is large or late enough, and tells the rate what it measured.

    The time until a split's first batch is left out: opening files and filling shuffle buffers
    say nothing about the elements that follow.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self.restart()
        self._began: float | None = None

    def restart(self) -> None:
        """A new chunk begins now."""
        self._began = time.monotonic()
        self._elements = self._timed = self._nbytes = self._largest = 0

    def add(self, elements: int, nbytes: int) -> None:
        """So much has been added to the chunk."""
        if self._began is None:
            self._began = time.monotonic()
        else:
            self._timed += elements
        self._elements += elements
        self._nbytes += nbytes
        self._largest = max(self._largest, nbytes)

    @property
    def full(self) -> bool:
        """Whether one more like the largest would be too much, or the time is over."""
        return (
            self._nbytes + self._largest > TARGET_BYTES
            or self._elements >= ELEMENTS_MAX
            or self._seconds() >= TARGET_S
        )

    def flush(self) -> None:
        """The chunk is done: the rate learns what it took."""
        self._rate.learn(self._elements, self._nbytes, self._timed, self._seconds())

    def _seconds(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began


def _join(parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _size(array: NDArray[Any]) -> int:
    if array.dtype != object:
        return array.nbytes
    return sum(map(len, array.ravel()))


def _explain(stream: SplitStream, assignment: Assignment, made: int, error: Exception) -> str:
    """What went wrong, where, in what: for the one who has to find the bad record."""
    where = f"split {assignment.split}"
    try:
        source = stream.describe_split(assignment.split)
        where += f" ({source[:_SOURCE_MAX]}{'…' if len(source) > _SOURCE_MAX else ''})"
    except Exception as second:  # the description must not hide the error
        where += f" (not described: {second})"
    which = f"element {made}" if assignment.trial > 1 else f"after {made} elements"
    nodes = _NODE.findall(str(error))
    message = _NODE_PREFIX.sub("", str(error)).strip().splitlines() or [""]
    op = f" [op {nodes[-1]}]" if nodes else ""
    detail = f"{where}, {which}: {type(error).__name__}: {message[0]}{op}"
    return detail.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore")
