"""One part of a graph becomes a stream: its splits, its templates, its blob."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import NotShippableError
from . import split
from .composite import append_flatten, insert_pack
from .cut import describe
from .functions import findings, refusal
from .ir import Graph
from .keyed import key_random_ops
from .leaf import leaf_values
from .plan import CachePoint, Note, Stream
from .points import PointFinder, one_run_notes
from .spec import components_of, is_dense
from .template import POINT, add_seed_holes, append_options, bare_part, seal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cut import Part
    from .keyed import Keyed
    from .leaf import Leaf
    from .points import Point
    from .template import Template

#: Asking a file system for the sizes of more files than this would delay registration.
_STAT_MAX = 4096


def make_stream(
    graph: Graph, part: Part, *, ordered: bool, exact: bool, strict: bool, cache: bool
) -> tuple[Stream, list[Note]]:
    """The stream of a part, and what there is to say about it; see `analyse`."""
    spec = graph.spec(part.root)
    notes = _dropped_notes(graph, part)
    leaves, single = _divided(graph, part, ordered=ordered, exact=exact, notes=notes)
    finder = PointFinder(graph, part)
    point = finder.find(wanted=cache)
    notes += [Note(*row) for row in finder.notes]
    graphs = [_whole_graph(graph, part, spec)]
    if point is not None:
        graphs = _divide(graph, part, spec, point)
    # Deepest first, so that a head's holes are numbered alike whatever its tail.
    keyed = [key_random_ops(piece) for piece in graphs]
    notes += _random_notes(keyed)
    holes = [add_seed_holes(piece) for piece in graphs]
    replayable = _check(graphs, strict, notes)
    names = [leaf.name for leaf in leaves]
    head = None
    if point is not None:
        notes += [Note(*row) for row in one_run_notes(graphs[0])]
        held = [name for name in names if name in graphs[0].nodes]
        cached = not point.obstacle
        inner = graph.spec(point.node) if cached else ()
        below = seal(graphs[0], held, holes[0], keyed[0].holes, head=True)
        head = split.Head(below, inner, point.whole, cached)
        names = [name for name in names if name not in held]
    template = seal(graphs[-1], names, holes[-1], keyed[-1].holes)
    table = _table(part, leaves, template, frozen=head is not None)
    encoded = split.encode(template, spec, table, head)
    source = _source(graph, part)
    notes += _split_notes(table, source, single, tail=template if head is not None else None)
    weights = _weights(graph, part, leaves)
    stream = Stream(
        fingerprint=encoded.fingerprint,
        blob=encoded.blob,
        num_splits=table.count,
        weights=weights if weights is None or len(weights) == table.count else None,
        components=components_of(spec),
        replayable=replayable,
        shuffled=part.shuffled,
        permuted=table.permute,
        blended=part.blended,
        source=source,
        steps=steps(graph, part.root, ()),
        cache=_cache_point(point, encoded.key),
    )
    return stream, notes


def _cache_point(point: Point | None, key: str) -> CachePoint | None:
    if point is None or point.obstacle:
        return None
    return CachePoint(key, point.where, point.whole, point.marked)


def _divided(
    graph: Graph, part: Part, *, ordered: bool, exact: bool, notes: list[Note]
) -> tuple[list[Leaf], str]:
    """The leaves by which the part is divided, or none and why not."""
    if ordered and part.mixing and not part.shuffled:
        if exact:
            return [], "an interleave takes elements of several inputs in turn (exact=False splits)"
        text = "exact=False: inputs are interleaved within a split only"
        notes.append(Note("split", describe(graph, part.root), text))
    return list(part.leaves), part.single


def _whole_graph(graph: Graph, part: Part, spec: Any) -> Graph:
    """The part in one piece, yielding flat dense components."""
    alone = bare_part(graph, part.root)
    if not is_dense(spec):
        append_flatten(alone, spec)
    append_options(alone)
    return alone


def _divide(graph: Graph, part: Part, spec: Any, point: Point) -> list[Graph]:
    """The part in two pieces, both yielding flat dense components: below and above the point.

    Where nothing can be cached, elements pass the point in the form that they have.
    """
    alone = bare_part(graph, part.root)
    inner = graph.spec(point.node)
    head = Graph(alone.to_proto(point.node, retval=False), point.node, {})
    head.sort()
    flat = not point.obstacle and not is_dense(inner)
    if flat:
        append_flatten(head, inner)
    if point.whole:
        alone.root = point.node
    elif flat:
        insert_pack(alone, point.node, inner)
    if not is_dense(spec) and not (flat and point.whole):
        append_flatten(alone, spec)
    append_options(alone, like=head.nodes[head.root] if alone.root == point.node else None)
    tail = Graph(alone.to_proto(alone.root, retval=False, stop=[point.node]), alone.root, {})
    tail.rename_all({point.node: POINT})
    return [head, tail]


def _table(part: Part, leaves: list[Leaf], template: Template, *, frozen: bool) -> split.SplitTable:
    if not leaves:
        return split.SplitTable("one", frozen=frozen)
    items = leaves[0].size
    step = split.split_step(items, part.align, files=part.files)
    permute = part.permute and not part.files
    mode = "files" if part.files else "index"
    same = frozen or (bool(template.holes) and all(h.every_epoch_same for h in template.holes))
    return split.SplitTable(mode, items, step, permute, permute and same, frozen)


def _split_notes(
    table: split.SplitTable, source: str, single: str, *, tail: Template | None
) -> list[Note]:
    if table.mode == "one":
        return [Note("split", source, f"one split on one worker: {single}")]
    order = ", of a seeded permutation" if table.permute else ""
    size = f"{table.step} element{'s' if table.step != 1 else ''}"
    size = size if table.mode == "index" else size.replace("element", "file")
    plural = "s" if table.count != 1 else ""
    notes = [Note("split", source, f"{table.count} split{plural} of {size}{order}")]
    if table.permute and tail is not None and tail.holes:
        text = "every epoch has the same splits: what follows the cache point mixes within each"
        notes.append(Note("cache", source, text))
    return notes


def _dropped_notes(graph: Graph, part: Part) -> list[Note]:
    text = "not run on the workers: the service has its own cache"
    return [
        Note("worker", describe(graph, name), text)
        for name in _below(graph, part.root)
        if graph.op(name).startswith("SnapshotDataset")
    ]


def _random_notes(keyed: list[Keyed]) -> list[Note]:
    text = "made reproducible: what it draws depends on seed, epoch, split and element alone"
    rows = dict.fromkeys(row for piece in keyed for row in piece.rewritten)
    return [Note("random", where, f"{op}: {text}") for op, where in rows]


def _check(pieces: list[Graph], strict: bool, notes: list[Note]) -> bool:
    """Refuses what cannot ship, notes what cannot be replayed; whether a replay is exact."""
    every = [f for piece in pieces for f in findings(piece, piece.reachable(piece.root))]
    found = list(dict.fromkeys(every))
    fatal = [f for f in found if f.fatal]
    # A py_function or a generator is named by its outermost finding alone.
    if fatal:
        raise NotShippableError(refusal(fatal[0]))
    for finding in found:
        what = "draws random numbers" if finding.random else "has state"
        text = (
            f"{finding.op} {what} that a replay does not repeat: this stream is verified by "
            "position, not by value; stateless random ops (tf.random.stateless_*) are repeated"
        )
        if strict:
            raise NotShippableError(f"{finding.where}: {text}")
        notes.append(Note("replay", finding.where, text))
    return not found


def _source(graph: Graph, part: Part) -> str:
    if not part.leaves:
        names = [n for n in _below(graph, part.root) if not graph.inputs(n)]
        return ", ".join(graph.op(name) for name in names)
    size = part.leaves[0].size
    if part.files:
        return f"{size} file{'s' if size != 1 else ''}"
    kinds = dict.fromkeys(graph.op(leaf.name).removesuffix("Dataset") for leaf in part.leaves)
    return f"{' and '.join(kinds)} of {size}"


def steps(graph: Graph, root: str, stop: Sequence[str]) -> tuple[str, ...]:
    """The ops up to `root` in the order in which elements pass them, from those in `stop` on."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in stop and name not in order:
            for below in graph.inputs(name):
                visit(below)
            order[name] = None

    visit(root)
    return tuple(describe(graph, name).removesuffix("()") for name in order)


def _below(graph: Graph, name: str) -> list[str]:
    found = [name]
    for at in found:
        found.extend(graph.inputs(at))
    return found


def _weights(graph: Graph, part: Part, leaves: list[Leaf]) -> tuple[int, ...] | None:
    if not leaves:
        return None
    items = leaves[0].size
    step = split.split_step(items, part.align, files=part.files)
    starts = range(0, items, step)
    if part.files:
        sizes = _file_sizes(graph, leaves, items)
        if sizes is None:
            return None
        weights = tuple(sum(sizes[at : at + step]) for at in starts)
    else:
        if items % step == 0:
            return None  # not spelled out: there may be very many
        weights = tuple(min(step, items - at) for at in starts)
    return weights if len(set(weights)) > 1 else None


def _file_sizes(graph: Graph, leaves: list[Leaf], items: int) -> list[int] | None:
    if items > _STAT_MAX:
        return None
    for leaf in leaves:
        for value in leaf_values(graph, leaf) if leaf.rows else ():
            if value.dtype == tf.string and value.shape.rank == 1:
                try:
                    return [int(tf.io.gfile.stat(name).length) for name in value.numpy()]
                except (tf.errors.OpError, OSError):
                    return None
    return None
