"""Keras' seed generators: variables that a function moves on with every draw.

A layer such as RandomFlip reads its seed, two integers, from a variable and adds to that for the
next call. The random op itself is stateless, the state is in the variable: so what is drawn
depends on the order in which elements were made. Here the reads are found, to be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .body import INT64, data_inputs, set_data_inputs
from .functions import function_names
from .ir import base_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ir import Graph

#: What may be done to a seed between the variable and the op that it is for: it stays two numbers.
_ON_THE_WAY = ("Mul", "Cast", "Identity", "FloorMod")


@dataclass(frozen=True)
class Generator:
    """A variable whose only purpose is to be the seed of a function's random ops."""

    reads: tuple[Any, ...]
    writes: tuple[Any, ...]


def find_generators(body: Any) -> list[Generator]:
    """The seed generators that are arguments of a function."""
    found = []
    for argument in body.signature.input_arg:
        if argument.type != tf.resource.as_datatype_enum:
            continue
        users = [n for n in body.node_def if argument.name in n.input]
        reads = [n for n in users if n.op == "ReadVariableOp" and n.attr["dtype"].type == INT64]
        writes = [n for n in users if n.op == "AssignVariableOp"]
        if writes and len(reads) + len(writes) == len(users) and _is_seed(body, reads, writes):
            found.append(Generator(tuple(reads), tuple(writes)))
    return found


def _is_seed(body: Any, reads: list[Any], writes: list[Any]) -> bool:
    """Whether what is read goes into seeds and, together with constants, into what is written."""
    nodes = {node.name: node for node in body.node_def}
    own = {node.name for node in reads}
    for write in writes:
        todo = [base_name(data_inputs(write)[1])]
        for name in todo:
            node = nodes.get(name)
            if node is None:
                return False  # something that the function was given
            if name not in own:
                todo.extend(base_name(tensor) for tensor in data_inputs(node))
                if node.op != "Const" and not data_inputs(node):
                    return False
    return any(_feeds_seed(body, node.name) for node in reads)


def _feeds_seed(body: Any, name: str) -> bool:
    todo = [name]
    for at in todo:
        for node in body.node_def:
            inputs = [base_name(tensor) for tensor in data_inputs(node)]
            if at not in inputs:
                continue
            if node.op == "StatelessRandomGetKeyCounter":
                return True
            if node.op in _ON_THE_WAY and node.name not in todo:
                todo.append(node.name)
    return False


def replace_read(body: Any, node: Any, seed: str) -> None:
    """Makes a read give a seed instead of the variable's value."""
    for other in [*body.node_def, *body.signature.output_arg]:
        if hasattr(other, "input"):
            for k, tensor in enumerate(other.input):
                if tensor == f"{node.name}:value:0":
                    other.input[k] = f"{node.name}:output:0"
    for name, tensor in body.ret.items():
        if tensor == f"{node.name}:value:0":
            body.ret[name] = f"{node.name}:output:0"
    node.op = "Identity"
    set_data_inputs(node, [seed])
    del node.attr["dtype"]
    node.attr["T"].type = INT64


def drop_write(node: Any) -> None:
    """Makes a write do nothing; what waits for it still can."""
    set_data_inputs(node, [])
    node.op = "NoOp"
    for attribute in list(node.attr):
        del node.attr[attribute]


def forget_unused(graph: Graph) -> None:
    """Sets variables to zero that no function reads: seeds that say nothing any more.

    They are other ones in every process, and the graph must be the same.
    """
    used = {name for node in graph.nodes.values() for name in _used_variables(graph, node)}
    for node in graph.nodes.values():
        if node.op == "AssignVariableOp" and base_name(node.input[0]) not in used:
            held = graph.nodes[base_name(node.input[1])]
            if held.op == "Const" and held.attr["dtype"].type == INT64:
                tensor = held.attr["value"].tensor
                shape = [dim.size for dim in tensor.tensor_shape.dim]
                tensor.CopyFrom(tf.make_tensor_proto(0, tf.int64, shape))


def _used_variables(graph: Graph, node: Any) -> Iterator[str]:
    if node.op in ("Identity", "AssignVariableOp"):
        return
    # Captured tensors are the last arguments of a function.
    inputs = data_inputs(node)
    held = [(k, _variable(graph, base_name(tensor))) for k, tensor in enumerate(inputs)]
    functions = list(function_names(node))
    first = 1 + (len(node.attr["Tstate"].list.type) if "Tstate" in node.attr else 0)
    for k, variable in held:
        if variable is None:
            continue
        if not functions or any(_uses(graph, f, k - first, node) for f in functions):
            yield variable


def _variable(graph: Graph, name: str) -> str | None:
    node = graph.nodes.get(name)
    while node is not None and node.op == "Identity":
        node = graph.nodes.get(base_name(node.input[0]))
    return node.name if node is not None and node.op == "VarHandleOp" else None


def _uses(graph: Graph, function: str, captured: int, node: Any) -> bool:
    """Whether a function uses a captured tensor, by its number among those."""
    body = graph.functions[function]
    count = len(node.attr["Targuments"].list.type)
    argument = body.signature.input_arg[len(body.signature.input_arg) - count + captured].name
    tensors = [tensor for inner in body.node_def for tensor in inner.input]
    return argument in [*tensors, *body.ret.values()]
