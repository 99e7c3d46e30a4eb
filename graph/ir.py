"""A dataset's GraphDef as the analysis sees it: nodes by name, dataset edges, constants.

TensorFlow serialises a dataset as a *tree* (a dataset used twice is written twice), so rewriting a
node in place never affects another branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from . import capture
from .ops import canonical, classify, is_dataset_op
from .spec import graph_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .ops import OpClass

#: What an AUTOTUNE cycle_length becomes.
CYCLE_LENGTH = 16


def base_name(tensor: str) -> str:
    """The node that a tensor name such as `^node` or `node:1` refers to."""
    return tensor.lstrip("^").split(":")[0]


class Graph:
    """A mutable GraphDef of one dataset, with the element specs of its nodes where known."""

    def __init__(self, graph_def: Any, root: str, specs: dict[str, Any]) -> None:
        """Takes ownership of `graph_def`; `root` names the dataset's node."""
        self.root = root
        self.specs = specs
        self.nodes: dict[str, Any] = {n.name: n for n in graph_def.node if n.op != "_Retval"}
        self.library = graph_def.library
        self.functions: dict[str, Any] = {f.signature.name: f for f in graph_def.library.function}
        self.versions = graph_def.versions

    def copy(self) -> Graph:
        """An independent copy."""
        return Graph(self.to_proto(self.root), self.root, dict(self.specs))

    def op_class(self, name: str) -> OpClass:
        """The class of a node's op."""
        return classify(self.nodes[name].op, has_input=bool(self.inputs(name)))

    def op(self, name: str) -> str:
        """The op of a node, without its historical prefix."""
        return canonical(self.nodes[name].op)

    def arguments(self, name: str) -> dict[str, list[int]]:
        """Positions in `input` of each of a node's named arguments."""
        node = self.nodes[name]
        definition = capture.op_def(node.op)
        if definition is None:
            every = range(len(node.input))
            return {"input_dataset": [i for i in every if self._is_dataset(node.input[i])]}
        found: dict[str, list[int]] = {}
        at = 0
        for argument in definition.input_arg:
            if argument.number_attr:
                count = node.attr[argument.number_attr].i
            elif argument.type_list_attr:
                count = len(node.attr[argument.type_list_attr].list.type)
            else:
                count = 1
            found[argument.name] = list(range(at, at + count))
            at += count
        return found

    def _is_dataset(self, tensor: str) -> bool:
        node = self.nodes.get(base_name(tensor))
        return node is not None and is_dataset_op(node.op)

    def inputs(self, name: str) -> list[str]:
        """The nodes of the datasets that this one consumes (not those its functions capture)."""
        node = self.nodes[name]
        return [
            base_name(node.input[i])
            for argument, positions in self.arguments(name).items()
            if "dataset" in argument
            for i in positions
            if self._is_dataset(node.input[i])
        ]

    def const(self, name: str, argument: str) -> Any | None:
        """The value of a node's constant argument, or None where it is not a constant."""
        positions = self.arguments(name).get(argument)
        if not positions:
            return None
        node = self.nodes[base_name(self.nodes[name].input[positions[0]])]
        return const_value(node)

    def int_const(self, name: str, argument: str) -> int | None:
        """A constant scalar argument as an int."""
        value = self.const(name, argument)
        return None if value is None or np.size(value) != 1 else int(np.reshape(value, ())[()])

    def pin_cycle(self, name: str) -> None:
        """Fixes an automatic cycle_length, so that results do not depend on a machine's cores."""
        # TensorFlow wants no more parallel calls than inputs in turn.
        cycle = max(CYCLE_LENGTH, self.int_const(name, "num_parallel_calls") or 0)
        pinned = self.add_const(f"{name}/cycle_length", cycle, tf.int64)
        self.set_argument(name, "cycle_length", pinned)

    def spec(self, name: str) -> Any:
        """A dataset's element spec: the Python object's, or the flat one its attributes declare."""
        return self.specs[name] if name in self.specs else graph_spec(self.nodes[name])

    def set_argument(self, name: str, argument: str, tensor: str) -> None:
        """Connects another tensor to a node's argument."""
        self.nodes[name].input[self.arguments(name)[argument][0]] = tensor

    def add_const(self, name: str, value: Any, dtype: Any) -> str:
        """Adds a Const node and returns its name."""
        node = self.add(name, "Const")
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return name

    def add(self, name: str, op: str, inputs: Iterable[str] = ()) -> Any:
        """Adds a node and returns it for its attributes to be set."""
        node = capture.node_def_pb2.NodeDef(name=name, op=op, input=inputs)
        self.nodes[name] = node
        return node

    def replace_uses(self, old: str, new: str) -> None:
        """Makes every consumer of `old` (and the root) use `new`."""
        for node in self.nodes.values():
            for i, tensor in enumerate(node.input):
                if base_name(tensor) == old and node.name != new:
                    node.input[i] = tensor.replace(old, new, 1)
        if self.root == old:
            self.root = new

    def bypass(self, name: str) -> None:
        """Removes a one-input dataset from the chain."""
        self.replace_uses(name, self.inputs(name)[0])
        del self.nodes[name]

    def datasets(self) -> Iterator[str]:
        """The dataset nodes on the way from the sources to the root, inputs first."""
        done: set[str] = set()

        def visit(name: str) -> Iterator[str]:
            if name in done:
                return
            done.add(name)
            for below in self.inputs(name):
                yield from visit(below)
            yield name

        return visit(self.root)

    def consumers(self) -> dict[str, str]:
        """For each dataset node below the root, the one that consumes it."""
        return {below: name for name in self.datasets() for below in self.inputs(name)}

    def reachable(self, root: str, stop: Iterable[str] = ()) -> list[str]:
        """The nodes needed to compute `root`, in graph order, not looking below `stop`."""
        barrier = set(stop)
        keep: set[str] = set()
        todo = [root]
        while todo:
            name = todo.pop()
            if name in keep:
                continue
            keep.add(name)
            if name not in barrier:
                todo.extend(base_name(tensor) for tensor in self.nodes[name].input)
        return [name for name in self.nodes if name in keep]

    def sort(self) -> None:
        """Puts the nodes in an order that depends on the graph alone: inputs first, depth first."""
        order: dict[str, Any] = {}
        todo = [self.root]
        while todo:
            name = todo[-1]
            missing = [base_name(t) for t in self.nodes[name].input if base_name(t) not in order]
            if missing:
                todo.append(missing[0])
            else:
                order[todo.pop()] = self.nodes[name]
        self.nodes = order

    def rename_all(self, names: dict[str, str]) -> None:
        """Renames nodes, all at once."""
        for node in self.nodes.values():
            node.name = names.get(node.name, node.name)
            for i, tensor in enumerate(node.input):
                old = base_name(tensor)
                node.input[i] = tensor.replace(old, names.get(old, old), 1)
        self.nodes = {node.name: node for node in self.nodes.values()}
        self.root = names.get(self.root, self.root)

    def to_proto(self, root: str, *, retval: bool = True, stop: Iterable[str] = ()) -> Any:
        """The graph below `root` alone; nodes in `stop` become variant placeholders."""
        barrier = set(stop)
        proto = capture.graph_pb2.GraphDef()
        proto.versions.CopyFrom(self.versions)
        proto.library.CopyFrom(self.library)
        for name in self.reachable(root, barrier):
            if name in barrier:
                node = proto.node.add(name=name, op="Placeholder")
                node.attr["dtype"].type = tf.variant.as_datatype_enum
                node.attr["shape"].shape.CopyFrom(tf.TensorShape([]).as_proto())
            else:
                proto.node.add().CopyFrom(self.nodes[name])
        if retval:
            node = proto.node.add(name="dataset", op="_Retval", input=[root])
            node.attr["T"].type = tf.variant.as_datatype_enum
            node.attr["index"].i = 0
        return proto


def const_value(node: Any) -> Any | None:
    """The numpy value of a Const node, None for others and for what numpy cannot hold."""
    opaque = (tf.variant.as_datatype_enum, tf.resource.as_datatype_enum)
    if node.op != "Const" or node.attr["dtype"].type in opaque:
        return None
    return tensor_of(node).numpy()


def tensor_of(node: Any) -> Any:
    """The value of a Const node as an eager tensor, variants included."""
    dtype = tf.as_dtype(node.attr["dtype"].type)
    return tf.io.parse_tensor(node.attr["value"].tensor.SerializeToString(), dtype)


def capture_graph(ds: Any) -> Graph:
    """The graph of a dataset, its nodes labelled with the element specs of the Python objects."""
    proto = capture.graph_of(ds)
    (retval,) = (n for n in proto.node if n.op == "_Retval")
    graph = Graph(proto, base_name(retval.input[0]), {})

    def label(name: str, dataset: Any) -> None:
        if not _fits(graph.nodes[name], dataset.element_spec):
            return
        graph.specs[name] = dataset.element_spec
        if capture.has_automatic_cycle(dataset):
            graph.pin_cycle(name)
        below, objects = graph.inputs(name), capture.inputs_of(dataset)
        # Opaque Python objects (from_variant) do not list their inputs: stop there.
        if len(below) == len(objects):
            for inner, child in zip(below, objects, strict=True):
                label(inner, child)

    label(graph.root, ds)
    return graph


def _fits(node: Any, spec: Any) -> bool:
    """Whether a Python object's spec can be that of a node: the same number of components."""
    declared = len(node.attr["output_shapes"].list.shape)
    return declared == len(
        [s for s in tf.nest.flatten(spec) if not isinstance(s, tf.NoneTensorSpec)]
    )
