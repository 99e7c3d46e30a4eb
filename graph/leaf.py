"""Index leaves: sources whose elements are numbered, and so can be narrowed to any of them.

A leaf is a RangeDataset (its numbers are computed) or a source that slices constant tensors along
their first axis: TensorSliceDataset, and file readers by their list of names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .ir import base_name, tensor_of

if TYPE_CHECKING:
    from .ir import Graph

_ROWS_ARGUMENT = {"TensorSliceDataset": "components"}


@dataclass(frozen=True)
class Leaf:
    """A divisible source node of a graph."""

    name: str
    #: Number of elements (or of files, for a file reader).
    size: int
    #: For a range: first, last + 1 and step. None for constant tensors.
    bounds: tuple[int, int, int] | None
    #: Positions in the node's inputs of the constants that hold the rows.
    rows: tuple[int, ...]
    #: The rows are the names of files that this very node reads.
    reads: bool


def find_leaf(graph: Graph, name: str) -> Leaf | None:
    """The leaf at a node, if it is one (its inputs must be constants)."""
    node, op = graph.nodes[name], graph.op(name)
    if not graph.op_class(name).divisible:
        return None
    if op == "RangeDataset":
        start, stop, step = (graph.int_const(name, a) for a in ("start", "stop", "step"))
        if start is None or stop is None or not step:
            return None
        size = len(range(start, stop, step))
        return Leaf(name, size, (start, stop, step), (), reads=False)
    reads = op != "TensorSliceDataset"
    argument = "filenames" if reads else "components"
    rows = tuple(graph.arguments(name)[argument])
    inputs = [graph.nodes[base_name(node.input[i])] for i in rows]
    if any(n.op != "Const" for n in inputs) or not inputs:
        return None
    dims = [n.attr["value"].tensor.tensor_shape.dim for n in inputs]
    if not all(dims):  # a scalar file name is one unsplittable source
        return None
    return Leaf(name, int(dims[0][0].size), None, rows, reads)


def leaf_values(graph: Graph, leaf: Leaf) -> list[Any]:
    """The constant tensors that hold a leaf's rows."""
    node = graph.nodes[leaf.name]
    return [tensor_of(graph.nodes[base_name(node.input[i])]) for i in leaf.rows]


def narrow(graph: Graph, leaf: Leaf, keep: slice) -> None:
    """Leaves only the rows of `keep` in the graph."""
    node = graph.nodes[leaf.name]
    if leaf.bounds is not None:
        kept = range(*leaf.bounds)[keep]
        values = (kept.start, kept.stop, kept.step)
        for argument, value in zip(("start", "stop", "step"), values, strict=True):
            const = graph.add_const(_fresh(graph, leaf.name), value, tf.int64)
            graph.set_argument(leaf.name, argument, const)
        return
    for position, value in zip(leaf.rows, leaf_values(graph, leaf), strict=True):
        indices = np.arange(leaf.size)[keep]
        const = graph.add(_fresh(graph, leaf.name), "Const")
        const.attr["dtype"].type = value.dtype.as_datatype_enum
        const.attr["value"].tensor.ParseFromString(rows_proto(value, indices))
        node.input[position] = const.name


def rows_proto(value: Any, indices: Any) -> bytes:
    """The chosen rows of a tensor (of any dtype, variants too) as TensorProto bytes."""
    chosen = tf.gather(value, tf.constant(indices, tf.int64))
    data: bytes = tf.io.serialize_tensor(chosen).numpy()
    return data


def _fresh(graph: Graph, stem: str) -> str:
    return next(
        name for k in range(len(graph.nodes) + 1) if (name := f"{stem}/kept_{k}") not in graph.nodes
    )
