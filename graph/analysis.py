"""From a dataset to its plan: capture, rewrite, cut, make templates, explain."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import NotShippableError, UsageError
from . import moves, split
from .cut import Cut, Cutter, Part, describe, needs_order
from .functions import findings, refusal
from .ir import Graph, capture_graph
from .leaf import leaf_values
from .plan import Note, Plan, Stream
from .spec import components_of
from .suffix import rebatch_node
from .template import (
    add_seed_holes,
    canonicalise,
    graph_bytes,
    name_resources,
    part_graph,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .leaf import Leaf

#: Asking a file system for the sizes of more files than this would delay registration.
_STAT_MAX = 4096


def analyse(ds: Any, *, lanes: int | None = None, exact: bool = True, strict: bool = False) -> Plan:
    """The plan of a dataset.

    Args:
        ds: any `tf.data.Dataset`.
        lanes: the job's lanes, if known; with 1 the result has one order and keeps it.
        exact: the result must be a local run's. If False, splits of files may end in a short
            batch, and interleaves mix files in another order, for more work on the workers.
        strict: what a replay cannot reproduce is an error instead of a note.

    Raises:
        NotShippableError: something in the workers' part cannot run in another process.
    """
    if lanes is not None and lanes < 1:
        raise UsageError(f"lanes must be at least 1, not {lanes}")
    try:
        original = capture_graph(ds)
    except tf.errors.OpError as error:
        raise NotShippableError(
            f"TensorFlow cannot serialise the dataset: {error.message}"
        ) from error
    graph, moved, cut = _cut(original, exact, through_interleave=True)
    sensitive, sequence, culprit = needs_order(graph, cut)
    ordered = sensitive or (sequence and lanes == 1)
    if ordered and exact and moved.through_interleave:
        graph, moved, cut = _cut(original, exact, through_interleave=False)
        sensitive, sequence, culprit = needs_order(graph, cut)
    notes = [Note("move", where, text) for where, text in moved.notes]
    notes += [Note(*row) for row in cut.notes]
    if ordered:
        why = f"{culprit} depends on it" if culprit else "the pipeline has one order and one lane"
        notes.append(Note("order", "pipeline", f"splits are delivered in source order: {why}"))
    streams = []
    for part in cut.parts:
        stream, said = _stream(graph, part, ordered=ordered, exact=exact, strict=strict)
        streams.append(stream)
        notes += said
    ends = [part.root for part in cut.parts]
    return Plan(
        streams=tuple(streams),
        ordered=ordered,
        lanes=1 if ordered else lanes,
        notes=tuple(dict.fromkeys(notes)),
        element_spec=ds.element_spec,
        cardinality=int(ds.cardinality()),
        fingerprint=_whole_fingerprint(graph, ends, streams, ordered),
        rebatch=rebatch_node(graph, ends) is not None,
        client_steps=_steps(graph, graph.root, ends),
        _graph=graph,
        _ends=tuple(ends),
        _dataset=ds,
    )


def _cut(
    original: Graph, exact: bool, *, through_interleave: bool
) -> tuple[Graph, moves.Moved, Cut]:
    graph = original.copy()
    moved = moves.rewrite(graph, through_interleave=through_interleave)
    cutter = Cutter(graph, exact=exact, keep_repeats=not through_interleave)
    return graph, moved, cutter.run()


def _stream(
    graph: Graph, part: Part, *, ordered: bool, exact: bool, strict: bool
) -> tuple[Stream, list[Note]]:
    spec = graph.spec(part.root)
    where = describe(graph, part.root)
    notes = _dropped_notes(graph, part)
    leaves = list(part.leaves)
    single = part.single
    if ordered and part.mixing and not part.shuffled:
        if exact:
            single = "an interleave takes elements of several inputs in turn (exact=False splits)"
            leaves = []
        else:
            text = "exact=False: inputs are interleaved within a split only"
            notes.append(Note("split", where, text))
    source = _source(graph, part)
    weights = _weights(graph, part, leaves)
    template = part_graph(graph, part, spec)
    holes = add_seed_holes(template)
    replayable = _check(template, strict, notes)
    table = _table(part, leaves, [h.every_epoch_same for h in holes])
    names = canonicalise(template)
    name_resources(template)
    holes = [type(h)(names.get(h.function, h.function), h.names, h.every_epoch_same) for h in holes]
    blob, fingerprint = split.encode(template, spec, [leaf.name for leaf in leaves], table, holes)
    if table.mode == "one":
        notes.append(Note("split", source, f"one split on one worker: {single}"))
    else:
        order = ", of a seeded permutation" if table.permute else ""
        size = f"{table.step} element{'s' if table.step != 1 else ''}"
        size = size if table.mode == "index" else size.replace("element", "file")
        plural = "s" if table.count != 1 else ""
        notes.append(Note("split", source, f"{table.count} split{plural} of {size}{order}"))
    stream = Stream(
        fingerprint=fingerprint,
        blob=blob,
        num_splits=table.count,
        weights=weights if weights is None or len(weights) == table.count else None,
        components=components_of(spec),
        replayable=replayable,
        shuffled=part.shuffled,
        source=source,
        steps=_steps(graph, part.root, ()),
    )
    return stream, notes


def _table(part: Part, leaves: list[Leaf], same: list[bool]) -> split.SplitTable:
    if not leaves:
        return split.SplitTable("one")
    items = leaves[0].size
    step = split.split_step(items, part.align, files=part.files)
    permute = part.permute and not part.files
    mode = "files" if part.files else "index"
    return split.SplitTable(mode, items, step, permute, permute and bool(same) and all(same))


def _dropped_notes(graph: Graph, part: Part) -> list[Note]:
    notes = []
    below = [part.root]
    for name in below:
        below.extend(graph.inputs(name))
        if graph.op(name).startswith(("CacheDataset", "SnapshotDataset")):
            text = "not run on the workers: the service has its own cache"
            notes.append(Note("worker", describe(graph, name), text))
    return notes


def _check(template: Graph, strict: bool, notes: list[Note]) -> bool:
    """Refuses what cannot ship, notes what cannot be replayed; whether a replay is exact."""
    found = findings(template, template.reachable(template.root))
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


def _steps(graph: Graph, root: str, stop: Sequence[str]) -> tuple[str, ...]:
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


def _whole_fingerprint(graph: Graph, ends: list[str], streams: list[Stream], ordered: bool) -> str:
    rest = Graph(graph.to_proto(graph.root, retval=False, stop=ends), graph.root, {})
    add_seed_holes(rest)
    canonicalise(rest)
    name_resources(rest)
    content = [graph_bytes(rest), *(s.fingerprint.encode() for s in streams), b"%d" % ordered]
    digest = hashlib.blake2b(digest_size=16)
    for piece in content:
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()
