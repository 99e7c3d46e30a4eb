"""Whether the client's part of a pipeline can begin in the middle, and how elements are counted.

It can where it keeps nothing from one of its elements to the next: functions, batches, zips. There
`n` of its elements are a known number of each stream's, and the rest of an epoch is the same part
applied to the rest of each stream. Anything else (a shuffle, a take, a filter after a batch) has to
see an epoch from its beginning again, and what was consumed is dropped at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cut import describe
from .ir import Graph
from .template import add_seed_holes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Plan

_REMEMBER = ("CacheDataset", "SnapshotDataset")


@dataclass(frozen=True)
class Rate:
    """How many elements of a stream one of the result is.

    Attributes:
        groups: (size, drop) of each batch on the way, the stream's side first; `drop` says that one
            that is not full is dropped.
    """

    groups: tuple[tuple[int, bool], ...] = ()

    @property
    def per(self) -> int:
        """Elements of the stream that a full element of the result is made of."""
        product = 1
        for size, _ in self.groups:
            product *= size
        return product

    def results(self, elements: int) -> int:
        """How many elements of the result a stream of that many gives."""
        for size, drop in self.groups:
            elements = elements // size if drop else -(-elements // size)
        return elements


@dataclass(frozen=True)
class Resumption:
    """What `resumption` finds.

    Attributes:
        rates: one for each stream; None if an epoch has to be read from its beginning.
        reason: why it has to.
        random: the client's part draws (a shuffle after a batch), anew in every epoch.
        repeats: one iteration of the result is any number of epochs.
    """

    rates: tuple[Rate, ...] | None
    reason: str
    random: bool
    repeats: bool


def resumption(plan: Plan) -> Resumption:
    """How a plan's client part can go on in the middle of an epoch."""
    graph, ends = plan._graph, plan._ends
    suffix = Graph(graph.to_proto(graph.root, retval=False, stop=ends), graph.root, {})
    random = bool(add_seed_holes(suffix))
    repeats = any("Repeat" in graph.op(name) for name in _above(graph, ends))
    found: dict[str, Rate] = {}
    reason = _walk(graph, graph.root, (), set(ends), found)
    rates = None if reason else tuple(found[end] for end in ends)
    return Resumption(rates, reason, random, repeats)


def _above(graph: Graph, ends: tuple[str, ...]) -> Iterator[str]:
    todo = [graph.root]
    while todo:
        name = todo.pop()
        if name not in ends:
            yield name
            todo.extend(graph.inputs(name))


def _walk(
    graph: Graph,
    name: str,
    groups: tuple[tuple[int, bool], ...],
    ends: set[str],
    found: dict[str, Rate],
) -> str:
    """Finds the rate of every stream below a node; returns what stands in the way, or nothing."""
    if name in ends:
        found[name] = Rate(groups)
        return ""
    op, kind = graph.op(name), graph.op_class(name)
    inputs = graph.inputs(name)
    if op.startswith(_REMEMBER):
        return f"{describe(graph, name)} remembers a whole epoch"
    if kind.group_input == "batch_size":
        size = graph.int_const(name, "batch_size")
        drop = graph.const(name, "drop_remainder")
        known = drop is not None or "drop_remainder" not in graph.arguments(name)
        if size is None or not known:
            return f"{describe(graph, name)} has a size that is not known"
        groups = ((size, bool(drop)), *groups)
    elif op == "RepeatDataset":
        if groups or name != graph.root or graph.int_const(name, "count") != -1:
            return f"{describe(graph, name)} puts epochs together"
    elif op != "ZipDataset" and not kind.one_to_one:
        return f"{describe(graph, name)} depends on what came before"
    for below in inputs:
        if reason := _walk(graph, below, groups, ends, found):
            return reason
    return ""
