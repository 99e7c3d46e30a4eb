"""Local ops run on the workers, split by split, with the local run's result."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import analyse, load_stream

from .harness import check, listed, plain, run_plan

Dataset = tf.data.Dataset


def whole(ds: Any, **options: Any) -> Any:
    """Checks a pipeline that must run on the workers entirely, as one divided stream."""
    plan = check(ds, **options)
    (stream,) = plan.streams
    assert stream.num_splits > 1
    assert not [note for note in plan.notes if note.kind == "client"]
    return plan


@pytest.mark.parametrize("parallel", [None, 2, tf.data.AUTOTUNE])
@pytest.mark.parametrize("deterministic", [None, False, True])
def test_map(parallel: int | None, deterministic: bool | None) -> None:
    ds = Dataset.range(40).map(
        lambda x: (x, tf.cast(x, tf.float32) / 3),
        num_parallel_calls=parallel,
        deterministic=deterministic if parallel else None,
    )
    whole(ds)


def test_parallel_map_is_in_order_whatever_the_options() -> None:
    options = tf.data.Options()
    options.deterministic = False
    ds = Dataset.range(200).map(lambda x: x * 2, num_parallel_calls=8).with_options(options)
    assert listed(run_plan(analyse(ds, lanes=1))) == [2 * x for x in range(200)]


def test_filter() -> None:
    whole(Dataset.range(50).filter(lambda x: x % 3 == 0))
    whole(Dataset.range(50).filter(lambda x: x < 0))


def test_flat_map_and_unbatch() -> None:
    whole(Dataset.range(12).flat_map(lambda x: Dataset.range(x)))
    whole(Dataset.range(12).map(lambda x: tf.fill([x], x)).unbatch())


def test_interleave_over_an_index_source() -> None:
    ds = Dataset.range(10).interleave(lambda x: Dataset.range(x, x + 3), cycle_length=4)
    whole(ds, order=False)
    assert check(ds, lanes=1, order=True).streams[0].num_splits == 1
    assert analyse(ds, lanes=1, exact=False).streams[0].num_splits == 10


def test_autotuned_interleave_does_not_depend_on_the_machine() -> None:
    ds = Dataset.range(40).interleave(lambda x: Dataset.range(x * 10, x * 10 + 3))
    result = listed(run_plan(analyse(ds, lanes=1)))
    assert result[:16] == [10 * x for x in range(16)]
    assert result[16] == 1


def test_prefetch_and_options_and_cache() -> None:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2
    whole(Dataset.range(9).prefetch(2).with_options(options).map(lambda x: x + 1))
    plan = whole(Dataset.range(9).map(lambda x: x + 1).cache().map(lambda x: x * 2))
    assert plan.streams[0].cache is not None


def test_options_reach_the_result() -> None:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 3
    result = run_plan(analyse(Dataset.range(9).with_options(options)))
    assert result.options().threading.private_threadpool_size == 3


def test_cache_in_a_file_is_not_written_by_workers(tmp_path: Any) -> None:
    whole(Dataset.range(9).cache(str(tmp_path / "cache")).map(lambda x: x + 1))


@pytest.mark.parametrize("buffer", [1, 5, 1000])
def test_shuffle(buffer: int) -> None:
    plan = whole(Dataset.range(300).shuffle(buffer, seed=3), order=False)
    assert plan.streams[0].shuffled


def test_shuffle_mixes_the_whole_source_and_differs_by_seed_and_epoch() -> None:
    ds = Dataset.range(1000).map(lambda x: x).shuffle(10)
    loaded = load_stream(analyse(ds).streams[0].blob)
    first = listed(loaded.split_dataset(0, seed=1, epoch=0))
    numbers = [number for (number,) in first]
    assert max(numbers) - min(numbers) > 100  # a split is not a stretch of the source
    assert first == listed(loaded.split_dataset(0, seed=1, epoch=0))
    assert first != listed(loaded.split_dataset(0, seed=1, epoch=1))
    assert first != listed(loaded.split_dataset(0, seed=2, epoch=0))
    assert first != listed(loaded.split_dataset(1, seed=1, epoch=0))


def test_shuffle_without_reshuffling_repeats_every_epoch() -> None:
    ds = Dataset.range(1000).shuffle(10, reshuffle_each_iteration=False)
    loaded = load_stream(analyse(ds).streams[0].blob)
    first = listed(loaded.split_dataset(3, seed=1, epoch=0))
    assert first == listed(loaded.split_dataset(3, seed=1, epoch=5))
    assert first != listed(loaded.split_dataset(3, seed=2, epoch=0))


def test_shuffle_after_a_filter() -> None:
    whole(Dataset.range(100).filter(lambda x: x % 2 == 0).shuffle(7).map(lambda x: x + 1))


def test_shuffled_records(records: list[str]) -> None:
    plan = check(tf.data.TFRecordDataset(records).shuffle(100), order=False)
    assert plan.streams[0].num_splits == 6


def test_static_hash_table_on_both_sides() -> None:
    keys, values = tf.range(10, dtype=tf.int64), tf.range(10, dtype=tf.int64) * 7
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
    whole(Dataset.range(20).map(table.lookup))
    ds = Dataset.range(20).filter(lambda x: x > 2).batch(3).take(2).map(table.lookup)
    check(ds, order=True)


def test_captured_variable_has_its_value_at_registration() -> None:
    variable = tf.Variable(5, dtype=tf.int64)
    for ds in (
        Dataset.range(4).map(lambda x: x + variable),
        Dataset.range(4).filter(lambda x: x >= 0).take(3).map(lambda x: x * variable),
    ):
        variable.assign(5)
        plan = analyse(ds)
        local = listed(ds)
        variable.assign(100)
        assert sorted(listed(run_plan(plan))) == local
        assert plain(variable.read_value()) == 100


def test_captured_tensor_and_dataset() -> None:
    inner = Dataset.range(3).shuffle(3)
    offset = tf.constant(4, tf.int64)
    whole(Dataset.range(6).flat_map(lambda x: inner.map(lambda y: x * 10 + y + offset)))


def test_named_function_in_error_free_description() -> None:
    def scale(x: tf.Tensor) -> tf.Tensor:
        return x * 2

    plan = analyse(Dataset.range(9).map(scale).enumerate().filter(lambda i, x: x > 2).take(3))
    assert any("Take(3)" in note.where for note in plan.notes)
