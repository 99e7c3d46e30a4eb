"""Constants of functions become arguments, filled in by the graph that uses the functions.

A function that holds such a constant gets one more argument, and so does every function that runs
it, up to the graph itself; there a constant of the same value is left in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .body import INT64, Body
from .callers import LOOPS, add_captured
from .functions import function_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class NotLiftableError(Exception):
    """An op runs a function in a way in which no argument can be handed on to it."""


def lift(graph: Any, holes: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Lifts int64 constants out of functions.

    Args:
        graph: a GraphDef; changed in place, and of no use any more if this raises.
        holes: the function and the name of each constant.

    Returns:
        The names of the constants in the graph itself that take their places.

    Raises:
        NotLiftableError: not every op that runs one of the functions can hand on an argument.
    """
    lifter = _Lifter(graph)
    return {(function, name): lifter.lift(function, name) for function, name in holes}


class _Lifter:
    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._bodies = {f.signature.name: Body(f) for f in graph.library.function}
        self._given: set[tuple[str, str]] = set()
        self._returning: set[str] = set()

    def lift(self, function: str, name: str) -> str:
        body = self._bodies[function].proto
        held = next(node for node in body.node_def if node.name == name)
        top = self._graph.node.add(op="Const")
        top.CopyFrom(held)
        top.name = f"penstock/lifted/{function}/{name}"
        arguments: dict[str, str] = {}
        self._given.clear()
        self._returning.clear()
        self._hand_on(function, top.name, arguments)
        del held.input[:]
        held.ClearField("attr")
        held.op = "Identity"  # whose output is called as a constant's
        held.input.append(arguments[function])
        held.attr["T"].type = INT64
        return str(top.name)

    def _hand_on(self, function: str, top: str, arguments: dict[str, str]) -> None:
        """Gives a function one more argument wherever it is run; notes what it is called there."""
        if function in arguments:
            return
        arguments[function] = self._bodies[function].argument("penstock_lifted")
        for scope, node in list(self._users(function)):
            if scope:
                self._hand_on(scope, top, arguments)
            if (scope, node.name) in self._given:
                continue  # another branch of it was the reason
            self._given.add((scope, node.name))
            if not add_captured(node, arguments[scope] if scope else top):
                raise NotLiftableError(f"{node.op} {node.name!r} in {scope or 'the graph'!r}")
            for other in function_names(node):
                self._hand_on(other, top, arguments)
            if node.op in LOOPS:
                self._return(node.attr["body"].func.name, arguments)

    def _return(self, function: str, arguments: dict[str, str]) -> None:
        """Has the body of a loop hand on to its next turn what it was given."""
        body = self._bodies[function]
        if function not in self._returning:
            self._returning.add(function)
            made = body.free("penstock_lifted_out")
            body.proto.signature.output_arg.add(name=made, type=INT64)
            body.proto.ret[made] = arguments[function]

    def _users(self, function: str) -> Iterator[tuple[str, Any]]:
        """Nodes that run a function, and the functions that they are in, empty for the graph."""
        scopes = [("", self._graph.node)]
        scopes += [(name, body.proto.node_def) for name, body in self._bodies.items()]
        for scope, nodes in scopes:
            for node in nodes:
                if function in function_names(node):
                    yield scope, node
