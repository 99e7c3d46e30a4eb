"""Where the cache point is, why, and how it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import CachePoint, Plan, analyse, cache_here, explain
from penstock.graph.ir import capture_graph
from penstock.graph.marks import is_mark

from . import recipe
from .caches import PIPELINES, marked, nested, odd, plus, ragged, thrice
from .harness import check, listed, run_plan

Dataset = tf.data.Dataset
numbers = Dataset.range(100).map(plus)
endless = Dataset.range(1 << 60)


def noise(x: Any) -> Any:
    return x, tf.random.uniform([])


def candidate(x: Any) -> Any:
    return x, tf.random.uniform_candidate_sampler([[1]], 1, 1, False, 99)[0][0]


def point(ds: Any, **options: Any) -> CachePoint | None:
    """The cache point of the one stream of a pipeline."""
    (stream,) = analyse(ds, **options).streams
    return stream.cache


def where(ds: Any, **options: Any) -> str:
    found = point(ds, **options)
    return found.where if found is not None else "nowhere"


def key(ds: Any, **options: Any) -> str:
    found = point(ds, **options)
    assert found is not None
    return found.key


def said(plan: Plan) -> list[str]:
    """The plan's notes on caching."""
    return [str(note) for note in plan.notes if note.kind == "cache"]


# Marks.


def test_cache_here_changes_nothing_in_a_local_run() -> None:
    for ds in (numbers, numbers.map(nested), numbers.filter(odd), Dataset.counter()):
        mark = ds.apply(cache_here())
        assert mark.element_spec == ds.element_spec
        assert mark.cardinality() == ds.cardinality()
        assert listed(mark, limit=20) == listed(ds, limit=20)


def test_cache_here_reads_nothing_ahead() -> None:
    seen: list[int] = []
    ds = Dataset.range(10).map(
        lambda x: tf.py_function(lambda y: seen.append(int(y)) or y, [x], tf.int64)
    )
    next(iter(ds.apply(cache_here())))
    assert seen == [0]


def test_cache_here_is_seen_in_the_graph_and_other_prefetches_are_not() -> None:
    for ds, want in ((numbers.apply(cache_here()), True), (numbers.prefetch(0, name="x"), False)):
        graph = capture_graph(ds)
        assert is_mark(graph.nodes[graph.root]) is want
        assert is_mark(graph.nodes[graph.inputs(graph.root)[0]]) is False


@pytest.mark.parametrize(
    "mark",
    [lambda ds: ds.cache(), lambda ds: ds.cache("/nowhere/f"), lambda ds: ds.apply(cache_here())],
    ids=["cache", "cache in a file", "cache_here"],
)
@pytest.mark.parametrize("cache", [False, True])
def test_a_mark_is_the_cache_point(mark: Callable[[Any], Any], cache: bool) -> None:
    found = point(mark(numbers.shuffle(5)).map(thrice), cache=cache)
    assert found is not None
    assert (found.where, found.whole, found.marked) == ("after Shuffle(5)", False, True)


def test_a_cache_in_a_file_is_told_that_it_is_not_written() -> None:
    assert any("file is not written" in note for note in said(analyse(numbers.cache("/x/y"))))
    assert not any("file is not written" in note for note in said(analyse(numbers.cache())))


def test_marked_pipelines_give_the_local_result(records: list[str]) -> None:
    for name in ("map", "ragged", "records", "one split"):
        check(marked(name, records))
        check(marked(name, records), lanes=1)
        check(marked(name, records), cache=True)


def test_the_topmost_mark_counts() -> None:
    plan = analyse(numbers.cache().map(plus).apply(cache_here()).map(thrice))
    (stream,) = plan.streams
    assert stream.cache is not None
    assert stream.cache.where == "after Map(map_plus)"
    (other,) = [note for note in said(plan) if "topmost" in note]
    assert other.startswith("cache: Cache()")
    assert stream.cache.key == key(numbers.map(plus).cache().map(odd))


def test_one_mark_of_a_zip_counts() -> None:
    ds = Dataset.zip((numbers.cache(), Dataset.range(100).map(thrice).cache()))
    plan = check(ds.map(lambda x, y: x + y))
    assert where(ds.map(lambda x, y: x + y)) == "after Map(map_plus)"
    assert any("one mark of a stream counts" in note for note in said(plan))


def test_a_mark_at_the_client_stays_there() -> None:
    plan = analyse(numbers.filter(odd).batch(3).cache().repeat(2))
    assert plan.streams[0].cache is None
    assert "Cache" in plan.client_steps
    assert said(plan) == []
    plan = analyse(numbers.filter(odd).batch(3).apply(cache_here()))
    assert said(plan) == [
        "cache: cache_here(): marks nothing: it is at the client, above what the workers run"
    ]


# Without a mark.


def test_without_a_mark_and_without_being_asked_nothing_changes() -> None:
    plan = analyse(numbers.map(thrice))
    assert plan.streams[0].cache is None
    assert said(plan) == []
    assert analyse(numbers.map(thrice), cache=False).fingerprint == plan.fingerprint
    assert analyse(numbers.map(thrice), cache=True).fingerprint != plan.fingerprint


@pytest.mark.parametrize(
    ("ds", "want"),
    [
        (numbers.map(thrice), "after Map(map_thrice)"),
        (numbers.prefetch(3).with_options(tf.data.Options()), "after Map(map_plus)"),
        (numbers.filter(odd).shuffle(9).map(thrice), "after Filter(filter_odd)"),
        (numbers.map(thrice).map(noise).map(lambda x, y: x), "after Map(map_thrice)"),
        (numbers.flat_map(lambda x: Dataset.range(3).shuffle(3)), "after Map(map_plus)"),
        (numbers.shuffle(9, reshuffle_each_iteration=False).map(thrice), "after Map(map_plus)"),
        (numbers.map(lambda x: tf.random.stateless_uniform([], [x, 1])), "after Map"),
        (tf.data.TextLineDataset(["a", "b"]).shuffle(5), "after FlatMap"),
        (Dataset.random(seed=3).take(9).map(plus), "after Map(map_plus)"),
        (Dataset.zip((numbers, numbers)).map(lambda x, y: x + y), "after Map"),
    ],
    ids=[
        *("map", "identities", "shuffle", "random op", "inner shuffle", "frozen shuffle"),
        *("stateless", "shuffled files", "seeded source", "zip"),
    ],
)
def test_the_default_is_as_far_up_as_nothing_is_random(ds: Any, want: str) -> None:
    found = point(ds, cache=True)
    assert found is not None
    assert found.where.startswith(want)
    assert not found.marked


def test_the_default_says_where_and_why() -> None:
    def only(ds: Any) -> str:
        (note,) = (n for n in said(analyse(ds, cache=True)) if "same splits" not in n)
        return note

    assert only(numbers.shuffle(1024).map(thrice)) == (
        "cache: before Shuffle(1024): what is made up to here is the same in every epoch; what "
        "follows is run again"
    )
    assert only(numbers).startswith("cache: after Map(map_plus): nothing is random")
    assert only(Dataset.range(9).shuffle(3)).startswith(
        "cache: before Shuffle(3): nothing to cache"
    )
    assert only(Dataset.zip((numbers.map(noise), numbers)).map(lambda x, y: y)).startswith(
        "cache: Zip: nothing to cache"
    )


def test_a_shuffle_after_the_point_mixes_within_the_splits_and_a_note_says_so() -> None:
    plan = analyse(numbers.shuffle(10), cache=True)
    assert any("mixes within each" in note for note in said(plan))
    assert not any(
        "mixes within each" in note for note in said(analyse(numbers.shuffle(9).cache()))
    )


@pytest.mark.parametrize(
    ("ds", "why"),
    [
        (endless.map(plus), "no end"),
        (Dataset.random(seed=4).map(plus), "no end"),
        (Dataset.random().take(5).map(plus), "random"),
        (numbers.shuffle(3).ignore_errors(), "ignore_errors"),
        (Dataset.random(seed=4).take(9).shuffle(9).take(3).map(plus), "may not read it to its end"),
        (numbers.map(lambda x: tf.bitcast(x, tf.quint8)), "quint8"),
    ],
    ids=["endless", "random", "unseeded", "ignore_errors", "take", "quantised"],
)
def test_where_caching_would_go_wrong_there_is_no_default(ds: Any, why: str) -> None:
    plan = analyse(ds, cache=True)
    cache = plan.streams[0].cache
    if why == "quint8":
        assert cache is not None
        assert cache.where == "after Map(map_plus)"
    else:
        assert cache is None
        assert any(why in note for note in said(plan))


@pytest.mark.parametrize(
    ("ds", "why"),
    [
        (endless.map(plus).cache().map(thrice), "it has no end"),
        (numbers.cache().ignore_errors(), "ignore_errors"),
        (Dataset.random(seed=4).take(9).cache().take(3).map(plus), "Take(3) may not read it"),
        (numbers.map(lambda x: tf.bitcast(x, tf.quint8)).cache(), "cannot be stored"),
    ],
    ids=["endless", "ignore_errors", "take", "quantised"],
)
def test_a_mark_that_cannot_be_cached_says_why(ds: Any, why: str) -> None:
    plan = analyse(ds)
    assert plan.streams[0].cache is None
    assert any("cannot hold it" in note and why in note for note in said(plan))


# What is not replayable.


def test_what_has_state_below_the_point_is_one_runs() -> None:
    plan = analyse(numbers.map(candidate).cache().map(lambda x, y: y))
    assert [note.where for note in plan.notes if note.kind == "replay"] == ["map_candidate"]
    assert any("UniformCandidateSampler" in note and "one run" in note for note in said(plan))
    assert not plan.streams[0].replayable
    assert len(listed(run_plan(plan))) == 100


def test_what_has_state_above_the_point_is_not() -> None:
    plan = analyse(numbers.cache().map(candidate))
    assert [note.where for note in plan.notes if note.kind == "replay"] == ["map_candidate"]
    assert not any("one run" in note for note in said(plan))


def test_random_ops_are_reproducible_on_both_sides_of_the_point() -> None:
    plan = analyse(numbers.map(noise).cache().map(lambda x, y: noise(y)), strict=True)
    assert plan.streams[0].replayable
    assert not any("one run" in note for note in said(plan))


# Whole streams.


@pytest.mark.parametrize(
    ("ds", "whole"),
    [
        (numbers.cache(), True),
        (numbers.cache().prefetch(3).with_options(tf.data.Options()), True),
        (numbers.prefetch(3).cache().batch(3), True),
        (numbers.map(ragged).cache(), True),
        (numbers.cache().map(thrice), False),
        (numbers.cache().shuffle(3), False),
    ],
    ids=["cache", "identities after", "client's part after", "ragged", "map", "shuffle"],
)
def test_streams_of_which_nothing_follows_are_whole(ds: Any, whole: bool) -> None:
    found = point(ds)
    assert found is not None
    assert found.whole is whole


# Keys.


def test_keys_do_not_depend_on_the_tail(records: list[str]) -> None:
    for name in ("map", "nested", "shuffles inside", "records", "one split"):
        head, tail = PIPELINES[name](records)
        heads = [
            head.cache(),
            head.apply(cache_here()),
            tail(head.cache()),
            head.prefetch(2).cache().filter(lambda *e: True),
            head.cache().flat_map(lambda *e: Dataset.range(3).shuffle(3)),
        ]
        assert len({key(ds) for ds in heads}) == 1, name


def test_a_default_point_has_the_key_of_a_mark_there() -> None:
    assert key(numbers.map(noise), cache=True) == key(numbers.cache().map(thrice))


def test_keys_depend_on_everything_below(records: list[str]) -> None:
    table = [
        tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [v]), 0) for v in (1, 2)
    ]
    constants = [tf.constant(value, tf.int64) for value in (3, 4)]
    slices = Dataset.from_tensor_slices
    heads = [
        numbers,
        numbers.map(thrice),
        numbers.filter(odd),
        Dataset.range(101).map(plus),
        Dataset.range(1, 101).map(plus),
        *(Dataset.range(100).map(lambda x, c=c: x + c) for c in constants),
        *(Dataset.range(100).map(lambda x, t=t: t.lookup(tf.cast(x, tf.int32))) for t in table),
        slices([1, 2, 3]),
        slices([1, 2, 4]),
        slices([1.0, 2.0, 3.0]),
        tf.data.TFRecordDataset(records),
        tf.data.TFRecordDataset([*records[:-1], records[0]]),
        numbers.shuffle(3),
        numbers.shuffle(4),
        numbers.shuffle(3).map(plus),
    ]
    assert len({key(ds.cache().filter(lambda *e: True)) for ds in heads}) == len(heads)


def test_keys_depend_on_how_splits_are_made() -> None:
    aligned = numbers.cache().batch(7).map(thrice)
    assert key(numbers.cache()) != key(aligned)
    assert key(numbers.cache()) != key(numbers.cache().shuffle(3))


def test_keys_do_not_depend_on_the_users_seeds() -> None:
    assert len({key(numbers.shuffle(3, seed=seed).cache()) for seed in (1, 2, None)}) == 1


def test_fingerprints_tell_marks_and_their_places_apart() -> None:
    variants = [
        numbers.map(thrice),
        numbers.cache().map(thrice),
        numbers.map(thrice).cache(),
        Dataset.range(100).cache().map(plus).map(thrice),
    ]
    streams = [analyse(ds).streams[0] for ds in variants]
    assert len({stream.fingerprint for stream in streams}) == len(variants)
    assert len({stream.cache and stream.cache.key for stream in streams}) == len(variants)


def test_a_pipeline_with_everything_has_a_point_and_one_name() -> None:
    first, second = (analyse(recipe.make(), cache=True) for _ in range(2))
    assert first.streams[0].cache == second.streams[0].cache is not None
    assert first.fingerprint == second.fingerprint


# Words.


def test_the_explanation_shows_the_cache_point() -> None:
    explanation = explain(numbers.shuffle(4).map(thrice), cache=True)
    text = str(explanation)
    assert "can be cached: after Map(map_plus)" in text
    assert "cached:\n  before Shuffle(4): what is made" in text
    (stream,) = json.loads(json.dumps(explanation.to_dict()))["streams"]
    assert stream["cache"].keys() == {"key", "where", "whole", "marked"}
    assert "can be cached: after Map(map_plus), which is all" in str(explain(numbers, cache=True))
    (stream,) = explain(numbers).to_dict()["streams"]
    assert stream["cache"] is None


def test_the_steps_name_the_mark() -> None:
    (stream,) = analyse(numbers.apply(cache_here()).map(thrice)).streams
    assert stream.steps[2] == "cache_here"
