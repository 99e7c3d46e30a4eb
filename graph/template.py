"""The worker's graph: a part made deterministic, with holes for a split's rows and its seeds.

Ops get the seeds of the split whatever the user gave them, parallel ops keep their order, and
functions and resources get names that do not depend on what else the process has built.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .functions import bodies, findings, function_names, plain_name
from .ir import CYCLE_LENGTH, Graph, base_name
from .marks import is_mark
from .ops import canonical, is_dataset_op

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .keyed import KeyHole

_SEEDED = ("ShuffleDataset", "ShuffleDatasetV2", "ShuffleDatasetV3", "GlobalShuffleDataset")
_RANDOM = ("RandomDataset", "RandomDatasetV2", "SamplingDataset")

#: The node at a stream's cache point: the root of its head, and a placeholder in its tail.
POINT = "penstock/point"


@dataclass(frozen=True)
class SeedHole:
    """Two Const nodes to be filled with the seeds of a split."""

    #: The library function that holds them; empty for the graph itself.
    function: str
    names: tuple[str, str]
    #: The op keeps its order from epoch to epoch (reshuffle_each_iteration=False).
    every_epoch_same: bool


@dataclass(frozen=True)
class Template:
    """A graph with holes, and what is to be filled into them."""

    graph: Graph
    #: Names of the index leaves that splits narrow.
    leaves: tuple[str, ...]
    holes: tuple[SeedHole, ...]
    #: For the numbers of the ops inside functions that draw.
    keys: tuple[KeyHole, ...] = ()


def bare_part(graph: Graph, root: str) -> Graph:
    """The part below `root` alone, without what only configures it, made deterministic."""
    alone = Graph(graph.to_proto(root, retval=False), root, {})
    for name in list(alone.datasets()):
        if alone.op_class(name).dropped or is_mark(alone.nodes[name]):
            alone.bypass(name)
    harden(alone)
    return alone


def append_options(graph: Graph, like: Any = None) -> None:
    """Declares the whole deterministic; other options are the worker's own affair.

    `like`: a node that declares the types of the root's elements, if the root itself does not.
    """
    declared = graph.nodes[graph.root] if like is None else like
    node = graph.add("penstock/options", "OptionsDataset", [graph.root])
    options = capture.options_pb2.Options()
    options.deterministic = True
    node.attr["serialized_options"].s = options.SerializeToString()
    types = declared.attr["output_types" if "output_types" in declared.attr else "Toutput_types"]
    node.attr["output_types"].CopyFrom(types)
    node.attr["output_shapes"].CopyFrom(declared.attr["output_shapes"])
    graph.root = node.name


def seal(
    graph: Graph,
    leaves: Iterable[str],
    holes: Iterable[SeedHole],
    keys: Iterable[KeyHole] = (),
    *,
    head: bool = False,
) -> Template:
    """Makes a template of a graph, in place: every name is made from what is in the graph alone.

    Args:
        graph: made by `bare_part`, with holes for the seeds.
        leaves: its index leaves.
        holes: the ones for the seeds.
        keys: those of random ops in functions.
        head: it will be joined to a tail: no name can be one of the tail's, and the root is called
            `POINT`.
    """
    functions = canonicalise(graph, "_head" if head else "")
    nodes = _number_nodes(graph) if head else {}
    name_resources(graph)
    renamed = []
    for hole in holes:
        first, second = (n if hole.function else nodes.get(n, n) for n in hole.names)
        function = functions.get(hole.function, hole.function)
        renamed.append(SeedHole(function, (first, second), hole.every_epoch_same))
    keyed = (replace(hole, function=functions[hole.function]) for hole in keys)
    named = tuple(nodes.get(leaf, leaf) for leaf in leaves)
    return Template(graph, named, tuple(renamed), tuple(keyed))


def _number_nodes(graph: Graph) -> dict[str, str]:
    """Names all nodes by their order; returns the new names by the old ones."""
    names = {
        name: POINT if name == graph.root else f"{POINT}/{canonical(node.op)}_{k}"
        for k, (name, node) in enumerate(graph.nodes.items())
    }
    graph.rename_all(names)
    return names


def draws(graph: Graph, name: str) -> bool:
    """Whether a node itself, what is below it aside, can make another result in another run."""
    node = graph.nodes[name]
    # What is fatal, such as the state of a shuffle, is replaced or refused.
    if _is_drawing(node, graph.nodes) or any(not f.fatal for f in findings(graph, [name])):
        return True
    return any(
        _is_drawing(inner, {n.name: n for n in body.node_def})
        for body in bodies(graph, function_names(node))
        for inner in body.node_def
    )


def _is_drawing(node: Any, nodes: dict[str, Any]) -> bool:
    return canonical(node.op) in _SEEDED + _RANDOM and _wants_seeds(node, nodes)


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
        if not _is_drawing(node, nodes):
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
        if "config_proto" in node.attr:  # this process's threads and devices
            node.attr["config_proto"].s = b""
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
