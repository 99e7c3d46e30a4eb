"""Iterators that are used for split after split of a stream: what one costs to make is paid once.

A run takes one that is idle and feeds it its split (`graph.fed`). When the mark comes that follows
the last element, the iterator is idle again. One whose run was stopped or failed is let go: nobody
knows where in a split it is. A run that finds none goes without, and one is made for others when
it is over: nobody waits for it then.
"""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..graph.fed import Batching
from . import ragged
from .iterators import (
    IGNORE,
    FlatElements,
    Source,
    StateError,
    capture,
    is_batched,
    options,
    restore,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..graph.fed import FedStream
    from ..graph.loaded import LoadedStream
    from .checkpoint_file import Layout
    from .iterators import Elements
    from .messages import Assignment

logger = logging.getLogger(__name__)

#: `Layout.via` of what came from a fed iterator.
FED = "fed"
#: A stream's first splits are not fed. A fed iterator takes two or three times as long to make as
#: one for a split alone, and nobody knows how many splits will come: after so many, what it would
#: have saved is about what the iterators for 16 splits at a time cost.
_ALONE = 32
#: How many runs that are over make an iterator or wait to do so, one after the other: at the end of
#: an epoch many are over at once, and the next one begins.
_MAKERS_MAX = 4
#: What TensorFlow raises where it cannot make something of a graph, in Python (where ops are made
#: part of a function) or in its own code. Nothing of the user's runs there: errors of a pipeline
#: come with its elements, and are not among these.
_REFUSALS = (ValueError, TypeError, NotImplementedError, tf.errors.OpError)
_NOT_FED = "a stream is not fed, its splits have iterators of their own: %s"
#: The kinds of layouts that can be fed.
KINDS = ("stacked", "ragged")

SINGLE = Batching("single", None)
STACKED = Batching("stacked", lambda dataset, size: dataset.batch(size))
RAGGED = Batching("ragged", ragged.batched)


@dataclass(frozen=True, slots=True)
class FedIterator:
    """An iterator and what it is fed through.

    Attributes:
        iterator: over a fed dataset.
        elements: what it gives.
        queue: of that dataset.
        batching: what it gives.
    """

    iterator: Any
    elements: FlatElements
    queue: Any
    batching: Batching


class IdleIterators:
    """The idle iterators of all streams, those that were used last kept. Thread-safe.

    Args:
        keep_max: how many; each holds some threads and what functions need.
    """

    def __init__(self, keep_max: int = 64) -> None:
        self._keep_max = keep_max
        self._lock = threading.Lock()
        self._idle: list[tuple[FedStream, FedIterator]] = []

    def take(self, stream: FedStream, batching: Batching) -> FedIterator | None:
        """An idle iterator of the stream, the one that was used last."""
        with self._lock:
            for at in reversed(range(len(self._idle))):
                owner, found = self._idle[at]
                if owner is stream and found.batching == batching:
                    del self._idle[at]
                    return found
        return None

    def give(self, stream: FedStream, iterator: FedIterator) -> FedIterator | None:
        """Keeps an iterator that waits to be fed; returns one that is too many, to be let go."""
        with self._lock:
            self._idle.append((stream, iterator))
            return self._idle.pop(0)[1] if len(self._idle) > self._keep_max else None


class FedSplits:
    """Makes the splits of one stream with fed iterators, if it can be fed. Thread-safe.

    Args:
        stream: of a worker.
        idle: of all streams.
    """

    def __init__(self, stream: LoadedStream, idle: IdleIterators) -> None:
        self.stream = stream
        self._idle = idle
        self._lock = threading.Lock()
        self._fed: FedStream | None = None
        self._known = False
        self._saveable = False
        self._alone = _ALONE
        self._making = threading.Lock()
        self._makers = threading.Semaphore(_MAKERS_MAX)

    def fed(self) -> FedStream | None:
        """The stream as one that can be fed; None if it cannot."""
        with self._lock:
            known, found = self._known, self._fed
            if not known:
                self._known = True
                try:
                    found = self._fed = self.stream.fed()
                except _REFUSALS as error:
                    logger.warning(_NOT_FED, error)
        return found

    def chosen(self) -> FedStream | None:
        """The same, for one more split: None also for a stream's first ones."""
        with self._lock:
            if self._alone > 0:
                self._alone -= 1
                return None
        return self.fed()

    def elements(
        self, fed: FedStream, assignment: Assignment, layout: Layout, *, fresh: bool
    ) -> FedElements | None:
        """The elements of a split.

        Args:
            fed: from `fed`.
            assignment: which split.
            layout: how they are wanted: one of `KINDS`.
            fresh: it can do without: None if no iterator is idle.

        Raises:
            StateError: TensorFlow refuses; no split of the stream will be fed any more.
        """
        batching, at = _batching(layout, fed.specs), assignment
        try:
            found = self._idle.take(fed, batching)
            if found is None and fresh:
                return None
            found = found or _new(fed, batching)
            values = fed.values(at.split, seed=at.seed, epoch=at.epoch, size=layout.size)
        except _REFUSALS as error:
            self._refuse(error)
            raise StateError(f"not fed: {error}") from error
        check = functools.partial(self._check, assignment, layout)
        return FedElements(fed, found, values, layout, self._idle, check)

    def prepare(self, layout: Layout) -> None:
        """Makes an iterator for a split to come, since one has missed it."""
        if not self._makers.acquire(blocking=False):
            return
        try:
            with self._making:
                fed = self.fed()
                if fed is not None:
                    self._idle.give(fed, _new(fed, _batching(layout, fed.specs)))
        except _REFUSALS as error:
            self._refuse(error)
        finally:
            self._makers.release()

    def _refuse(self, error: Exception) -> None:
        logger.warning(_NOT_FED, error)
        with self._lock:
            self._fed, self._known = None, True

    def _check(self, assignment: Assignment, layout: Layout) -> None:
        """Makes sure that the stream has no state outside its iterators.

        Raises:
            StateError: it has.
        """
        with self._lock:
            if not self._saveable:
                at = assignment
                dataset = self.stream.split_dataset(at.split, seed=at.seed, epoch=at.epoch)
                Source(dataset, layout).capture()
                self._saveable = True


@dataclass(slots=True)
class FedElements:
    """A split's elements from a fed iterator: see `iterators.Elements`."""

    _stream: FedStream
    _fed: FedIterator
    #: What it is to be fed; None once it was, or if it goes on from a state, which holds that.
    _values: list[Any] | None
    layout: Layout
    _idle: IdleIterators
    _check: Callable[[], None]
    over: bool = False
    #: Let go together with this: it may take seconds, and somebody waits for the split.
    _surplus: FedIterator | None = None

    @property
    def batched(self) -> bool:
        """What comes has a leading dimension."""
        return self._fed.batching is STACKED

    def __iter__(self) -> Iterator[Any]:
        """See `Elements`."""
        if self._values is not None:
            self._fed.queue.enqueue(self._values)
            self._values = None
        while not self.over:
            got = next(self._fed.elements)
            if not self._stream.is_mark(got, self._fed.batching):
                yield got
                continue
            self.over = True
            self._surplus = self._idle.give(self._stream, self._fed)

    def capture(self) -> bytes:
        """See `Elements`."""
        assert not self.over
        self._check()
        # The queue is a state outside of it, and what was taken from it is within.
        return capture(self._fed.iterator, IGNORE)

    def restore(self, state: bytes) -> None:
        """See `Elements`."""
        self._values = None
        restore(self._fed.iterator, state)


@dataclass(slots=True)
class Fed:
    """The elements come from the pipeline itself, by a fed iterator where that can be.

    See `pipeline.Origin`.
    """

    splits: FedSplits
    assignment: Assignment
    _missed: Layout | None = None

    def prepare(self) -> None:
        """The run is over: makes an iterator for others if it has missed one."""
        if self._missed is not None:
            self.splits.prepare(self._missed)

    def fits(self, via: str) -> bool:
        """Whether the run can go on from the state of an iterator of that way."""
        return not via or (via == FED and self.splits.fed() is not None)

    def elements(self, layout: Layout, *, fresh: bool) -> Elements:
        """The split's elements."""
        fed: FedStream | None = None
        if layout.via == FED:
            fed = self.splits.fed()
        elif fresh and layout.kind in KINDS:
            fed = self.splits.chosen()
        if fed is not None:
            try:
                made = self.splits.elements(
                    fed, self.assignment, replace(layout, via=FED), fresh=fresh
                )
                if made is not None:
                    return made
                self._missed = layout
            except StateError:
                if not fresh:
                    raise
        at = self.assignment
        dataset = self.splits.stream.split_dataset(at.split, seed=at.seed, epoch=at.epoch)
        return Source(dataset, layout)


def _batching(layout: Layout, specs: Any) -> Batching:
    if layout.kind == "ragged":
        return RAGGED
    return STACKED if is_batched(layout, specs) else SINGLE


def _new(fed: FedStream, batching: Batching) -> FedIterator:
    queue = fed.queue()
    bounds = options()
    # Nothing outside of the splits' own datasets could be optimised, and a prefetch would ask for
    # what follows the mark: it would wait for that while the state is saved.
    bounds.experimental_optimization.apply_default_optimizations = False
    bounds.experimental_optimization.inject_prefetch = False
    dataset = fed.dataset(queue, batching).with_options(bounds)
    iterator = iter(dataset)
    return FedIterator(iterator, FlatElements(iterator), queue, batching)
