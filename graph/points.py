"""The cache point of a part: where its pipeline is divided into a head and a tail.

The *head* is what is at and below the point: what the workers' cache holds, the same in every
epoch and every job. The *tail* follows it, and is run on the cached elements again and again. The
user marks the point; without a mark, and only if it is asked for, it is as far up as nothing
random is below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .cut import ENDLESS, describe
from .functions import findings
from .leaf import find_leaf
from .marks import is_mark, marks_cache
from .ops import Kind
from .spec import flat_specs, is_wireable
from .template import draws

if TYPE_CHECKING:
    from .cut import Part
    from .ir import Graph

#: The dtypes that TensorFlow can both stack and hand to Python; the others are rare.
_STORABLE = frozenset(
    (
        *(tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32),
        *(tf.uint64, tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64),
        *(tf.complex128, tf.string),
    )
)
#: Global ops that read all there is below them, once, and hand errors on. (Of the local ops, all
#: do but ignore_errors; take would leave what is stored incomplete.)
_READ_ALL = frozenset(
    (
        *("SkipDataset", "ShardDataset", "ScanDataset", "UniqueDataset", "GroupByWindowDataset"),
        *("GroupByReducerDataset", "RebatchDataset", "RebatchDatasetV2", "ZipDataset"),
    )
)


@dataclass(frozen=True)
class Point:
    """Where a part is divided."""

    #: The dataset node whose elements are cached.
    node: str
    #: In words.
    where: str
    #: Nothing follows that changes the elements.
    whole: bool
    #: The user marked it.
    marked: bool
    #: Why nothing can be cached here, if so: then it only keeps epochs and jobs the same.
    obstacle: str = ""


@dataclass
class PointFinder:
    """Finds the cache point of one part of a graph, and says why it is there."""

    graph: Graph
    part: Part
    #: (kind, where, text)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def find(self, *, wanted: bool) -> Point | None:
        """The part's cache point: the topmost mark, or if one is `wanted`, the best there is."""
        marks = [n for n in self._down(self.part.root) if marks_cache(self.graph.nodes[n])]
        if marks:
            return self._marked(marks)
        return self._default() if wanted else None

    def _note(self, where: str, text: str) -> None:
        self.notes.append(("cache", where, text))

    def _down(self, name: str) -> list[str]:
        """The dataset nodes from `name` down, level by level."""
        found = [name]
        for at in found:
            found.extend(self.graph.inputs(at))
        return found

    def _marked(self, marks: list[str]) -> Point:
        mark = marks[0]
        held = self._down(mark)
        for other in marks[1:]:
            text = "the topmost mark holds it" if other in held else "one mark of a stream counts"
            self._note(describe(self.graph, other), f"not a cache point of its own: {text}")
        node = self._settled(mark)
        after = f"after {self._name(node)}"
        what = "cache_here()" if is_mark(self.graph.nodes[mark]) else "cache()"
        self._note(after, f"{what}: up to here it is the same in all epochs and all jobs")
        if not is_mark(self.graph.nodes[mark]) and self.graph.const(mark, "filename"):
            self._note(after, "the file is not written: the workers' cache has its own")
        obstacle = self._obstacle(node)
        if obstacle:
            self._note(after, f"the workers' cache cannot hold it: {obstacle}")
        return self._point(node, marked=True, obstacle=obstacle)

    def _default(self) -> Point | None:
        graph = self.graph
        random = {name for name in self._down(self.part.root) if self._draws(name)}
        name, blocker = self.part.root, ""
        while random.intersection(self._down(name)) or not _is_storable(graph.spec(name)):
            below = graph.inputs(name)
            if len(below) != 1:
                self._note(self._name(name), "nothing to cache: it, or a part of it, is random")
                return None
            name, blocker = below[0], name
        node = self._settled(name)
        where = f"before {describe(graph, blocker)}" if blocker else f"after {self._name(node)}"
        obstacle = self._obstacle(node)
        if obstacle:
            self._note(where, f"nothing is cached: {obstacle}")
            return None
        if not graph.inputs(node) and not self.part.files:
            self._note(where, "nothing to cache: all that is not random is the source in memory")
            return None
        text = "what is made up to here is the same in every epoch; what follows is run again"
        if not graph.inputs(node):
            text = "only the files' content is the same in every epoch"
        elif not blocker:
            text = "nothing is random: the elements themselves are cached"
        self._note(where, text)
        return self._point(node, marked=False)

    def _draws(self, name: str) -> bool:
        """Whether a node is random, datasets that its functions capture included."""
        graph, below = self.graph, self.graph.inputs(name)
        return any(draws(graph, n) for n in graph.reachable(name, below) if n not in below)

    def _point(self, node: str, *, marked: bool, obstacle: str = "") -> Point:
        whole = self._settled(self.part.root) == node
        return Point(node, f"after {self._name(node)}", whole, marked, obstacle)

    def _name(self, node: str) -> str:
        return describe(self.graph, node).removesuffix("()")

    def _settled(self, name: str) -> str:
        """The node that really makes the elements of a node: below all that hands them through."""
        while self.graph.op_class(name).dropped or self.graph.op(name) == "PrefetchDataset":
            name = self.graph.inputs(name)[0]
        return name

    def _obstacle(self, node: str) -> str:
        """Why a node's elements cannot be cached, if so."""
        graph = self.graph
        if not _is_storable(graph.spec(node)):
            return f"such elements cannot be stored: {graph.spec(node)}"
        if self._is_endless(node):
            return "it has no end"
        consumers = graph.consumers()
        while node != self.part.root:
            node = consumers[node]
            cls, op = graph.op_class(node), graph.op(node)
            if op == "IgnoreErrorsDataset":
                return "ignore_errors would hide a damaged cache too"
            if cls.kind is not Kind.LOCAL and not cls.group_input and op not in _READ_ALL:
                return f"{self._name(node)} may not read it to its end, or more than once"
        return ""

    def _is_endless(self, name: str) -> bool:
        graph, op = self.graph, self.graph.op(name)
        below = [self._is_endless(inner) for inner in graph.inputs(name)]
        if op in ("TakeDataset", "TakeWhileDataset"):
            count = graph.int_const(name, "count") if op == "TakeDataset" else 0
            return any(below) and (count is None or count < 0)
        if op == "RepeatDataset":
            return any(below) or (graph.int_const(name, "count") or -1) < 0
        if not below:
            leaf = find_leaf(graph, name)
            return "Random" in op or (leaf is not None and leaf.size > ENDLESS)
        return all(below) if op == "ZipDataset" else any(below)


def _is_storable(spec: Any) -> bool:
    return is_wireable(spec) and all(part.dtype in _STORABLE for part in flat_specs(spec))


def one_run_notes(head: Graph) -> list[tuple[str, str, str]]:
    """Warnings that what is stored of a head's non-replayable ops is what one run made."""
    text = "a replay does not repeat it: what is cached is what one run made, for all epochs"
    found = findings(head, head.reachable(head.root))
    return [
        ("cache", finding.where, f"{finding.op}: {text}") for finding in found if not finding.fatal
    ]
