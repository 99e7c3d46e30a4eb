"""Runs one attempt: the dataset of a split becomes pieces.

Elements whose shapes are all known are batched by tf.data itself, so Python does a fixed amount of
work for each batch; batches that are too small to travel alone are put together. So are elements
whose shapes vary (`ragged`); where they are large or slow, or of a type that it cannot batch, they
are collected one by one. A piece is done at about 4 MiB or after a quarter of a second.

From the second trial on every piece holds one element, so that an error names the exact one. It is
named by how many elements, good or bad, come before it, because that is the same in every replay: a
tf.data iterator that has raised goes on with the element after it when it is asked again. So a run
can leave out elements by their numbers, whether they raise this time or not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from ..proto.chunk import Chunk
from ..proto.hashing import DigestBuilder
from . import ragged
from .checkpoint_file import Layout
from .iterators import Source
from .messages import DETAIL_BYTES_MAX, PIPELINE, AttemptError
from .pieces import EncodedPiece, ids_of
from .rate import Meter

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from ..proto.hashing import Digest, Hashes
    from ..proto.spec import ComponentSpec
    from .iterators import Elements
    from .messages import Assignment, Piece
    from .rate import Rate
    from .recorder import Recorder

    Arrays = tuple[NDArray[Any], ...]

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


class Origin(Protocol):
    """Where the elements of one run come from: the pipeline itself, or a way of the cache."""

    def fits(self, via: str) -> bool:
        """Whether the run can go on from the state of a dataset that was made by that way."""

    def elements(self, layout: Layout, *, fresh: bool) -> Elements:
        """The split's elements.

        Args:
            layout: how they are wanted. `via` is the way to be taken, unless the run is fresh.
            fresh: they are not to be restored from a state: the way can be chosen.
        """


@dataclass(frozen=True, slots=True)
class Computed:
    """The elements come from the pipeline itself."""

    stream: SplitStream
    assignment: Assignment

    def fits(self, via: str) -> bool:
        """Whether the dataset was made so."""
        return not via

    def elements(self, layout: Layout, *, fresh: bool) -> Elements:
        """The split's elements."""
        at = self.assignment
        return Source(self.stream.split_dataset(at.split, seed=at.seed, epoch=at.epoch), layout)


@dataclass(slots=True)
class Made:
    """What a run has made so far.

    Attributes:
        elements: how many.
        digest: of them.
    """

    elements: int = 0
    digest: DigestBuilder = field(default_factory=DigestBuilder)


def run_attempt(
    stream: SplitStream,
    assignment: Assignment,
    put: Callable[[Piece], bool],
    rate: Rate,
    stopped: threading.Event,
    recorder: Recorder | None = None,
    origin: Origin | None = None,
    made: Made | None = None,
) -> Digest | None:
    """Produces one split, from its beginning or from a checkpoint.

    Args:
        stream: what the split is of.
        assignment: which split, and the trial.
        put: takes a piece; waits for space; False once the attempt is stopped.
        rate: of the stream; used and improved.
        stopped: set when the attempt is not wanted any more.
        recorder: of the run; None: without checkpoints.
        origin: where the elements come from; by default from the stream.
        made: what the attempt has put already, in another way, and is not to be put again.

    Returns:
        The digest of all elements, those before the checkpoint too, or None if the attempt was
        stopped.

    Raises:
        AttemptError: the pipeline raised; the message names split, file and element, and the
            error the element's number where it is known exactly.
    """
    ids = ids_of(assignment)
    made = made or Made()
    try:
        origin = origin or Computed(stream, assignment)
        source, before = _begin(stream, assignment, rate, recorder, origin)
        _skip(made, before)
        chunks = _chunks(source, stream, rate, len(before), assignment.bad)
        for chunk in _beyond(chunks, made.elements):
            piece = EncodedPiece.of(chunk, ids)
            made.digest.update(chunk.hashes)
            made.elements = chunk.stop
            if recorder is not None:
                recorder.pause()
            if not put(piece) or stopped.is_set():
                return None
            if recorder is not None and not source.over:
                recorder.resume(made.elements, source)
    except _BadElementError as bad:
        why = _explain(stream, assignment, f"element {bad.element}", bad.cause)
        raise AttemptError(PIPELINE, why, bad.element) from bad.cause
    except Exception as error:
        at = made.elements
        which = f"element {at}" if assignment.trial > 1 else f"after {at} elements"
        why = _explain(stream, assignment, which, error)
        raise AttemptError(PIPELINE, why) from error
    return None if stopped.is_set() else made.digest.digest()


class _BadElementError(Exception):
    """An element raised, and is not to be left out."""

    def __init__(self, element: int, cause: Exception) -> None:
        super().__init__(element)
        self.element = element
        self.cause = cause


def _skip(made: Made, before: Hashes) -> None:
    """The elements before a checkpoint count as made."""
    if len(before) > made.elements:
        made.digest.update(before[made.elements :])
        made.elements = len(before)


def _beyond(chunks: Iterator[Chunk], start: int) -> Iterator[Chunk]:
    """What lies at element `start` and after it."""
    for chunk in chunks:
        if chunk.stop > start:
            yield chunk if chunk.start >= start else chunk.slice(start, chunk.stop)


def _begin(
    stream: SplitStream,
    assignment: Assignment,
    rate: Rate,
    recorder: Recorder | None,
    origin: Origin,
) -> tuple[Elements, Hashes]:
    """The split's elements that are to be made, and the hashes of those before them."""
    kinds = _kinds(stream, assignment)

    def fits(layout: Layout) -> bool:
        return layout.kind in kinds and origin.fits(layout.via)

    def make(layout: Layout | None) -> Elements:
        if layout is not None:
            return origin.elements(layout, fresh=False)
        return origin.elements(_layout(kinds, stream, rate), fresh=True)

    if recorder is None:
        return make(None), np.empty(0, np.uint64)
    return recorder.begin(fits, make)


def _kinds(stream: SplitStream, assignment: Assignment) -> tuple[str, ...]:
    """In which ways the elements may come: see `Layout`. The first one is for batches."""
    if assignment.trial > 1 or assignment.bad:
        return ("single",)
    if all(spec.static_shape is not None for spec in stream.components):
        return ("stacked",)
    return ("ragged", "collected") if ragged.batches_of(stream.components) else ("collected",)


def _layout(kinds: tuple[str, ...], stream: SplitStream, rate: Rate) -> Layout:
    """How a run that begins takes its elements."""
    if kinds[0] not in ("stacked", "ragged"):
        return Layout(kinds[0])
    size = rate.batch_size(stream.fixed_element_bytes)
    # A batch of one varying element would only be a copy.
    return Layout(kinds[-1] if size == 1 else kinds[0], size)


def _chunks(
    source: Elements, stream: SplitStream, rate: Rate, start: int, bad: Collection[int]
) -> Iterator[Chunk]:
    """Chunks from element `start` on. At each, the source has yielded no element beyond it."""
    if source.layout.kind == "single":
        return _single(source, stream, start, frozenset(bad))
    if source.layout.kind == "stacked":
        return _stacked(source, rate, start)
    if source.layout.kind == "ragged":
        return _ragged(source, stream, rate, start)
    return _collected(source, stream, rate, start)


def _array(tensor: Any) -> NDArray[Any]:
    """The tensor's own memory where TensorFlow lends it; strings are objects."""
    try:
        return np.asarray(tensor)
    except ValueError:  # a scalar of ml_dtypes is no array to TensorFlow
        return np.asarray(tensor.numpy())


def _single(
    source: Elements, stream: SplitStream, start: int, bad: Collection[int]
) -> Iterator[Chunk]:
    """One element a chunk: slow, and exact about errors.

    Raises:
        _BadElementError: an element raised that is not to be left out.
    """
    elements = iter(source)
    index = number = start  # a run that leaves elements out begins at the first one
    while True:
        try:
            element = next(elements)
        except StopIteration:
            return
        except Exception as error:
            if number not in bad:
                if _is_of_element(error):
                    raise _BadElementError(number, error) from error
                raise
        else:
            if number not in bad:
                arrays = tuple(map(_array, element))
                yield Chunk.from_elements(index, [arrays], stream.components)
                index += 1
        number += 1


def _is_of_element(error: Exception) -> bool:
    """Whether an error may be an element's own, and not of the machine or the moment."""
    moment = (
        *(tf.errors.ResourceExhaustedError, tf.errors.UnavailableError),
        *(tf.errors.CancelledError, tf.errors.AbortedError, tf.errors.DeadlineExceededError),
    )
    return isinstance(error, tf.errors.OpError) and not isinstance(error, moment)


def _stacked(source: Elements, rate: Rate, start: int) -> Iterator[Chunk]:
    """Batches made by tf.data, several in a chunk while they are small."""
    parts: list[Arrays] = []
    meter = Meter(rate)
    for batch in source:
        arrays = tuple(map(_array, batch))
        if not source.batched:
            arrays = tuple(array[np.newaxis] for array in arrays)
        parts.append(arrays)
        meter.add(len(arrays[0]), sum(map(_size, arrays)))
        if meter.full:
            meter.flush()
            chunk = Chunk.from_batches(start, parts)
            parts, start = [], chunk.stop
            yield chunk
            meter.restart()  # waiting for space is not the pipeline's time
    if parts:
        meter.flush()
        yield Chunk.from_batches(start, parts)


def _ragged(source: Elements, stream: SplitStream, rate: Rate, start: int) -> Iterator[Chunk]:
    """Batches of elements of varying shapes, joined while they are too small."""
    specs = stream.components
    parts: list[Arrays] = []
    meter = Meter(rate)
    for batch in source:
        arrays = ragged.arrays_of(batch, specs)
        parts.append(arrays)
        meter.add(ragged.count_of(arrays, specs), sum(map(_size, arrays)))
        if meter.full:
            meter.flush()
            chunk = Chunk.from_columns(start, ragged.columns_of(parts, specs))
            parts, start = [], chunk.stop
            yield chunk
            meter.restart()
    if parts:
        meter.flush()
        yield Chunk.from_columns(start, ragged.columns_of(parts, specs))


def _collected(source: Elements, stream: SplitStream, rate: Rate, start: int) -> Iterator[Chunk]:
    """Elements of varying shapes, gathered one by one."""
    elements: list[Arrays] = []
    meter = Meter(rate)
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


def _size(array: NDArray[Any]) -> int:
    if array.dtype != object:
        return array.nbytes
    return sum(map(len, array.ravel()))


def _explain(stream: SplitStream, assignment: Assignment, which: str, error: Exception) -> str:
    """What went wrong, where, in what: for the one who has to find the bad record."""
    where = f"split {assignment.split}"
    try:
        source = stream.describe_split(assignment.split)
        where += f" ({source[:_SOURCE_MAX]}{'…' if len(source) > _SOURCE_MAX else ''})"
    except Exception as second:  # the description must not hide the error
        where += f" (not described: {second})"
    nodes = _NODE.findall(str(error))
    message = _NODE_PREFIX.sub("", str(error)).strip().splitlines() or [""]
    op = f" [op {nodes[-1]}]" if nodes else ""
    detail = f"{where}, {which}: {type(error).__name__}: {message[0]}{op}"
    return detail.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore")
