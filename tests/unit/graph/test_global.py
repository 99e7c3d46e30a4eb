"""Global ops run at the client on the streams' elements, and the moves that avoid it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import Plan, analyse

from .harness import check, listed, run_plan

Dataset = tf.data.Dataset


def splits(plan: Plan) -> list[int]:
    return [stream.num_splits for stream in plan.streams]


def evens(n: int) -> Any:
    """A pipeline that nothing can be pushed through: n elements, not one-to-one."""
    return Dataset.range(2 * n).filter(lambda x: x % 2 == 0)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("n", [0, 1, 8, 10])
def test_batch_at_the_end(n: int, drop: bool) -> None:
    plan = check(Dataset.range(n).batch(4, drop_remainder=drop), lanes=1, order=True)
    assert plan.rebatch
    shuffled = Dataset.range(n).shuffle(3).batch(4, drop_remainder=drop)
    sizes = Counter(len(batch) for batch in listed(run_plan(analyse(shuffled))))
    assert sizes == Counter(len(batch) for batch in listed(shuffled))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("n", [0, 3, 96, 100])
def test_batch_then_map_is_exact_on_the_workers(n: int, drop: bool) -> None:
    ds = Dataset.range(n).map(lambda x: x + 1).batch(4, drop_remainder=drop)
    plan = check(ds.map(lambda batch: batch * 2), order=False)
    assert not plan.rebatch
    assert splits(plan) == [max(1, -(-n // 4))]


def test_batch_of_batch_then_map() -> None:
    ds = Dataset.range(50).batch(3).batch(2, drop_remainder=True)
    assert splits(check(ds.map(lambda batch: batch + 1))) == [9]


def test_shuffle_batch_map_stays_on_the_workers() -> None:
    ds = Dataset.range(103).shuffle(8).batch(10, drop_remainder=True).map(lambda b: b + 1)
    plan = analyse(ds)
    assert splits(plan) == [11]
    assert [len(batch) for batch in listed(run_plan(plan))] == [10] * 10


def test_batch_of_files_then_map(records: list[str]) -> None:
    ds = tf.data.TFRecordDataset(records).batch(4).map(tf.strings.length)
    plan = check(ds, lanes=1)
    assert any("exact=False would move it" in note.text for note in plan.notes)
    loose = analyse(ds, exact=False)
    sizes = sorted(len(batch) for batch in listed(run_plan(loose)))
    assert sizes == [1, 1, 2, 3, 4, 4]


def test_padded_and_ragged_batch() -> None:
    ds = evens(10).map(lambda x: tf.fill([x // 2], x))
    check(ds.padded_batch(3), lanes=1, order=True)
    check(ds.padded_batch(3, padded_shapes=[12], padding_values=tf.constant(-1, tf.int64)), lanes=1)
    check(ds.ragged_batch(3), lanes=1, order=True)
    check(ds.apply(tf.data.experimental.dense_to_ragged_batch(4)), lanes=1)
    check(ds.apply(tf.data.experimental.dense_to_sparse_batch(4, [20])), lanes=1)
    check(Dataset.range(20).map(lambda x: tf.fill([x], x)).padded_batch(3).map(lambda b: b + 1))


def test_unbatch_and_rebatch() -> None:
    check(evens(10).batch(3).unbatch(), lanes=1, order=True)
    check(evens(10).batch(3).rebatch(4), lanes=1, order=True)
    check(evens(10).batch(3).rebatch([2, 1], drop_remainder=True), lanes=1, order=True)
    assert splits(check(Dataset.range(20).batch(5).map(lambda b: b + 1).unbatch())) == [4]


@pytest.mark.parametrize("count", [0, 3, 100, -1])
def test_take(count: int) -> None:
    check(evens(10).take(count), order=True)
    narrowed = check(Dataset.range(10).map(lambda x: x + 1).take(count), order=False)
    assert splits(narrowed) == [{0: 1, 3: 3}.get(count, 10)]


@pytest.mark.parametrize("count", [0, 3, 100, -1])
def test_skip(count: int) -> None:
    check(evens(10).skip(count), order=True)
    check(Dataset.range(10).map(lambda x: x + 1).skip(count), order=False)


def test_shard() -> None:
    check(evens(10).shard(3, 1), order=True)
    assert splits(check(Dataset.range(10).map(lambda x: x + 1).shard(4, 1), order=False)) == [3]


def test_take_and_skip_and_shard_of_slices() -> None:
    ds = Dataset.from_tensor_slices({"a": tf.range(30), "b": tf.strings.as_string(tf.range(30))})
    check(ds.skip(3).take(20).shard(3, 2).map(lambda d: d["b"]).skip(1), order=False)
    check(Dataset.zip((Dataset.range(9), Dataset.range(7))).take(8).skip(2), order=False)


def test_take_of_a_shuffle_gives_that_many() -> None:
    plan = analyse(Dataset.range(100).shuffle(10).take(7))
    assert not plan.ordered
    result = listed(run_plan(plan))
    assert len(set(result)) == 7


def test_take_of_file_names(records: list[str]) -> None:
    plan = check(
        Dataset.from_tensor_slices(records).skip(2).take(3).flat_map(tf.data.TFRecordDataset)
    )
    assert splits(plan) == [3]


@pytest.mark.parametrize("count", [1, 3])
def test_repeat(count: int) -> None:
    check(evens(5).repeat(count), lanes=1, order=True)
    plan = check(Dataset.range(6).repeat(count).map(lambda x: x + 1).filter(lambda x: x != 3))
    assert splits(plan) == [6]
    check(Dataset.range(6).shuffle(3).repeat(count).batch(4).map(tf.shape))


def test_repeat_before_shuffle_becomes_epochs() -> None:
    plan = check(Dataset.range(30).repeat(2).shuffle(10).map(lambda x: x))
    assert splits(plan) == [30]
    assert plan.cardinality == 60


def test_infinite_repeat() -> None:
    ds = Dataset.range(6).repeat().map(lambda x: x + 1).batch(4)
    plan = analyse(ds, lanes=1)
    assert plan.cardinality == tf.data.INFINITE_CARDINALITY
    result = run_plan(plan)
    assert result.cardinality() == tf.data.INFINITE_CARDINALITY
    assert listed(result, limit=5) == listed(ds, limit=5)


def test_repeat_in_the_middle() -> None:
    check(evens(5).repeat(2).take(7).repeat(2).map(lambda x: x), order=True)


def test_repeat_under_an_interleave(records: list[str]) -> None:
    ds = Dataset.from_tensor_slices(records[2:]).repeat(2)
    ds = ds.interleave(tf.data.TFRecordDataset, cycle_length=3)
    assert splits(check(ds, order=False)) == [4]
    assert splits(check(ds, lanes=1, order=True)) == [1]


def test_enumerate() -> None:
    check(evens(9).enumerate(start=4), order=True)
    assert splits(check(Dataset.range(9).map(lambda x: x).enumerate(), order=False)) == [9]
    result = listed(run_plan(analyse(Dataset.range(9).shuffle(4).enumerate())))
    assert [i for i, _ in result] == list(range(9))
    assert sorted(x for _, x in result) == list(range(9))


def test_scan_and_take_while() -> None:
    check(evens(9).scan(tf.constant(0, tf.int64), lambda s, x: (s + x, s + x)), order=True)
    check(Dataset.range(9).take_while(lambda x: x < 5), order=True)


def test_unique() -> None:
    check(Dataset.range(30).map(lambda x: x % 7).unique(), order=False)
    check(Dataset.range(30).map(lambda x: x % 7).unique(), lanes=1, order=True)


def test_window() -> None:
    check(evens(10).window(3, shift=2).flat_map(lambda w: w.batch(3)), order=True)
    check(evens(10).window(3).flat_map(lambda w: w.batch(2)), order=True)
    tumbling = Dataset.range(20).window(4, drop_remainder=True).flat_map(lambda w: w.batch(4))
    assert splits(check(tumbling, order=False)) == [5]


def test_group_by_window_and_buckets() -> None:
    ds = evens(20)
    check(ds.group_by_window(lambda x: x % 3, lambda k, w: w.batch(4), window_size=4), lanes=1)
    lengths = ds.map(lambda x: tf.fill([x % 7], x))
    check(
        lengths.bucket_by_sequence_length(tf.size, [3, 5], [2, 3, 4]),
        lanes=1,
        order=True,
    )
    free = analyse(lengths.bucket_by_sequence_length(tf.size, [3, 5], [2, 3, 4]))
    assert not free.ordered
    assert sum(len(batch) for batch in listed(run_plan(free))) == 20


def test_concatenate_and_zip_of_unaligned() -> None:
    assert splits(check(evens(5).concatenate(evens(3)), order=True)) == [10, 6]
    unaligned = Dataset.zip((evens(5), Dataset.range(3).map(lambda x: -x)))
    assert splits(check(unaligned, order=True)) == [10, 3]
    check(Dataset.zip((evens(5), evens(7).map(lambda x: x + 1))).map(lambda a, b: a * b))


def test_sample_and_choose() -> None:
    sources = [evens(5), evens(4).map(lambda x: -x)]
    choice = Dataset.range(2).repeat(4)
    assert splits(check(Dataset.choose_from_datasets(sources, choice), order=True)) == [10, 8]
    ds = Dataset.sample_from_datasets(sources, [0.5, 0.5], seed=3)
    assert splits(check(ds, order=True)) == [10, 8]


def test_rejection_resample() -> None:
    ds = evens(60).rejection_resample(lambda x: tf.cast(x % 4 == 0, tf.int32), [0.5, 0.5], seed=1)
    plan = analyse(ds)
    result = listed(run_plan(plan))
    assert {x for _, x in result} <= set(range(0, 120, 2))
    assert run_plan(plan).element_spec == ds.element_spec


def test_cache_at_the_client_keeps_what_it_saw() -> None:
    ds = evens(6).shuffle(6).batch(2).cache().repeat(2)
    plan = analyse(ds)
    result = listed(run_plan(plan))
    assert result[:3] == result[3:]
    assert sorted(x for batch in result[:3] for x in batch) == [0, 2, 4, 6, 8, 10]


def test_shuffle_at_the_client_is_reproducible_with_a_seed() -> None:
    plan = analyse(evens(40).take(40).shuffle(20), lanes=1)
    results = []
    for key in (5, 5, 6):
        inputs = [evens(40).map(lambda x: (x,))]
        results.append(listed(plan.apply_suffix(inputs, seed=key)))
    assert results[0] == results[1] != results[2]


def test_assert_cardinality_is_checked_on_the_result() -> None:
    ds = evens(5).apply(tf.data.experimental.assert_cardinality(5)).map(lambda x: x + 1)
    plan = check(ds)
    assert plan.cardinality == 5
    assert run_plan(plan).cardinality() == 5
    assert run_plan(plan, assert_cardinality=False).cardinality() == tf.data.UNKNOWN_CARDINALITY


@pytest.mark.parametrize("drop", [False, True])
def test_chunks_instead_of_elements(drop: bool) -> None:
    ds = Dataset.range(22).map(lambda x: {"a": x, "b": tf.strings.as_string(x)})
    ds = ds.repeat(2).batch(4, drop_remainder=drop).prefetch(1)
    plan = analyse(ds, lanes=1)
    assert plan.rebatch
    flat = Dataset.range(22).map(lambda x: (x, tf.strings.as_string(x)))
    assert listed(plan.apply_suffix([flat.batch(5)], chunked=True)) == listed(ds)
    other = analyse(evens(5).take(4))
    assert not other.rebatch
    chunks = evens(5).map(lambda x: (x,)).batch(3)
    assert listed(other.apply_suffix([chunks], chunked=True)) == [0, 2, 4, 6]
