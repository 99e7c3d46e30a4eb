"""From a dataset to its plan: capture, rewrite, cut, make templates, explain."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import NotShippableError, UsageError
from . import moves
from .cut import Cut, Cutter, describe, needs_order
from .functions import findings
from .ir import Graph, capture_graph
from .marks import is_mark
from .plan import Note, Plan
from .streams import make_stream, steps
from .suffix import final_batch, rebatch_node
from .template import add_seed_holes, canonicalise, graph_bytes, name_resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Stream


def analyse(
    ds: Any,
    *,
    lanes: int | None = None,
    exact: bool = True,
    strict: bool = False,
    cache: bool = False,
) -> Plan:
    """The plan of a dataset.

    Args:
        ds: any `tf.data.Dataset`.
        lanes: the job's lanes, if known; with 1 the result has one order and keeps it.
        exact: the result must be a local run's. If False, splits of files may end in a short
            batch, and interleaves mix files in another order, for more work on the workers.
        strict: what a replay cannot reproduce is an error instead of a note.
        cache: workers may cache: find a cache point where the user marked none. A mark
            (`.cache()`, `cache_here()`) counts in any case.

    Raises:
        NotShippableError: something in the workers' part cannot run in another process.
    """
    if lanes is not None and lanes < 1:
        raise UsageError(f"lanes must be at least 1, not {lanes}")
    original = _captured(ds)
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
    made = [
        make_stream(graph, part, ordered=ordered, exact=exact, strict=strict, cache=cache)
        for part in cut.parts
    ]
    streams = [stream for stream, _ in made]
    notes += [note for _, said in made for note in said]
    ends = [part.root for part in cut.parts]
    notes += _client_draws(graph, ends, strict=strict)
    notes += _idle_marks(graph, ends)
    return Plan(
        streams=tuple(streams),
        ordered=ordered,
        lanes=1 if ordered else lanes,
        notes=tuple(dict.fromkeys(notes)),
        element_spec=ds.element_spec,
        cardinality=int(ds.cardinality()),
        fingerprint=_whole_fingerprint(graph, ends, streams, ordered),
        rebatch=rebatch_node(graph, ends) is not None,
        final_batch=final_batch(graph, ends),
        client_steps=steps(graph, graph.root, ends),
        _graph=graph,
        _ends=tuple(ends),
        _dataset=ds,
    )


def _captured(ds: Any) -> Graph:
    try:
        return capture_graph(ds)
    except tf.errors.OpError as error:
        raise NotShippableError(
            f"TensorFlow cannot serialise the dataset: {error.message}"
        ) from error


def _cut(
    original: Graph, exact: bool, *, through_interleave: bool
) -> tuple[Graph, moves.Moved, Cut]:
    graph = original.copy()
    moved = moves.rewrite(graph, through_interleave=through_interleave)
    cutter = Cutter(graph, exact=exact, keep_repeats=not through_interleave)
    return graph, moved, cutter.run()


def _client_draws(graph: Graph, ends: list[str], *, strict: bool) -> Iterator[Note]:
    """A note for every op in the client's functions that another run does not repeat.

    Raises:
        NotShippableError: there is one, and `strict`.
    """
    suffix = Graph(graph.to_proto(graph.root, retval=False, stop=ends), graph.root, {})
    above = [name for name in suffix.reachable(suffix.root) if name not in ends]
    for finding in findings(suffix, above):
        if finding.fatal:
            continue  # Python and other objects of this process may be used in it
        what = "draws random numbers" if finding.random else "has state"
        text = f"{finding.op} {what} at the client that another run does not repeat"
        if strict:
            raise NotShippableError(f"{finding.where}: {text}")
        yield Note("replay", finding.where, text)


def _idle_marks(graph: Graph, ends: list[str]) -> Iterator[Note]:
    """A note for every mark where the workers cannot see it."""
    todo = [graph.root]
    for name in todo:
        if name not in ends:
            todo.extend(graph.inputs(name))
            if is_mark(graph.nodes[name]):
                text = "marks nothing: it is at the client, above what the workers run"
                yield Note("cache", describe(graph, name), text)


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
