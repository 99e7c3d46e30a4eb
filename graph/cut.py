"""Where the graph is cut: the parts that workers run, and what remains for the client.

Bottom up, each dataset node either extends the part below it (a *part* is a subtree that can run
split by split) or is the client's; the parts whose consumer is the client's become the streams.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import NotShippableError
from .functions import calls_functions, plain_name, reads_files
from .functions import function_names as names_in
from .leaf import Leaf, find_leaf
from .marks import is_mark
from .moves import is_mixing, level
from .ops import Kind, OpClass
from .spec import is_wireable

if TYPE_CHECKING:
    from .ir import Graph

#: Longer index sources (Dataset.counter) are endless for all that matters here.
ENDLESS = 1 << 40


@dataclass(frozen=True)
class Part:
    """A subtree of the graph that workers can run."""

    root: str
    #: The index leaves, of equal size, that splits narrow; empty if it cannot be divided.
    leaves: tuple[Leaf, ...] = ()
    #: Each source item is a file (or opens one): one item a split.
    files: bool = False
    #: Every source item gives one element (of its group of `align`), shuffles aside.
    one_to_one: bool = False
    shuffled: bool = False
    #: The shuffle may be widened to a permutation of the source.
    permute: bool = False
    #: Takes elements of several source items in turn.
    mixing: bool = False
    #: Mixes elements of several source items in a way that no permutation of the source can stand
    #: for, so that lanes have to: an interleave, or a shuffle of what files or groups gave.
    blended: bool = False
    #: Splits must begin at multiples of this many source items.
    align: int = 1
    #: Constants and ranges only: as well made by the client where it meets another stream.
    trivial: bool = False
    #: Why it is one split, if it is.
    single: str = ""


@dataclass
class Cut:
    """The streams of a graph and why they end where they do."""

    parts: list[Part] = field(default_factory=list)
    #: (kind, where, text)
    notes: list[tuple[str, str, str]] = field(default_factory=list)


def describe(graph: Graph, name: str) -> str:
    """A node as the user knows it: `map(parse)`, `batch(32)`, `take(5)`."""
    op = graph.op(name)
    if is_mark(graph.nodes[name]):
        return "cache_here()"
    words = op.removesuffix("V2").removesuffix("V3").removesuffix("V4").removesuffix("Dataset")
    detail = [plain_name(f) for f in names_in(graph.nodes[name])][:1]
    if not detail:
        for argument in ("batch_size", "count", "size", "buffer_size", "num_shards"):
            value = graph.int_const(name, argument)
            if value is not None:
                detail = [str(value)]
                break
    return f"{words}({', '.join(detail)})"


class Cutter:
    """One pass over a rewritten graph."""

    def __init__(self, graph: Graph, *, exact: bool, keep_repeats: bool) -> None:
        """`keep_repeats`: a repeat below an interleave stays with it, in one split."""
        self.graph = graph
        self.exact = exact
        self.keep_repeats = keep_repeats
        self.consumers = graph.consumers()
        self.known: dict[str, Part | None] = {}
        self.ends: list[str] = []
        self.cut = Cut()

    def run(self) -> Cut:
        """Finds the streams; raises NotShippableError where none can be cut."""
        if self.visit(self.graph.root) is not None:
            self.ends.append(self.graph.root)
        parts = [self._wireable(end) for end in self.ends]
        if any(not p.trivial for p in parts):
            for part in [p for p in parts if p.trivial]:
                where = describe(self.graph, part.root)
                self.note("client", where, "made at the client: it only holds constants")
            parts = [p for p in parts if not p.trivial]
        self.cut.parts = parts
        return self.cut

    def note(self, kind: str, where: str, text: str) -> None:
        """Records something for the plan's notes."""
        self.cut.notes.append((kind, where, text))

    def _wireable(self, name: str) -> Part:
        while True:
            part = self.known.get(name)
            spec = self.graph.spec(name)
            if part is not None and is_wireable(spec):
                return part
            below = self.graph.inputs(name)
            where = describe(self.graph, name)
            if len(below) != 1:
                raise NotShippableError(
                    f"{where} makes elements that cannot be sent to another process: {spec}"
                )
            self.note("client", where, f"its elements cannot travel ({spec})")
            name = below[0]

    def visit(self, name: str) -> Part | None:
        """The part that ends at a node, or None if the node is the client's."""
        if name not in self.known:
            self.known[name] = self._visit(name)
        return self.known[name]

    def _visit(self, name: str) -> Part | None:
        graph, cls = self.graph, self.graph.op_class(name)
        below = graph.inputs(name)
        if not below:
            return self._source(name)
        if graph.op(name) == "DirectedInterleaveDataset":
            below = below[1:]  # the selector is part of the op
        parts = [self.visit(inner) for inner in below]
        whole = [part for part in parts if part is not None]
        made: Part | None = None
        if len(whole) == len(parts):
            if cls.kind is Kind.LOCAL:
                made = self._local(name, cls, whole[0])
            elif cls.group_input is not None and whole[0].leaves:
                made = self._group(name, cls.group_input, whole[0])
            elif graph.op(name) == "ZipDataset":
                made = self._zip(name, whole)
            elif self._undivided(name, whole):
                made = replace(whole[0], root=name, trivial=False)
            elif self._kept_repeat(name):
                made = replace(whole[0], root=name, leaves=(), single="repeated under interleave")
        if made is None:
            self.ends.extend(part.root for part in whole)
            self._explain_client(name, cls)
        return made

    def _source(self, name: str) -> Part:
        leaf = find_leaf(self.graph, name)
        trivial = not calls_functions(self.graph, name)
        if leaf is None:
            op = self.graph.op(name)
            trivial = trivial and op in ("TensorDataset", "RandomDataset", "RandomDatasetV2")
            return Part(name, single=f"{op} cannot be divided", trivial=trivial)
        if leaf.size > ENDLESS:
            return Part(name, single="the source has no end", trivial=trivial)
        return Part(name, (leaf,), leaf.reads, not leaf.reads, trivial=not leaf.reads)

    def _local(self, name: str, cls: OpClass, part: Part) -> Part:
        opens = not cls.one_to_one and reads_files(self.graph, name)
        mixing = is_mixing(self.graph, name)
        return replace(
            part,
            root=name,
            files=part.files or opens,
            one_to_one=part.one_to_one and (cls.one_to_one or cls.shuffle),
            shuffled=part.shuffled or cls.shuffle,
            permute=part.permute or (cls.shuffle and part.align == 1 and not part.files),
            mixing=part.mixing or mixing,
            blended=part.blended or mixing or (cls.shuffle and (part.files or part.align > 1)),
            trivial=part.trivial and cls.one_to_one and not calls_functions(self.graph, name),
        )

    def _group(self, name: str, argument: str, part: Part) -> Part | None:
        size = self.graph.int_const(name, argument)
        calls = calls_functions(self.graph, name)
        if size is None or size < 1 or not (calls or self._feeds_function(name)):
            return None
        if self.graph.op(name) == "WindowDataset" and not self._tumbling(name, size):
            return None
        where = describe(self.graph, name)
        if part.one_to_one:
            align = part.align * size
            self.note("worker", where, f"exact on the workers: splits hold multiples of {align}")
            return replace(part, root=name, align=align, trivial=False)
        if not self.exact:
            self.note("worker", where, "exact=False: the last group of each split may be short")
            return replace(part, root=name, trivial=False)
        text = "its source cannot be aligned to it, so it runs here (exact=False would move it)"
        self.note("client", where, text)
        return None

    def _tumbling(self, name: str, size: int) -> bool:
        graph = self.graph
        return graph.int_const(name, "shift") == size and graph.int_const(name, "stride") == 1

    def _feeds_function(self, name: str) -> bool:
        """Whether a user function follows that could run on the workers too."""
        above = self.consumers.get(name)
        while above is not None:
            cls = self.graph.op_class(above)
            if cls.kind is not Kind.LOCAL and cls.group_input is None:
                return False
            if calls_functions(self.graph, above):
                return True
            above = self.consumers.get(above)
        return False

    def _zip(self, name: str, parts: list[Part]) -> Part | None:
        sizes = {leaf.size for part in parts for leaf in part.leaves}
        if any(not p.leaves or not p.one_to_one or p.shuffled for p in parts):
            counters = [p for p in parts if self._is_counter(p)]
            rest = [p for p in parts if p not in counters]
            if any(not p.leaves or not p.one_to_one or p.shuffled for p in rest) or not rest:
                return None
            sizes = {leaf.size for part in rest for leaf in part.leaves}
        if len({p.align for p in parts}) > 1 or (parts[0].align > 1 and len(sizes) > 1):
            return None
        found = [leaf for part in parts for leaf in part.leaves or self._counter_leaf(part)]
        leaves = level(self.graph, found)
        return Part(
            name,
            tuple(leaves),
            any(p.files for p in parts),
            one_to_one=True,
            align=parts[0].align,
            trivial=all(p.trivial for p in parts),
        )

    def _is_counter(self, part: Part) -> bool:
        return not part.leaves and part.trivial and find_leaf(self.graph, part.root) is not None

    def _counter_leaf(self, part: Part) -> list[Leaf]:
        leaf = find_leaf(self.graph, part.root)
        return [] if leaf is None else [leaf]

    def _undivided(self, name: str, parts: list[Part]) -> bool:
        """Whether a global op may run on the worker: it sees everything, and work follows it."""
        if len(parts) != 1 or parts[0].leaves or self.graph.op(name) == "RepeatDataset":
            return False
        above: str | None = name
        while above is not None:
            if calls_functions(self.graph, above):
                text = "exact on the worker: the source is one split"
                self.note("worker", describe(self.graph, name), text)
                return True
            above = self.consumers.get(above)
        return False

    def _kept_repeat(self, name: str) -> bool:
        if not self.keep_repeats or self.graph.op(name) != "RepeatDataset":
            return False
        count, above = self.graph.int_const(name, "count"), self.consumers.get(name)
        return (count or -1) > 0 and above is not None and is_mixing(self.graph, above)

    def _explain_client(self, name: str, cls: OpClass) -> None:
        if cls.kind is Kind.GLOBAL and cls.group_input is None:
            text = "runs at the client: it depends on elements of other splits"
            self.note("client", describe(self.graph, name), text)


def needs_order(graph: Graph, cut: Cut) -> tuple[bool, bool, str]:
    """(An op at the client depends on the order, the result itself has an order, which op)."""
    ends = {part.root: part for part in cut.parts}
    determined: dict[str, bool | None] = {}
    culprit = ""

    def visit(name: str) -> bool | None:
        """True: same sequence every run. False: not. None: no stream below."""
        nonlocal culprit
        if name in ends:
            return not ends[name].shuffled
        below = [determined.setdefault(inner, visit(inner)) for inner in graph.inputs(name)]
        seen = [d for d in below if d is not None]
        cls = graph.op_class(name)
        if not seen:
            return None
        if cls.order_sensitive and any(seen):
            culprit = culprit or describe(graph, name)
        return False if cls.shuffle else any(seen)

    result = visit(graph.root)
    return bool(culprit), bool(result), culprit
