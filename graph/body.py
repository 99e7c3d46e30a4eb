"""Places where nodes are added: a library function, and the graph that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ir import Graph

INT32 = tf.int32.as_datatype_enum
INT64 = tf.int64.as_datatype_enum


class Body:
    """A library function to which nodes are added.

    Args:
        proto: the FunctionDef; changed in place.
    """

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self._names = {node.name for node in proto.node_def}
        self._names.update(argument.name for argument in proto.signature.input_arg)

    def free(self, name: str) -> str:
        """A name like this one that nothing in the function has."""
        made, k = name, 0
        while made in self._names:
            k += 1
            made = f"{name}_{k}"
        self._names.add(made)
        return made

    def add(self, name: str, op: str, inputs: Sequence[str] = (), **types: int) -> Any:
        """Adds a node under a free name; `types` are those of its attributes that are dtypes."""
        node = self.proto.node_def.add(name=self.free(name), op=op, input=inputs)
        return _typed(node, types)

    def const(self, name: str, value: Any, dtype: Any) -> str:
        """Adds a constant; returns its tensor."""
        node = self.add(name, "Const", dtype=dtype.as_datatype_enum)
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return self.output(node)

    def output(self, node: Any) -> str:
        """The first of the tensors that a node makes."""
        return f"{node.name}:{capture.op_def(node.op).output_arg[0].name}:0"

    def argument(self, name: str, at: int | None = None) -> str:
        """Adds an argument of int64, as the last one or before others; returns its tensor."""
        signature = self.proto.signature
        held = [type(a).FromString(a.SerializeToString()) for a in signature.input_arg]
        position = len(held) if at is None else at
        made = self.free(name)
        del signature.input_arg[:]
        signature.input_arg.extend(held[:position])
        signature.input_arg.add(name=made, type=INT64)
        signature.input_arg.extend(held[position:])
        for numbered in (self.proto.arg_attr, self.proto.resource_arg_unique_id):
            _shift(numbered, position)
        return made

    def pack(self, name: str, *tensors: str) -> str:
        """A vector of int64 scalars."""
        node = self.add(name, "Pack", tensors, T=INT64)
        node.attr["N"].i = len(tensors)
        return self.output(node)

    def xor(self, name: str, one: str, other: str) -> str:
        """Two int64 tensors, combined bit by bit."""
        return self.output(self.add(name, "BitwiseXor", [one, other], T=INT64))

    def scrambled(self, name: str, key: str) -> str:
        """Another key: the same for the same one, and like none that bits alone would make."""
        shape = self.const(f"{name}_shape", [2], tf.int32)
        types = {"dtype": INT64, "T": INT32, "Tseed": INT64}
        op = "StatelessRandomUniformFullInt"
        return self.output(self.add(name, op, [shape, key], **types))


class Top:
    """The graph itself, to which nodes are added as to a function."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def add(self, name: str, op: str, inputs: Sequence[str] = (), **types: int) -> Any:
        """See `Body.add`."""
        made, k = f"penstock/{name}", 0
        while made in self.graph.nodes:
            k += 1
            made = f"penstock/{name}_{k}"
        return _typed(self.graph.add(made, op, inputs), types)

    def const(self, name: str, value: Any, dtype: Any) -> str:
        """See `Body.const`."""
        return self.graph.add_const(self.add(name, "Const").name, value, dtype)

    def output(self, node: Any) -> str:
        """See `Body.output`."""
        return str(node.name)

    def free(self, name: str) -> str:
        """See `Body.free`."""
        made, k = name, 0
        while made in self.graph.nodes:
            k += 1
            made = f"{name}_{k}"
        return made


def data_inputs(node: Any) -> list[str]:
    """A node's inputs, but for those that only say what comes before it."""
    return [tensor for tensor in node.input if not tensor.startswith("^")]


def set_data_inputs(node: Any, tensors: Sequence[str]) -> None:
    """Replaces the `data_inputs`."""
    control = [tensor for tensor in node.input if tensor.startswith("^")]
    del node.input[:]
    node.input.extend([*tensors, *control])


def _typed(node: Any, types: dict[str, int]) -> Any:
    for key, value in types.items():
        node.attr[key].type = value
    return node


def _shift(numbered: Any, position: int) -> None:
    """Makes room at a position in what is kept by the numbers of arguments."""
    for number in sorted(numbered, reverse=True):
        if number >= position:
            value = numbered[number]
            if isinstance(value, int):
                numbered[number + 1] = value
            else:
                numbered[number + 1].CopyFrom(value)
            del numbered[number]
