"""The client's part of a pipeline: the rest of the graph, re-applied to what the service delivers.

The captured tables and variables of the suffix travel in its graph as they were at registration;
Python functions in it (py_function) run, since this is the process that made them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture, seeds
from .ops import is_dataset_op
from .spec import flat_specs, is_dense, pack_element, unbatched
from .template import add_seed_holes, canonicalise, graph_bytes, harden, name_resources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ir import Graph

#: Resource arguments, and the op that tells a dataset to make its own.
_OWNED = {"cache": "DummyMemoryCache", "seed_generator": "DummySeedGenerator"}
#: What may stand between a stream and the batch that `rebatch` replaces.
_IDLE = ("PrefetchDataset", "OptionsDataset")
_TRANSPARENT = (*_IDLE, "RepeatDataset")
_BATCHES = ("BatchDataset", "BatchDatasetV2", "ParallelBatchDataset")


@dataclass(frozen=True, slots=True)
class FinalBatch:
    """What the client's part of a pipeline is, if it only makes batches.

    Attributes:
        size: elements of a batch.
        drop_remainder: a last one that is smaller is left out.
    """

    size: int
    drop_remainder: bool


def rebatch_node(graph: Graph, ends: list[str]) -> str | None:
    """The batch that can be fed chunks instead of elements, if the suffix begins with one."""
    if len(ends) != 1:
        return None
    spec = graph.spec(ends[0])
    shapes_fixed = all(part.shape.is_fully_defined() for part in flat_specs(spec))
    if not is_dense(spec) or not shapes_fixed:
        return None
    consumers = graph.consumers()
    name = consumers.get(ends[0])
    while name is not None and graph.op(name) in _TRANSPARENT:
        name = consumers.get(name)
    return name if name is not None and graph.op(name) in _BATCHES else None


def final_batch(graph: Graph, ends: list[str]) -> FinalBatch | None:
    """The batch of `rebatch_node`, if the suffix is nothing else that changes its elements."""
    batch = rebatch_node(graph, ends)
    if batch is None:
        return None
    consumers = graph.consumers()
    name = consumers.get(ends[0])
    while name is not None:
        if name != batch and graph.op(name) not in _IDLE:
            return None
        name = consumers.get(name)
    size, drop_remainder = _batching(graph, batch)
    return None if size is None or size < 1 else FinalBatch(size, drop_remainder)


def apply(
    graph: Graph,
    ends: list[str],
    datasets: Sequence[Any],
    spec: Any,
    *,
    chunked: bool,
    key: tuple[int, int] | None,
) -> Any:
    """The user's dataset, made of one dataset of flat components per stream."""
    batch = rebatch_node(graph, ends) if chunked else None
    inputs = []
    for end, given in zip(ends, datasets, strict=True):
        dataset = unbatched(given) if chunked and batch is None else given
        inputs.append(capture.variant_of(_packed(dataset, graph.spec(end))))
    if graph.root in ends:
        return capture.variant_dataset(inputs[0], spec)
    suffix = graph.copy()
    for name in ends:
        # Below the streams is the workers' business: nothing there may be touched or named.
        suffix.nodes[name].ClearField("input")
        suffix.nodes[name].ClearField("attr")
        suffix.nodes[name].op = "Placeholder"
    suffix = _pruned(suffix)
    holes = add_seed_holes(suffix, reshuffle=True) if key is not None else []
    _own_resources(suffix)
    harden(suffix)
    if batch is not None:
        _rebatch(suffix, batch)
    names = canonicalise(suffix)
    name_resources(suffix)
    for k, hole in enumerate(holes):
        assert key is not None
        _fill(suffix, names.get(hole.function, ""), hole.names, (*key, k))
    # Eager TensorFlow has one name space for functions: the same name must mean the same body.
    content = hashlib.blake2b(graph_bytes(suffix), digest_size=8).hexdigest()
    canonicalise(suffix, f"_{content}")
    proto = suffix.to_proto(suffix.root, retval=False, stop=ends)
    function = capture.import_function(proto, ends, suffix.root)
    result = capture.variant_dataset(function(*inputs), spec)
    # The function owns the library that the dataset's functions are in.
    result._penstock_keep = (function, list(datasets))
    return result


def _pruned(graph: Graph) -> Graph:
    proto = graph.to_proto(graph.root, retval=False)
    return type(graph)(proto, graph.root, graph.specs)


def _packed(dataset: Any, spec: Any) -> Any:
    """A dataset of flat components, or elements, as one whose graph form is that of `spec`."""
    if is_dense(spec) or dataset.element_spec == spec:
        return dataset
    return dataset.map(lambda *flat: pack_element(spec, flat))


def _own_resources(graph: Graph) -> None:
    """Gives caches and shuffles state of their own instead of the original dataset's."""
    for node in list(graph.nodes.values()):
        op = graph.op(node.name)
        if not is_dataset_op(op):
            continue
        for argument, maker in _OWNED.items():
            if argument not in graph.arguments(node.name):
                continue
            made = f"{node.name}/{argument}"
            graph.add(made, maker)
            graph.set_argument(node.name, argument, made)


def _rebatch(graph: Graph, name: str) -> None:
    node = graph.nodes[name]
    size, drop = _batching(graph, name)
    sizes = graph.add_const(f"{name}/sizes", [size], tf.int64)
    flag = graph.add_const(f"{name}/drop", drop, tf.bool)
    made = graph.add(name, "RebatchDatasetV2", [node.input[0], sizes, flag])
    for attribute in ("output_types", "output_shapes"):
        made.attr[attribute].CopyFrom(node.attr[attribute])


def _batching(graph: Graph, name: str) -> tuple[int | None, bool]:
    """Elements of a batch if that is a constant; whether a smaller last one is left out."""
    drops = graph.op(name) != "BatchDataset" and bool(graph.const(name, "drop_remainder"))
    return graph.int_const(name, "batch_size"), drops


def _fill(graph: Graph, function: str, names: tuple[str, str], key: tuple[int, ...]) -> None:
    first, second = seeds.derive("suffix", *key)
    nodes = graph.nodes
    if function:
        nodes = {n.name: n for n in graph.functions[function].node_def}
    for name, value in zip(names, (first, second), strict=True):
        nodes[name].attr["value"].tensor.int64_val[:] = [value]
