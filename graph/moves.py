"""Rewrites that keep work on the workers without changing the result.

- Nodes that only configure or check (options, assert_cardinality, model and stats nodes) go.
- `repeat` floats up through local ops, to be run by the client as further epochs.
- `take`, `skip` and `shard` sink through one-to-one ops into an index source.
- A zip of index sources of different length is cut to the shortest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .leaf import Leaf, find_leaf, narrow
from .ops import Kind

if TYPE_CHECKING:
    from .ir import Graph


@dataclass
class Moved:
    """What the rewrites did, for the plan's notes."""

    notes: list[tuple[str, str]] = field(default_factory=list)
    #: A repeat passed an interleave: exact only where order does not matter.
    through_interleave: bool = False


def rewrite(graph: Graph, *, through_interleave: bool) -> Moved:
    """Applies every move to `graph` in place."""
    moved = Moved()
    for name in list(graph.datasets()):
        if graph.op(name) == "AssertCardinalityDataset":
            graph.bypass(name)
            moved.notes.append(
                ("assert_cardinality", "checked on the result, not inside the pipeline")
            )
    _float_repeats(graph, moved, through_interleave)
    for name in list(graph.datasets()):
        if name in graph.nodes and graph.op(name) in ("TakeDataset", "SkipDataset", "ShardDataset"):
            _sink(graph, name, moved)
    return moved


def is_mixing(graph: Graph, name: str) -> bool:
    """Whether an interleave takes elements of several inputs in turn."""
    return graph.op_class(name).interleave and graph.int_const(name, "cycle_length") != 1


def _float_repeats(graph: Graph, moved: Moved, through_interleave: bool) -> None:
    for name in [n for n in graph.datasets() if graph.op(n) == "RepeatDataset"]:
        if graph.int_const(name, "count") == 1:
            graph.bypass(name)
            continue
        while (above := graph.consumers().get(name)) is not None:
            if graph.op_class(above).kind is not Kind.LOCAL:
                break
            if is_mixing(graph, above):
                if not through_interleave:
                    break
                moved.through_interleave = True
            _swap(graph, name, above)
            note = ("repeat", "each repetition is an epoch of the service, run by the client")
            if note not in moved.notes:
                moved.notes.append(note)


def _swap(graph: Graph, repeat: str, above: str) -> None:
    source = graph.inputs(repeat)[0]
    graph.replace_uses(above, repeat)
    node = graph.nodes[above]
    position = next(i for i, t in enumerate(node.input) if t.split(":")[0] == repeat)
    node.input[position] = source
    moved = graph.nodes[repeat]
    graph.set_argument(repeat, "input_dataset", above)
    for attribute in ("output_types", "output_shapes"):
        moved.attr[attribute].CopyFrom(node.attr[attribute])
    if above in graph.specs:
        graph.specs[repeat] = graph.specs[above]


def index_leaves(graph: Graph, name: str) -> list[Leaf] | None:
    """The leaves below a node if nothing but one-to-one ops and zips stand between, else None."""
    leaf = find_leaf(graph, name)
    if leaf is not None:
        return None if leaf.reads else [leaf]
    if graph.op(name) != "ZipDataset" and not graph.op_class(name).one_to_one:
        return None
    found: list[Leaf] = []
    below = graph.inputs(name)
    for inner in below:
        leaves = index_leaves(graph, inner)
        if leaves is None:
            return None
        found.extend(leaves)
    return found or None


def level(graph: Graph, leaves: list[Leaf]) -> list[Leaf]:
    """Cuts zipped index leaves to the length of the shortest."""
    shortest = min(leaf.size for leaf in leaves)
    out: list[Leaf] = []
    for leaf in leaves:
        if leaf.size > shortest:
            narrow(graph, leaf, slice(0, shortest))
            again = find_leaf(graph, leaf.name)
            assert again is not None
            out.append(again)
        else:
            out.append(leaf)
    return out


def _sink(graph: Graph, name: str, moved: Moved) -> None:
    keep = _kept(graph, name)
    leaves = index_leaves(graph, graph.inputs(name)[0])
    if keep is None or leaves is None:
        return
    for leaf in level(graph, leaves):
        narrow(graph, leaf, keep)
    graph.bypass(name)
    moved.notes.append(("take/skip/shard", "became a narrower range of the source"))


def _kept(graph: Graph, name: str) -> slice | None:
    op = graph.op(name)
    if op == "ShardDataset":
        shards, index = graph.int_const(name, "num_shards"), graph.int_const(name, "index")
        if shards is None or index is None or shards < 1:
            return None
        return slice(index, None, shards)
    count = graph.int_const(name, "count")
    if count is None:
        return None
    if op == "TakeDataset":
        return slice(0, None if count < 0 else count)
    return slice(0, 0) if count < 0 else slice(count, None)
