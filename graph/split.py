"""How streams are divided into splits, and how they are written as bytes.

`encode` writes a part's template, the rows of its leaves and the split table into a blob that
means nothing to the dispatcher; `loaded` reads it in another process. A stream with a cache point
is two templates, a head and a tail, so that what is cached is named by the head alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import tensorflow as tf

from ..errors import UsageError
from . import capture, seeds
from .ir import base_name
from .leaf import find_leaf
from .spec import flat_specs

if TYPE_CHECKING:
    from .ir import Graph
    from .template import Template

#: Of the blob's format.
VERSION = 3
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
    #: It is the same in every job, too: that of seed 0 and epoch 0.
    frozen: bool = False

    @property
    def count(self) -> int:
        """Number of splits, at least one."""
        return 1 if self.mode == "one" else max(1, -(-self.items // self.step))

    def check(self, split: int) -> None:
        """Checks that there is such a split.

        Raises:
            UsageError: there is none.
        """
        if not 0 <= split < self.count:
            raise UsageError(f"split {split} does not exist: the stream has {self.count}")

    def bounds(self, split: int) -> tuple[int, int]:
        """First item of a split and the one after its last."""
        return split * self.step, min((split + 1) * self.step, self.items)

    def positions(self, split: int, seed: int, epoch: int) -> Any:
        """The items of a split, as positions in the source."""
        start, stop = self.bounds(split)
        if not self.permute:
            return range(start, stop)
        if self.frozen:
            seed = epoch = 0
        of_epoch = 0 if self.every_epoch_same else epoch
        return seeds.permuted(self.items, start, stop, seed, of_epoch)


def split_step(items: int, align: int, *, files: bool) -> int:
    """Items in a split: a file, or about a 64th of an index source, in multiples of `align`."""
    base = 1 if files else min(max(-(-items // _SPLITS), 1), _SPLIT_MAX)
    return -(-base // align) * align


@dataclass(frozen=True)
class Head:
    """The part of a stream at and below its cache point."""

    template: Template
    #: Of its elements; flat, if they can be cached.
    spec: Any
    #: Nothing follows the cache point.
    whole: bool
    #: Its elements can be cached; otherwise it is apart only to be the same in every epoch, and
    #: what its elements are does not matter.
    cached: bool


@dataclass(frozen=True)
class Encoded:
    """A stream as bytes."""

    blob: bytes
    fingerprint: str
    #: Names what its head makes; empty if that is not cached.
    key: str


def encode(template: Template, spec: Any, table: SplitTable, head: Head | None = None) -> Encoded:
    """The blob of a stream.

    Args:
        template: the stream's graph, or its tail; its leaves are still whole.
        spec: of the stream's elements.
        table: how the source is divided.
        head: what the template is the tail of, if the stream has a cache point.
    """
    content = _content(template, spec, table)
    key = ""
    if head is not None:
        below = _content(head.template, head.spec, table, retval=False)
        content["head"] = {**below, "whole": head.whole}
        if head.cached:
            # TensorFlow's version counts here: what another one makes may differ in the last bit.
            key = _digest(msgpack.packb([tf.__version__, below]))
    body = msgpack.packb(content)
    # Apart, so that the same pipeline has the same fingerprint with every TensorFlow.
    envelope = {"version": VERSION, "tensorflow": tf.__version__, "cache_key": key, "body": body}
    return Encoded(msgpack.packb(envelope), _digest(body), key)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _content(
    template: Template, spec: Any, table: SplitTable, *, retval: bool = True
) -> dict[str, Any]:
    graph = template.graph
    held = [_dig_leaf(graph, name, table.permute) for name in template.leaves]
    proto = graph.to_proto(graph.root, retval=retval)
    keys = [[hole.function, hole.name, hole.shared] for hole in template.keys]
    return {
        "graph": proto.SerializeToString(deterministic=True),
        "spec": capture.encode_spec(flat_specs(spec)),
        "leaves": held,
        "table": [table.mode, table.items, table.step, table.permute, table.every_epoch_same],
        "seeds": [[h.function, *h.names, h.every_epoch_same] for h in template.holes],
        **({"keys": keys} if keys else {}),
    }


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
