"""A stream's graphs in a worker, with their holes: how a blob becomes the dataset of one split.

To make a split's dataset is to fill constants and hand the graph to TensorFlow: nothing is traced.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture, seeds
from .template import POINT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .split import SplitTable


@dataclass(frozen=True)
class _Rows:
    """What one leaf reads, in a graph that holds constants in its place."""

    names: tuple[str, ...]
    range: tuple[int, int, int] | None
    dtype: int
    tensors: tuple[Any, ...]

    def specs(self, *, permuted: bool) -> list[tuple[str, list[int | None], Any]]:
        """Name, shape and dtype of each constant."""
        if self.range is None:
            return [
                (name, [None, *tensor.shape[1:]], tensor.dtype)
                for name, tensor in zip(self.names, self.tensors, strict=True)
            ]
        if permuted:
            return [(self.names[0], [None], tf.as_dtype(self.dtype))]
        return [(name, [], tf.int64) for name in self.names]


@dataclass(frozen=True)
class _Hole:
    """Where an op's seeds belong."""

    function: str
    names: tuple[str, str]
    every_epoch_same: bool
    #: Of the stream's seeded ops.
    number: int
    #: The op is below the cache point: it has the same seeds in every job.
    frozen: bool

    def seeds(self, split: int, seed: int, epoch: int) -> tuple[int, int]:
        if self.frozen:
            seed = epoch = 0
        return seeds.derive("op", seed, 0 if self.every_epoch_same else epoch, split, self.number)


@dataclass(frozen=True)
class _Key:
    """Where a random op's own numbers belong: its seed is made of these and of the element's."""

    function: str
    name: str
    #: Of the stream's random ops, or what several of them have in common.
    op: tuple[int | str, ...]
    #: See `_Hole`.
    frozen: bool

    def seeds(self, split: int, seed: int, epoch: int) -> tuple[int, int]:
        if self.frozen:
            seed = epoch = 0
        return seeds.derive("draw", seed, epoch, split, *self.op)


@dataclass(frozen=True)
class Place:
    """A hole in a form: a constant of the graph, or of one of its functions."""

    function: str
    name: str
    #: Of what belongs there.
    spec: Any


@dataclass(frozen=True)
class Half:
    """The graph of a stream, of its head or of its tail, as it travels."""

    graph: Any
    spec: Any
    rows: tuple[_Rows, ...]
    holes: tuple[_Hole, ...]
    keys: tuple[_Key, ...]

    @classmethod
    def load(cls, content: dict[str, Any], *, head: Half | None = None) -> Half:
        """From the unpacked blob.

        Args:
            content: the blob's, of the half.
            head: the other half, if this is a tail: seeded ops are numbered on from there.
        """
        first, first_key = (len(head.holes), len(head.keys)) if head is not None else (0, 0)
        frozen = "whole" in content
        return cls(
            capture.graph_pb2.GraphDef.FromString(content["graph"]),
            capture.decode_spec(content["spec"]),
            tuple(
                _Rows(
                    tuple(leaf["names"]),
                    tuple(leaf["range"]) if leaf["range"] else None,
                    leaf["dtype"],
                    tuple(tf.io.parse_tensor(row, tf.as_dtype(t)) for t, row in leaf["rows"]),
                )
                for leaf in content["leaves"]
            ),
            tuple(
                _Hole(function, (one, two), same, number, frozen)
                for number, (function, one, two, same) in enumerate(content["seeds"], first)
            ),
            tuple(
                _Key(function, name, ("shared", *shared) if shared else (number,), frozen)
                for number, (function, name, shared) in enumerate(
                    content.get("keys", ()), first_key
                )
            ),
        )


def joined(head: Any, tail: Any) -> Any:
    """One graph of a tail and of what takes its head's place: a node named `POINT`."""
    graph = capture.graph_pb2.GraphDef()
    graph.CopyFrom(head)
    graph.node.extend(node for node in tail.node if node.name != POINT)
    graph.library.function.extend(tail.library.function)
    return graph


class Form:
    """A graph with holes: makes the dataset of any split. Thread-safe.

    Args:
        graph: whole, with a return value; taken over.
        halves: what the graph was made of; says what its holes are.
        table: how the source is divided.
    """

    def __init__(self, graph: Any, halves: Sequence[Half], table: SplitTable) -> None:
        self._lock = threading.Lock()
        self._graph = graph
        self._table = table
        self._rows = [rows for half in halves for rows in half.rows]
        nodes = {("", node.name): node for node in graph.node}
        functions = {hole.function for half in halves for hole in half.holes}
        functions.update(key.function for half in halves for key in half.keys)
        for body in graph.library.function:
            if body.signature.name in functions:
                nodes.update({(body.signature.name, node.name): node for node in body.node_def})
        self._holes = [
            (hole, [nodes[hole.function, name] for name in hole.names])
            for half in halves
            for hole in half.holes
        ]
        self._keys = [(key, nodes[key.function, key.name]) for half in halves for key in half.keys]
        self._constants = {name: node for (at, name), node in nodes.items() if not at}

    def dataset(
        self,
        spec: Any,
        split: int,
        *,
        seed: int,
        epoch: int,
        numbers: Mapping[str, int] | None = None,
    ) -> Any:
        """The dataset of a split.

        Args:
            spec: of its elements.
            split: which one.
            seed: of the job.
            epoch: of the job.
            numbers: values for further constants, by the names of their nodes.
        """
        with self._lock:
            for hole, nodes in self._holes:
                for node, value in zip(nodes, hole.seeds(split, seed, epoch), strict=True):
                    _set(node, value)
            for key, node in self._keys:
                _set(node, *key.seeds(split, seed, epoch))
            for name, value in (numbers or {}).items():
                _set(self._constants[name], value)
            self._fill_rows(split, seed, epoch)
            graph = self._graph.SerializeToString()
        return capture.dataset_from_graph(graph, spec)

    def values(self, split: int, *, seed: int, epoch: int) -> list[Any]:
        """What fills the holes of a split: a tensor for each of `places`, in their order.

        Raises:
            UsageError: there is no such split.
        """
        self._table.check(split)
        made = [
            tf.constant(value, tf.int64)
            for hole, _ in self._holes
            for value in hole.seeds(split, seed, epoch)
        ]
        made += [tf.constant(key.seeds(split, seed, epoch), tf.int64) for key, _ in self._keys]
        return made + [value for _, value in self._row_values(split, seed, epoch)]

    def places(self) -> list[Place]:
        """All holes, in the order of `values`."""
        made = [
            Place(hole.function, name, tf.TensorSpec([], tf.int64))
            for hole, _ in self._holes
            for name in hole.names
        ]
        made += [
            Place(key.function, key.name, tf.TensorSpec([2], tf.int64)) for key, _ in self._keys
        ]
        return made + [
            Place("", name, tf.TensorSpec(shape, dtype))
            for rows in self._rows
            for name, shape, dtype in rows.specs(permuted=self._table.permute)
        ]

    def unfilled(self) -> Any:
        """A copy of the graph; what is in its holes means nothing."""
        graph = capture.graph_pb2.GraphDef()
        with self._lock:
            graph.CopyFrom(self._graph)
        return graph

    def _fill_rows(self, split: int, seed: int, epoch: int) -> None:
        for name, value in self._row_values(split, seed, epoch):
            data = tf.io.serialize_tensor(value).numpy()
            self._constants[name].attr["value"].tensor.ParseFromString(data)

    def _row_values(self, split: int, seed: int, epoch: int) -> Iterator[tuple[str, Any]]:
        table = self._table
        if not self._rows:
            return
        start, stop = table.bounds(split)
        chosen = table.positions(split, seed, epoch)
        for rows in self._rows:
            if rows.range is not None and not table.permute:
                kept = range(*rows.range)[start:stop]
                for name, value in zip(rows.names, (kept.start, kept.stop, kept.step), strict=True):
                    yield name, tf.constant(value, tf.int64)
            elif rows.range is not None:
                first, _, step = rows.range
                dtype = tf.as_dtype(rows.dtype)
                yield rows.names[0], tf.cast(tf.constant(first + step * chosen), dtype)
            else:
                for name, tensor in zip(rows.names, rows.tensors, strict=True):
                    if table.permute:
                        yield name, tf.gather(tensor, tf.constant(chosen, tf.int64))
                    else:
                        yield name, tensor[start:stop]


def _set(node: Any, *values: int) -> None:
    node.attr["value"].tensor.int64_val[:] = values
