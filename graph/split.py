"""Streams as bytes, and bytes as the datasets of their splits.

`encode` writes a part's template, the rows of its leaves and the split table into a blob that
means nothing to the dispatcher; `load_stream` reads it in another process. To make a split's
dataset is to fill the template's constants and hand the graph to TensorFlow: nothing is traced.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import tensorflow as tf

from ..errors import UsageError
from . import capture, seeds
from .ir import base_name
from .leaf import find_leaf, rows_proto
from .spec import components_of, fixed_bytes, flat_specs

if TYPE_CHECKING:
    from ..proto.spec import ComponentSpec
    from .ir import Graph
    from .template import SeedHole

_VERSION = 1
_SPLITS = 64
_SPLIT_MAX = 65536


@dataclass(frozen=True)
class SplitTable:
    """How the items of a stream's source are divided."""

    #: "one" (not divided), "index" or "files".
    mode: str
    #: Items of the source; 0 where it is not divided.
    items: int = 0
    #: Items in each split but the last.
    step: int = 1
    #: Splits are ranges of a permutation of the source.
    permute: bool = False
    #: That permutation is the same in every epoch.
    every_epoch_same: bool = False

    @property
    def count(self) -> int:
        """Number of splits, at least one."""
        return 1 if self.mode == "one" else max(1, -(-self.items // self.step))

    def bounds(self, split: int) -> tuple[int, int]:
        """First item of a split and the one after its last."""
        return split * self.step, min((split + 1) * self.step, self.items)


def split_step(items: int, align: int, *, files: bool) -> int:
    """Items in a split: a file, or about a 64th of an index source, in multiples of `align`."""
    base = 1 if files else min(max(-(-items // _SPLITS), 1), _SPLIT_MAX)
    return -(-base // align) * align


def encode(
    graph: Graph, spec: Any, leaves: list[str], table: SplitTable, holes: list[SeedHole]
) -> tuple[bytes, str]:
    """The blob and fingerprint of the stream whose template is `graph` (its leaves still whole)."""
    held = [_dig_leaf(graph, name, table.permute) for name in leaves]
    body = msgpack.packb(
        {
            "graph": graph.to_proto(graph.root).SerializeToString(deterministic=True),
            "spec": capture.encode_spec(flat_specs(spec)),
            "leaves": held,
            "table": [table.mode, table.items, table.step, table.permute, table.every_epoch_same],
            "seeds": [[h.function, *h.names, h.every_epoch_same] for h in holes],
        }
    )
    # Apart, so that the same pipeline has the same fingerprint with every TensorFlow.
    blob: bytes = msgpack.packb({"version": _VERSION, "tensorflow": tf.__version__, "body": body})
    return blob, hashlib.blake2b(body, digest_size=16).hexdigest()


def _dig_leaf(graph: Graph, name: str, permute: bool) -> dict[str, Any]:
    """Takes a leaf's rows out of the graph, leaving empty constants of the right dtype."""
    leaf = find_leaf(graph, name)
    assert leaf is not None
    node = graph.nodes[name]
    if leaf.bounds is not None:
        dtype = node.attr["output_types"].list.type[0]
        names = [f"{name}/{argument}" for argument in ("start", "stop", "step")]
        if permute:
            names = [f"{name}/values"]
            _hole(graph, names[0], dtype)
            slices = graph.add(name, "TensorSliceDataset", names)
            slices.attr["Toutput_types"].list.type.append(dtype)
            slices.attr["output_shapes"].CopyFrom(node.attr["output_shapes"])
        else:
            for argument, const in zip(("start", "stop", "step"), names, strict=True):
                _hole(graph, const, tf.int64.as_datatype_enum)
                graph.set_argument(name, argument, const)
        return {"names": names, "range": list(leaf.bounds), "dtype": dtype, "rows": []}
    names = []
    rows = []
    for k, position in enumerate(leaf.rows):
        held = graph.nodes[base_name(node.input[position])]
        dtype = held.attr["dtype"].type
        names.append(f"{name}/rows_{k}")
        _hole(graph, names[-1], dtype)
        node.input[position] = names[-1]
        rows.append([dtype, held.attr["value"].tensor.SerializeToString(deterministic=True)])
    return {"names": names, "range": None, "dtype": 0, "rows": rows}


def _hole(graph: Graph, name: str, dtype: int) -> None:
    graph.add(name, "Const").attr["dtype"].type = dtype


@dataclass(frozen=True)
class _LeafRows:
    names: tuple[str, ...]
    range: tuple[int, int, int] | None
    dtype: int
    tensors: tuple[Any, ...]


class LoadedStream:
    """A stream in a worker: makes the dataset of any of its splits. Thread-safe."""

    def __init__(self, content: dict[str, Any]) -> None:
        """From an unpacked blob; use `load_stream`."""
        self._lock = threading.Lock()
        self._graph = capture.graph_pb2.GraphDef.FromString(content["graph"])
        self._spec = capture.decode_spec(content["spec"])
        self._table = SplitTable(*content["table"])
        self._leaves = [
            _LeafRows(
                tuple(leaf["names"]),
                tuple(leaf["range"]) if leaf["range"] else None,
                leaf["dtype"],
                tuple(tf.io.parse_tensor(data, tf.as_dtype(dtype)) for dtype, data in leaf["rows"]),
            )
            for leaf in content["leaves"]
        ]
        nodes = {("", n.name): n for n in self._graph.node}
        functions = {row[0] for row in content["seeds"]}
        for body in self._graph.library.function:
            if body.signature.name in functions:
                nodes.update({(body.signature.name, n.name): n for n in body.node_def})
        self._holes = [
            (nodes[function, first], nodes[function, second], same)
            for function, first, second, same in content["seeds"]
        ]
        self._constants = {name: nodes["", name] for leaf in self._leaves for name in leaf.names}

    @property
    def num_splits(self) -> int:
        """How many splits the stream has."""
        return self._table.count

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The flat dense components of an element."""
        return components_of(self._spec)

    @property
    def fixed_element_bytes(self) -> int | None:
        """The size of every element, where dtypes and shapes fix it."""
        return fixed_bytes(self._spec)

    def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
        """The elements of one split, as flat tuples of dense tensors, in their one order."""
        self._check(split)
        with self._lock:
            for k, (first, second, same) in enumerate(self._holes):
                values = seeds.derive("op", seed, 0 if same else epoch, split, k)
                for node, value in zip((first, second), values, strict=True):
                    node.attr["value"].tensor.int64_val[:] = [value]
            if self._table.mode != "one":
                self._fill_rows(split, seed, epoch)
            graph = self._graph.SerializeToString()
        return capture.dataset_from_graph(graph, self._spec)

    def _fill_rows(self, split: int, seed: int, epoch: int) -> None:
        table = self._table
        start, stop = table.bounds(split)
        chosen: Any = range(start, stop)
        if table.permute:
            of_epoch = 0 if table.every_epoch_same else epoch
            chosen = seeds.permuted(table.items, start, stop, seed, of_epoch)
        for leaf in self._leaves:
            if leaf.range is not None and not table.permute:
                kept = range(*leaf.range)[start:stop]
                for name, value in zip(leaf.names, (kept.start, kept.stop, kept.step), strict=True):
                    self._fill(name, tf.constant(value, tf.int64))
            elif leaf.range is not None:
                first, _, step = leaf.range
                dtype = tf.as_dtype(leaf.dtype)
                self._fill(leaf.names[0], tf.cast(tf.constant(first + step * chosen), dtype))
            else:
                for name, tensor in zip(leaf.names, leaf.tensors, strict=True):
                    part = tensor[start:stop] if not table.permute else None
                    data = (
                        rows_proto(tensor, chosen)
                        if part is None
                        else tf.io.serialize_tensor(part).numpy()
                    )
                    self._constants[name].attr["value"].tensor.ParseFromString(data)

    def _fill(self, name: str, value: Any) -> None:
        data = tf.io.serialize_tensor(value).numpy()
        self._constants[name].attr["value"].tensor.ParseFromString(data)

    def describe_split(self, split: int) -> str:
        """What a split reads, for messages: file names, or a range of the source."""
        self._check(split)
        table = self._table
        if table.mode == "one":
            return "the whole source"
        start, stop = table.bounds(split)
        if table.mode == "files":
            for leaf in self._leaves:
                for tensor in leaf.tensors:
                    if tensor.dtype == tf.string and tensor.shape.rank == 1:
                        names = tensor[start:stop].numpy()
                        return ", ".join(name.decode(errors="replace") for name in names)
        what = "positions of the permuted source" if table.permute else "elements of the source"
        return f"{what} [{start}, {stop})"

    def _check(self, split: int) -> None:
        if not 0 <= split < self.num_splits:
            raise UsageError(f"split {split} does not exist: the stream has {self.num_splits}")


def load_stream(blob: bytes) -> LoadedStream:
    """Reads the blob of a stream.

    Raises:
        UsageError: the blob is of another version of the format, or is not one at all.
    """
    try:
        envelope = msgpack.unpackb(blob)
        version, body = envelope["version"], envelope.get("body", b"")
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise UsageError(f"not the blob of a stream: {error}") from error
    if version != _VERSION:
        raise UsageError(f"the stream's blob is of version {version}, this is {_VERSION}")
    return LoadedStream(msgpack.unpackb(body))
