"""Pipelines composed at random: whatever the ops and their order, the result is the local one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.graph import analyse, load_stream

from .caches import got, put
from .harness import listed, run_plan

Dataset = tf.data.Dataset

#: Every element is a scalar int64, so that any step fits any other.
SOURCES: dict[str, Any] = {
    "range": lambda n: Dataset.range(n),
    "slices": lambda n: Dataset.from_tensor_slices(tf.range(n, dtype=tf.int64) * 3),
    "tensor": lambda n: Dataset.from_tensors(tf.constant(n, tf.int64)),
    "zip": lambda n: Dataset.zip((Dataset.range(n), Dataset.range(n + 2))).map(lambda a, b: a + b),
    "flat": lambda n: Dataset.range(n).flat_map(lambda x: Dataset.range(x % 3)),
    "concatenate": lambda n: Dataset.range(n).concatenate(Dataset.range(3).filter(lambda x: x > 0)),
    "enumerate": lambda n: Dataset.range(n).enumerate().map(lambda i, x: i * 10 + x),
}
STEPS: dict[str, Any] = {
    "map": lambda ds, k: ds.map(lambda x: x + k),
    "parallel map": lambda ds, k: ds.map(lambda x: x * k, num_parallel_calls=2),
    "filter": lambda ds, k: ds.filter(lambda x: x % 3 != k % 3),
    "batch map unbatch": lambda ds, k: ds.batch(k).map(lambda b: b + 1).unbatch(),
    "batch drop": lambda ds, k: ds.batch(k, drop_remainder=True).map(lambda b: b * 2).unbatch(),
    "batch rows": lambda ds, k: ds.batch(k).flat_map(Dataset.from_tensor_slices),
    "rebatch": lambda ds, k: ds.batch(2).rebatch(k).unbatch(),
    "flat_map": lambda ds, k: ds.flat_map(lambda x: Dataset.range(x % 3, k)),
    "interleave": lambda ds, k: ds.interleave(lambda x: Dataset.range(x, x + 2), cycle_length=k),
    "take": lambda ds, k: ds.take(3 * k),
    "skip": lambda ds, k: ds.skip(k),
    "shard": lambda ds, k: ds.shard(k, k - 1),
    "repeat": lambda ds, k: ds.repeat(1 + k % 2),
    "enumerate": lambda ds, k: ds.enumerate().map(lambda i, x: i + x),
    "scan": lambda ds, k: ds.scan(tf.constant(0, tf.int64), lambda s, x: (s + x, s + x)),
    "take_while": lambda ds, k: ds.take_while(lambda x: x < 6 * k),
    "unique": lambda ds, k: ds.unique(),
    "window": lambda ds, k: ds.window(k, shift=2).flat_map(lambda w: w.batch(k)).unbatch(),
    "tumble": lambda ds, k: ds.window(k).flat_map(lambda w: w.map(lambda x: x + 1)),
    "prefetch": lambda ds, k: ds.prefetch(k),
    "cache": lambda ds, k: ds.cache(),
    "options": lambda ds, k: ds.with_options(tf.data.Options()),
    "ragged": lambda ds, k: ds.map(lambda x: tf.fill([x % 3], x)).ragged_batch(k).map(
        lambda r: tf.reduce_sum(r.flat_values)
    ),
    "padded": lambda ds, k: ds.map(lambda x: tf.fill([x % 3], x)).padded_batch(k).map(tf.size).map(
        lambda size: tf.cast(size, tf.int64)
    ),
    "zip": lambda ds, k: Dataset.zip((ds, Dataset.range(7))).map(lambda a, b: a * b),
    "concatenate": lambda ds, k: ds.concatenate(Dataset.range(k)),
}  # fmt: skip
#: Steps for which the multiset of results depends on how elements are grouped or ordered.
GROUPING = {"batch drop", "ragged", "padded"}
pipelines = st.tuples(
    st.sampled_from(sorted(SOURCES)),
    st.integers(0, 20),
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 4)), max_size=5),
)


def build(recipe: tuple[str, int, list[tuple[str, int]]]) -> Any:
    source, size, steps = recipe
    ds = SOURCES[source](size)
    for name, k in steps:
        ds = STEPS[name](ds, k)
    return ds


def slow(percent: int) -> Any:
    """TensorFlow is slow: only so many of the profile's examples."""
    return settings(
        max_examples=max(1, settings.default.max_examples * percent // 100),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@slow(40)
@given(pipelines)
def test_one_lane_gives_the_local_sequence(recipe: Any) -> None:
    ds = build(recipe)
    plan = analyse(ds, lanes=1)
    assert plan.ordered
    local = listed(ds)
    assert listed(run_plan(plan)) == local
    assert run_plan(plan).element_spec == ds.element_spec


@slow(25)
@given(pipelines)
def test_many_lanes_give_the_local_multiset(recipe: Any) -> None:
    ds = build(recipe)
    plan = analyse(ds)
    local, served = listed(ds), listed(run_plan(plan))
    if plan.ordered:
        assert served == local
    elif not GROUPING & {name for name, _ in recipe[2]}:
        assert Counter(served) == Counter(local)


@slow(15)
@given(pipelines, st.integers(1, 30), st.integers(0, 3))
def test_a_shuffle_anywhere_keeps_the_count(recipe: Any, buffer: int, at: int) -> None:
    source, size, steps = recipe
    # Only steps whose number of results does not depend on the values they see.
    kept = [
        s
        for s in steps
        if s[0]
        in {
            "map",
            "take",
            "skip",
            "shard",
            "repeat",
            "prefetch",
            "enumerate",
            "options",
            "batch map unbatch",
            "zip",
        }
    ]
    ds = build((source, size, kept[:at])).shuffle(buffer)
    for name, k in kept[at:]:
        ds = STEPS[name](ds, k)
    plan = analyse(ds)
    assert len(listed(run_plan(plan))) == len(listed(ds))


@slow(15)
@given(pipelines, st.integers(1, 30), st.integers(0, 2))
def test_at_the_cache_point_all_can_be_written_and_read(recipe: Any, buffer: int, at: int) -> None:
    source, size, steps = recipe
    ds = build((source, size, steps[:at])).shuffle(buffer)
    for name, k in steps[at:]:
        ds = STEPS[name](ds, k)
    for stream in analyse(ds, cache=True).streams:
        loaded = load_stream(stream.blob)
        if loaded.cache is None or loaded.cache.whole:
            continue
        for split in {0, stream.num_splits - 1}:
            want = listed(loaded.split_dataset(split, seed=2, epoch=1))
            dataset, segment = put(loaded, split, seed=2, epoch=1)
            assert listed(dataset) == want
            assert got(loaded, split, segment, seed=2, epoch=1) == want
            assert got(loaded, split, segment, seed=2, epoch=1) == want
