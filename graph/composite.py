"""Ragged and sparse elements inside a graph: taken apart into dense components, put together again.

What is added are maps, traced here and spliced in, so that a worker traces nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .spec import flat_specs, flatten_element, pack_element

if TYPE_CHECKING:
    from .ir import Graph


def append_flatten(graph: Graph, spec: Any) -> None:
    """Adds the map that expands elements of `spec` to dense components, as the new root."""

    def flatten(*element: Any) -> tuple[Any, ...]:
        whole = element if isinstance(spec, tuple) and type(spec) is tuple else element[0]
        return flatten_element(spec, whole)

    _splice(graph, "penstock/flatten", graph.root, _stand_in(spec).map(flatten))
    graph.root = "penstock/flatten"


def insert_pack(graph: Graph, below: str, spec: Any) -> None:
    """Puts a map between a node, whose elements are flat, and its consumer, who expects `spec`."""

    def pack(*flat: Any) -> Any:
        return pack_element(spec, flat)

    _splice(graph, "penstock/pack", below, _stand_in(flat_specs(spec)).map(pack))
    graph.replace_uses(below, "penstock/pack")


def _stand_in(spec: Any) -> Any:
    """A dataset to trace a map on: only the map's node and function are kept."""
    return capture.variant_dataset(capture.variant_of(tf.data.Dataset.range(0)), spec)


def _splice(graph: Graph, name: str, below: str, mapped: Any) -> None:
    made = capture.graph_of(mapped)
    (node,) = (n for n in made.node if n.op == "MapDataset")
    kept = graph.add(name, "MapDataset", [below])
    for key, value in node.attr.items():
        kept.attr[key].CopyFrom(value)
    for function in made.library.function:
        if function.signature.name not in graph.functions:
            graph.library.function.add().CopyFrom(function)
    graph.functions = {f.signature.name: f for f in graph.library.function}
