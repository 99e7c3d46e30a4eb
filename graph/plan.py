"""The plan of a dataset: its streams, and how the client makes the user's dataset of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import UsageError
from . import suffix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.spec import ComponentSpec
    from .ir import Graph


@dataclass(frozen=True)
class Note:
    """One line of explanation."""

    #: "worker", "client", "split", "cache", "move", "order", "random" or "replay".
    kind: str
    #: The op or function it is about.
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"


@dataclass(frozen=True)
class CachePoint:
    """Where workers may cache what a stream makes: the head of its pipeline ends here."""

    #: Names what the head makes: the same for every stream with that head, in any process.
    key: str
    #: In words.
    where: str
    #: Nothing follows it: the stream's own elements are what is cached.
    whole: bool
    #: The user marked it.
    marked: bool


@dataclass(frozen=True)
class Stream:
    """A part of the pipeline that workers run, split by split."""

    #: The same for the same pipeline, in any process.
    fingerprint: str
    #: What a worker needs (see `load_stream`); opaque to everything else.
    blob: bytes = field(repr=False)
    num_splits: int
    #: Relative sizes of the splits, None if they are equal or not known.
    weights: tuple[int, ...] | None
    #: The flat dense components of an element.
    components: tuple[ComponentSpec, ...]
    #: A split run again gives the same bytes.
    replayable: bool
    #: The user shuffles it: splits may be dealt in any order, even in an ordered plan.
    shuffled: bool
    #: Splits are ranges of a permutation of the source: neighbours are mixed in each of them.
    permuted: bool
    #: The user mixes elements of different splits: lanes take turns element by element.
    blended: bool
    #: What it reads, in words.
    source: str
    #: The ops that the workers run, in order, in words.
    steps: tuple[str, ...]
    #: None: nothing of it is cached.
    cache: CachePoint | None = None


@dataclass(frozen=True)
class Plan:
    """What runs where; made by `analyse`."""

    streams: tuple[Stream, ...]
    #: Splits of unshuffled streams must be delivered in source order, through one lane.
    ordered: bool
    lanes: int | None
    notes: tuple[Note, ...]
    element_spec: Any
    #: As tf.data counts: -1 infinite, -2 unknown.
    cardinality: int
    #: Of the whole pipeline, the client's part included.
    fingerprint: str
    #: `apply_suffix(chunked=True)` forms the user's batches from chunks, never single elements.
    rebatch: bool
    #: What the client runs, if it only makes batches.
    final_batch: suffix.FinalBatch | None
    #: The ops that the client runs, in order, in words.
    client_steps: tuple[str, ...]
    _graph: Graph = field(repr=False, compare=False)
    _ends: tuple[str, ...] = field(repr=False, compare=False)
    #: Owns the functions and state that the client's part uses.
    _dataset: Any = field(repr=False, compare=False)

    def stream_spec(self, stream: int) -> Any:
        """The spec of a stream's elements, before they were made flat."""
        return self._graph.spec(self._ends[stream])

    def apply_suffix(
        self,
        datasets: Sequence[Any],
        *,
        chunked: bool = False,
        seed: int | None = None,
        epoch: int = 0,
        assert_cardinality: bool = True,
    ) -> Any:
        """The user's dataset, from one dataset per stream.

        Args:
            datasets: each yields its stream's flat dense components as a tuple, or its elements.
                A repeat in the pipeline iterates them again: each iteration is the next epoch.
            chunked: each yields *chunks*, with a leading dimension (fixed-shape streams only).
            seed: gives the shuffles and unseeded random sources of the client's part seeds made
                from (seed, epoch), so that its order is reproducible.
            epoch: see `seed`; the epoch that the first iteration of the result is.
            assert_cardinality: declare and check the number of elements, where it is known
                (not for a consumer that gets only some of the lanes).
        """
        if len(datasets) != len(self.streams):
            raise UsageError(
                f"the plan has {len(self.streams)} streams, {len(datasets)} datasets were given"
            )
        key = None if seed is None else (seed, epoch)
        result = suffix.apply(
            self._graph, list(self._ends), datasets, self.element_spec, chunked=chunked, key=key
        )
        kept = getattr(result, "_penstock_keep", None)
        result = result.with_options(self._dataset.options())
        if assert_cardinality and self.cardinality != tf.data.UNKNOWN_CARDINALITY:
            result = result.apply(tf.data.experimental.assert_cardinality(self.cardinality))
        result._penstock_keep = (kept, self)
        return result
