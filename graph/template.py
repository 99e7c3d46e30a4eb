"""The worker's graph: a part made deterministic, with holes for a split's rows and its seeds.

Ops get the seeds of the split whatever the user gave them, parallel ops keep their order, and
functions and resources get names that do not depend on what else the process has built.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .functions import bodies, function_names, plain_name
from .ir import CYCLE_LENGTH, Graph, base_name
from .ops import canonical, is_dataset_op
from .spec import flatten_element, is_dense

if TYPE_CHECKING:
    from .cut import Part

_SEEDED = ("ShuffleDataset", "ShuffleDatasetV2", "ShuffleDatasetV3", "GlobalShuffleDataset")
_RANDOM = ("RandomDataset", "RandomDatasetV2", "SamplingDataset")


@dataclass(frozen=True)
class SeedHole:
    """Two Const nodes to be filled with the seeds of a split."""

    #: The library function that holds them; empty for the graph itself.
    function: str
    names: tuple[str, str]
    #: The op keeps its order from epoch to epoch (reshuffle_each_iteration=False).
    every_epoch_same: bool


def part_graph(graph: Graph, part: Part, spec: Any) -> Graph:
    """The part alone, yielding flat dense components, its parallel ops made deterministic."""
    alone = Graph(graph.to_proto(part.root, retval=False), part.root, {})
    for name in list(alone.datasets()):
        if alone.op_class(name).dropped:
            alone.bypass(name)
    harden(alone)
    if not is_dense(spec):
        _append_flatten(alone, spec)
    _append_options(alone)
    return alone


def harden(graph: Graph) -> None:
    """Makes every dataset op, those inside functions too, independent of timing and cores."""
    for node in list(graph.nodes.values()):
        _harden_node(node)
        if _has_cycle(graph, node.name):
            graph.pin_cycle(node.name)
        if "sloppy" in (graph.arguments(node.name) if is_dataset_op(node.op) else ()):
            off = graph.add_const(f"{node.name}/sloppy", False, tf.bool)
            graph.set_argument(node.name, "sloppy", off)
    for body in graph.library.function:
        constants = {n.name: n for n in body.node_def if n.op == "Const"}
        for node in list(body.node_def):
            _harden_node(node)
            position = _position(node, "cycle_length")
            held = constants.get(base_name(node.input[position])) if position is not None else None
            if held is not None and _scalar(held) == -1:
                _add_const(body, f"{node.name}_cycle_length", CYCLE_LENGTH)
                node.input[position] = f"{node.name}_cycle_length:output:0"


def _harden_node(node: Any) -> None:
    if not is_dataset_op(node.op):
        return
    if "deterministic" in node.attr and node.attr["deterministic"].HasField("s"):
        node.attr["deterministic"].s = b"true"
    if "sloppy" in node.attr:
        node.attr["sloppy"].b = False


def _has_cycle(graph: Graph, name: str) -> bool:
    return "Interleave" in graph.nodes[name].op and graph.int_const(name, "cycle_length") == -1


def _scalar(node: Any) -> int:
    return int(tf.make_ndarray(node.attr["value"].tensor).reshape(()))


def _position(node: Any, argument: str) -> int | None:
    """The place of an argument among a function node's inputs, for dataset ops."""
    if not is_dataset_op(node.op):
        return None
    found = Graph(_single(node), node.name, {}).arguments(node.name).get(argument)
    return found[0] if found else None


def _single(node: Any) -> Any:
    proto = capture.graph_pb2.GraphDef()
    proto.node.add().CopyFrom(node)
    return proto


def _append_flatten(graph: Graph, spec: Any) -> None:
    """Adds the map that expands ragged and sparse elements to dense components."""
    # Only the map's node and function are kept, so what it stands on does not matter.
    stand_in = capture.variant_dataset(capture.variant_of(tf.data.Dataset.range(0)), spec)

    def flatten(*element: Any) -> tuple[Any, ...]:
        whole = element if isinstance(spec, tuple) and type(spec) is tuple else element[0]
        return flatten_element(spec, whole)

    made = capture.graph_of(stand_in.map(flatten))
    (node,) = (n for n in made.node if n.op == "MapDataset")
    kept = graph.add("penstock/flatten", "MapDataset", [graph.root])
    for key, value in node.attr.items():
        kept.attr[key].CopyFrom(value)
    known = set(graph.functions)
    for function in made.library.function:
        if function.signature.name not in known:
            graph.library.function.add().CopyFrom(function)
    graph.functions = {f.signature.name: f for f in graph.library.function}
    graph.root = kept.name


def _append_options(graph: Graph) -> None:
    """Declares the whole deterministic; other options are the worker's own affair."""
    root = graph.nodes[graph.root]
    node = graph.add("penstock/options", "OptionsDataset", [graph.root])
    options = capture.options_pb2.Options()
    options.deterministic = True
    node.attr["serialized_options"].s = options.SerializeToString()
    types = root.attr["output_types" if "output_types" in root.attr else "Toutput_types"]
    node.attr["output_types"].CopyFrom(types)
    node.attr["output_shapes"].CopyFrom(root.attr["output_shapes"])
    graph.root = node.name


def add_seed_holes(graph: Graph, *, reshuffle: bool = False) -> list[SeedHole]:
    """Rewires the seeds of every shuffle (and unseeded random source) to constants to be filled.

    `reshuffle`: keep reshuffle_each_iteration as it is, for datasets that are iterated once an
    epoch; otherwise every iteration of the dataset is the same.
    """
    holes: list[SeedHole] = []
    for node in list(graph.nodes.values()):
        if canonical(node.op) not in _SEEDED + _RANDOM:
            continue
        if "penstock/generator" not in graph.nodes:
            graph.add("penstock/generator", "DummySeedGenerator")
        generator = "penstock/generator"
        same = _reshuffles(node) is False
        if not _wants_seeds(node, graph.nodes):
            _connect(node, None, generator)
            continue
        names = (f"penstock/seed_{len(holes)}", f"penstock/seed2_{len(holes)}")
        for name in names:
            graph.add_const(name, 0, tf.int64)
        _connect(node, names, generator)
        if not reshuffle and _reshuffles(node):
            node.attr["reshuffle_each_iteration"].b = False
        holes.append(SeedHole("", names, same))
    used = [f for n in graph.nodes.values() for f in function_names(n)]
    for body in list(bodies(graph, used)):
        _add_inner_holes(body, holes)
    return holes


def _add_inner_holes(body: Any, holes: list[SeedHole]) -> None:
    """The same for a function: its datasets are made anew at every call."""
    nodes = {n.name: n for n in body.node_def}
    for node in list(nodes.values()):
        if canonical(node.op) not in _SEEDED + _RANDOM or not _wants_seeds(node, nodes):
            continue
        k = len(holes)
        names = (f"penstock_seed_{k}", f"penstock_seed2_{k}")
        for name in names:
            _add_const(body, name, 0)
        body.node_def.add(name=f"penstock_generator_{k}", op="DummySeedGenerator")
        refs = (f"{names[0]}:output:0", f"{names[1]}:output:0")
        same = _reshuffles(node) is False
        _connect(node, refs, f"penstock_generator_{k}:handle:0")
        holes.append(SeedHole(body.signature.name, names, same))


def _reshuffles(node: Any) -> bool | None:
    flag = "reshuffle_each_iteration"
    return node.attr[flag].b if flag in node.attr else None


def _wants_seeds(node: Any, nodes: dict[str, Any]) -> bool:
    """Shuffles always do; random sources where the user gave none."""
    if canonical(node.op) in _SEEDED:
        return True
    first = _position(node, "seed")
    assert first is not None
    held = [nodes.get(base_name(tensor)) for tensor in node.input[first : first + 2]]
    return all(n is not None and n.op == "Const" and _scalar(n) == 0 for n in held)


def _connect(node: Any, seeds: tuple[str, str] | None, generator: str) -> None:
    """Sets a node's seed inputs (None: leaves them) and gives it a generator of its own."""
    if canonical(node.op) == "ShuffleDatasetV2":
        node.op = "ShuffleDatasetV3"
        node.input.extend([generator] * 2)
        node.attr["reshuffle_each_iteration"].b = True
    inputs = list(node.input)
    first, last = _position(node, "seed"), _position(node, "seed_generator")
    assert first is not None
    if seeds is not None:
        inputs[first : first + 2] = seeds
    if last is not None:
        inputs[last] = generator
    del node.input[:]
    node.input.extend(inputs)


def _add_const(body: Any, name: str, value: int) -> None:
    node = body.node_def.add(name=name, op="Const")
    node.attr["dtype"].type = tf.int64.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int64))


def canonicalise(graph: Graph, ending: str = "") -> dict[str, str]:
    """Drops unused functions, renames the others by first use, clears volatile attributes.

    Returns new function names by old ones; each gets `ending`.
    """
    used = [f for n in graph.reachable(graph.root) for f in function_names(graph.nodes[n])]
    kept = list(bodies(graph, used))
    names = {
        body.signature.name: f"{plain_name(body.signature.name)}_{k}{ending}"
        for k, body in enumerate(kept)
    }
    for body in kept:
        body.attr.pop("_original_func_name", None)
        body.signature.name = names[body.signature.name]
    every = [*graph.nodes.values(), *(n for body in kept for n in body.node_def)]
    for node in every:
        for attribute in node.attr.values():
            for func in [attribute.func] if attribute.HasField("func") else attribute.list.func:
                func.name = names.get(func.name, func.name)
        if "metadata" in node.attr:
            node.attr["metadata"].s = b""
        node.ClearField("experimental_debug_info")
        node.ClearField("device")
    library = capture.graph_pb2.GraphDef().library
    for body in kept:
        library.function.add().CopyFrom(body)
    graph.library = library
    graph.functions = {f.signature.name: f for f in library.function}
    return names


def name_resources(graph: Graph) -> None:
    """Gives captured tables and variables names made from their content.

    They live in the process's resource manager: two pipelines must not share one by accident, and
    a worker inside the trainer's process must not overwrite the trainer's own variable.
    """
    tables = [n.name for n in graph.nodes.values() if "HashTable" in n.op]
    variables = [n.name for n in graph.nodes.values() if n.op == "VarHandleOp"]
    if not tables and not variables:
        return
    for k, name in enumerate(variables):
        graph.nodes[name].attr["shared_name"].s = b"variable_%d" % k
    for k, name in enumerate(tables):
        rename(graph, name, f"table_{k}")
    content = hashlib.blake2b(graph_bytes(graph), digest_size=12).hexdigest()
    for k, name in enumerate(variables):
        graph.nodes[name].attr["shared_name"].s = f"penstock/{content}/variable_{k}".encode()
    for k in range(len(tables)):
        rename(graph, f"table_{k}", f"penstock/{content}/table_{k}")


def rename(graph: Graph, old: str, new: str) -> None:
    """Renames a node."""
    graph.replace_uses(old, new)
    node = graph.nodes.pop(old)
    node.name = new
    graph.nodes[new] = node


def graph_bytes(graph: Graph) -> bytes:
    """The graph in a form that is the same for the same graph."""
    data: bytes = graph.to_proto(graph.root).SerializeToString(deterministic=True)
    return data
