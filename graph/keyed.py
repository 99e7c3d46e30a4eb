"""Random ops in a graph's functions become functions of job seed, epoch, split and element.

A dataset op that runs a function for each element gets its elements together with their numbers
(it is zipped with a counter), and the function makes a *key* of the number: a vector of two int64.
Each random op in it becomes stateless (`stateless`); its seed is the key and a constant of its
own, combined bit by bit. The constant is a hole, filled with what job seed, epoch, split and the
op's number make. What the function runs in its turn is given the key:

- a call or a branch, as it is;
- a loop makes a key for each turn, of its own and the turn's number;
- a dataset made within the function counts its own elements, from a key made of the outer one.

A function is copied for each place that runs it, so that an op in it is one op for each. Ops
that run once for every element and that the user gave the same seeds are keyed by those and not
by their numbers: they draw the same, as in a local run (an image and its mask are flipped alike).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .body import INT64, Body, Top, data_inputs, set_data_inputs
from .callers import CALLS, EACH, LOOPS, PLAIN, TESTS, add_captured
from .functions import function_names, plain_name
from .generators import drop_write, find_generators, forget_unused, replace_read
from .ir import base_name
from .ops import canonical, is_dataset_op
from .stateless import is_random, make_stateless, user_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .ir import Graph

#: What they become if nothing in the functions has state: only then can iterators be saved.
_STATELESS = {
    **{"StatefulPartitionedCall": "PartitionedCall", "If": "StatelessIf"},
    **{"While": "StatelessWhile", "Case": "StatelessCase"},
}
_REPEATS = ("RepeatDataset", "ShuffleAndRepeatDataset", "ShuffleAndRepeatDatasetV2")
#: Ops that read a dataset and make none.
_ENDS = ("ReduceDataset", "DatasetToSingleElement", "DatasetCardinality")
#: Of loops as TensorFlow 1 made them: nothing counts their turns.
_OLD_LOOPS = ("Enter", "RefEnter")
_LAST = (1 << 63) - 1
#: What copies of functions are numbered from; TensorFlow's own numbers are far below.
_COPIES = 1 << 40


@dataclass(frozen=True)
class KeyHole:
    """A Const node in a function, to be filled with two numbers: a random op's own."""

    function: str
    name: str
    #: Ops with the same have the same numbers; None: no other op has them.
    shared: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Keyed:
    """What was done to a graph."""

    holes: tuple[KeyHole, ...]
    #: The ops that depend on nothing any more but on what they are keyed by: (op, function).
    rewritten: tuple[tuple[str, str], ...]


def key_random_ops(graph: Graph) -> Keyed:
    """Rewrites the random ops in the functions of a graph, in place.

    What cannot be rewritten stays as it is, and so remains among the graph's `findings`.
    """
    keyer = _Keyer(graph)
    again = _run_again(graph.nodes.values())
    for name in list(graph.datasets()):
        if name not in again:
            keyer.count(Top(graph), graph.nodes[name], None)
    forget_unused(graph)
    return Keyed(tuple(keyer.holes), tuple(dict.fromkeys(keyer.rewritten)))


class _Keyer:
    """One pass over a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.holes: list[KeyHole] = []
        self.rewritten: list[tuple[str, str]] = []
        self._copies = 0
        self._drawing: dict[str, bool] = {}

    def count(self, scope: Top | Body, node: Any, parent: Callable[[], str] | None) -> None:
        """Numbers the elements of a dataset op, if its function draws random numbers.

        Args:
            scope: where the node is.
            node: any node.
            parent: makes the key of datasets within the function that `scope` is.
        """
        op = canonical(node.op)
        if op not in EACH and op not in TESTS:
            return
        named = node.attr["predicate" if op in TESTS else "f"].func
        if not self._draws(named.name):
            return
        captured = len(node.attr["Targuments"].list.type)
        states = len(node.attr["Tstate"].list.type) if "Tstate" in node.attr else 0
        arguments = self.graph.functions[named.name].signature.input_arg
        at = len(arguments) - captured
        inputs = data_inputs(node)
        inputs[0] = self._numbered(scope, inputs[0], [a.type for a in arguments[states:at]])
        where, copy = plain_name(named.name), self._copied(named.name)
        number = copy.argument("penstock_number", at)
        key = copy.pack("penstock_key", copy.const("penstock_zero", 0, tf.int64), number)
        # An empty list is an attribute, too: TensorFlow wants to see it.
        node.attr["Targuments"].list.SetInParent()
        set_data_inputs(node, inputs)
        if parent is not None:
            add_captured(node, parent())
            key = copy.xor("penstock_key", copy.argument("penstock_parent"), key)
        named.name = copy.proto.signature.name
        self._key(copy, key, where, alike=parent is None)
        if op in TESTS:
            self._drop_number(scope, node)

    def _draws(self, name: str) -> bool:
        """Whether a function draws numbers that can be keyed, or runs one that does."""
        if name not in self._drawing:
            self._drawing[name] = False  # of one that calls itself
            body = self.graph.functions.get(name)
            if body is not None and not any(n.op in _OLD_LOOPS for n in body.node_def):
                own = any(map(is_random, body.node_def)) or bool(find_generators(body))
                inner = [f.name for n in body.node_def for f in _functions(n)]
                self._drawing[name] = own or any(self._draws(f) for f in inner)
        return self._drawing[name]

    def _copied(self, name: str) -> Body:
        """A copy of a function under a name of its own."""
        self._copies += 1
        proto = self.graph.library.function.add()
        proto.CopyFrom(self.graph.functions[name])
        proto.signature.name = f"{plain_name(name)}_{_COPIES + self._copies}"
        proto.attr.pop("_input_shapes", None)
        self.graph.functions[proto.signature.name] = proto
        return Body(proto)

    def _key(self, body: Body, key: str, where: str, *, alike: bool) -> None:
        """Gives a key to all in a function that draws numbers.

        `alike`: it runs once for every element, so that ops with the same seeds keep step.
        """
        inner: list[str] = []

        def parent() -> str:
            if not inner:
                inner.append(body.scrambled("penstock_inner", key))
            return inner[0]

        again = _run_again(body.proto.node_def)
        for node in list(body.proto.node_def):
            if is_random(node):
                self.rewritten.append((node.op, where))
                shared = user_seeds(node) if alike else None
                make_stateless(body, node, self._seed(body, key, shared))
            elif any(self._draws(function.name) for function in _functions(node)):
                if node.op in CALLS:
                    self._call(body, node, key, alike=alike)
                elif node.name not in again:
                    self.count(body, node, parent)
        for generator in find_generators(body.proto):
            self.rewritten.append(("a Keras seed generator", where))
            for node in generator.reads:
                replace_read(body.proto, node, self._seed(body, key, None))
            for node in generator.writes:
                drop_write(node)
        body.proto.signature.is_stateful = any(map(_has_state, body.proto.node_def))

    def _seed(self, body: Body, key: str, shared: tuple[int | str, ...] | None) -> str:
        """The seed of one op."""
        node = body.add("penstock_seed", "Const", dtype=INT64)
        tensor = node.attr["value"].tensor
        tensor.dtype = INT64
        tensor.tensor_shape.dim.add(size=2)
        tensor.int64_val.extend([0, 0])
        self.holes.append(KeyHole(body.proto.signature.name, node.name, shared))
        return body.xor("penstock_seed", body.output(node), key)

    def _call(self, body: Body, node: Any, key: str, *, alike: bool) -> None:
        """Hands the key on to the functions that a node calls."""
        loop = node.op in LOOPS
        alike = alike and node.op in PLAIN
        made = []
        for function in _functions(node):
            where, copy = plain_name(function.name), self._copied(function.name)
            if loop:
                turn = copy.argument("penstock_turn")
                given = copy.argument("penstock_key")
                _count_turn(copy, turn, given, test=function.name == node.attr["cond"].func.name)
                zero = copy.const("penstock_zero", 0, tf.int64)
                of_turn = copy.xor("penstock_key", given, copy.pack("penstock_key", turn, zero))
                of_turn = copy.scrambled("penstock_key", of_turn)
            else:
                of_turn = copy.argument("penstock_key")
            self._key(copy, of_turn, where, alike=alike)
            function.name = copy.proto.signature.name
            made.append(copy.proto)
        more = [key]
        if loop:
            more.insert(0, body.const("penstock_turn", 0, tf.int64))
            if "output_shapes" in node.attr and node.attr["output_shapes"].list.shape:
                shapes = node.attr["output_shapes"].list.shape
                shapes.add()
                shapes.add().dim.add(size=2)
        set_data_inputs(node, [*data_inputs(node), *more])
        node.attr["T" if loop else "Tin"].list.type.extend([INT64] * len(more))
        if not any(proto.signature.is_stateful for proto in made):
            node.op = _STATELESS.get(node.op, node.op)

    def _numbered(self, scope: Top | Body, dataset: str, types: list[int]) -> str:
        """A dataset's elements, each with its number as the last component."""
        bounds = [
            scope.const(f"number_{name}", value, tf.int64)
            for name, value in (("first", 0), ("last", _LAST), ("step", 1))
        ]
        numbers = scope.add("numbers", "RangeDataset", bounds)
        _declare(numbers, [INT64])
        inputs = [dataset, scope.output(numbers)]
        both = scope.add("numbered", "ZipDataset", inputs)
        both.attr["N"].i = 2
        _declare(both, [*types, INT64], unknown=True)
        return scope.output(both)

    def _drop_number(self, scope: Top | Body, node: Any) -> None:
        """Takes the number off again behind an op that hands elements on as they are."""
        types = list(node.attr["output_types"].list.type)
        strip = self.graph.library.function.add()
        self._copies += 1
        strip.signature.name = f"penstock_strip_{_COPIES + self._copies}"
        for k, dtype in enumerate([*types, INT64]):
            strip.signature.input_arg.add(name=f"part_{k}", type=dtype)
        for k, dtype in enumerate(types):
            strip.signature.output_arg.add(name=f"kept_{k}", type=dtype)
            strip.ret[f"kept_{k}"] = f"part_{k}"
        self.graph.functions[strip.signature.name] = strip
        tested = scope.add("tested", node.op, node.input)
        for key in node.attr:
            tested.attr[key].CopyFrom(node.attr[key])
        tested.attr["output_types"].list.type.append(INT64)
        tested.attr["output_shapes"].list.shape.add()
        for key in list(node.attr):
            if key not in ("output_types", "output_shapes", "metadata"):
                del node.attr[key]
        node.op = "MapDataset"
        control = [tensor for tensor in node.input if tensor.startswith("^")]
        del node.input[:]
        node.input.extend([scope.output(tested), *control])
        node.attr["f"].func.name = strip.signature.name
        node.attr["Targuments"].list.SetInParent()


def _functions(node: Any) -> list[Any]:
    """The functions that a node runs, of those that can be given a key."""
    op = canonical(node.op)
    if op not in CALLS and op not in EACH and op not in TESTS:
        return []
    found = []
    for key in sorted(node.attr):
        attribute = node.attr[key]
        found += [attribute.func] if attribute.HasField("func") else list(attribute.list.func)
    return found


def _run_again(nodes: Iterable[Any]) -> set[str]:
    """The datasets that may be iterated more than once for one key: every time would be the same.

    These are what is below a repeat, what a function captures, and what has several readers.
    """
    below = {node.name: [base_name(tensor) for tensor in data_inputs(node)] for node in nodes}
    todo: list[str] = []
    readers: Counter[str] = Counter()
    for node in nodes:
        inputs, op = below[node.name], canonical(node.op)
        readers.update(set(inputs))
        if op in _REPEATS or op in CALLS:
            todo += inputs
        elif is_dataset_op(op) and next(function_names(node), None) is not None:
            todo += inputs[1:]
    todo += [name for name, count in readers.items() if count > 1]
    made = {node.name for node in nodes if _makes_dataset(node)}
    for name in todo:
        if name in made:
            todo += [inner for inner in below[name] if inner not in todo]
    return made.intersection(todo)


def _makes_dataset(node: Any) -> bool:
    op = canonical(node.op)
    return op == "Identity" or (is_dataset_op(op) and op not in _ENDS)


def _count_turn(copy: Body, turn: str, key: str, *, test: bool) -> None:
    """Makes a loop's body hand on its key, and the number of the next turn."""
    if test:
        return
    one = copy.const("penstock_one", 1, tf.int64)
    following = copy.output(copy.add("penstock_turn", "AddV2", [turn, one], T=INT64))
    for name, tensor in (("penstock_turn", following), ("penstock_key", key)):
        made = copy.free(f"{name}_out")
        copy.proto.signature.output_arg.add(name=made, type=INT64)
        copy.proto.ret[made] = tensor


def _has_state(node: Any) -> bool:
    definition = capture.op_def(node.op)
    return definition is None or bool(definition.is_stateful)


def _declare(node: Any, types: list[int], *, unknown: bool = False) -> None:
    node.attr["output_types"].list.type.extend(types)
    for _ in types:
        shape = node.attr["output_shapes"].list.shape.add()
        if unknown:
            shape.unknown_rank = True
