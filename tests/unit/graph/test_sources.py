"""Each kind of source: how it splits, and that the result is the local one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import analyse, load_stream

from .harness import check, listed, run_plan

if TYPE_CHECKING:
    from pathlib import Path

Dataset = tf.data.Dataset


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 200])
def test_range_of_any_length(n: int) -> None:
    plan = check(Dataset.range(n), order=False)
    (stream,) = plan.streams
    step = min(max(-(-n // 64), 1), 65536)
    assert stream.num_splits == max(1, -(-n // step))


def test_range_with_start_step_and_dtype() -> None:
    check(Dataset.range(5, 100, 7, output_type=tf.int32))
    check(Dataset.range(30, -30, -4))
    check(Dataset.range(5, 100, 7, output_type=tf.float32).shuffle(9))


def test_the_last_split_is_smaller_and_its_weight_says_so() -> None:
    (stream,) = analyse(Dataset.range(130)).streams
    assert stream.num_splits == 44
    assert stream.weights == (3,) * 43 + (1,)
    assert analyse(Dataset.range(128)).streams[0].weights is None


def test_splits_never_exceed_65536_elements() -> None:
    (stream,) = analyse(Dataset.range(10_000_000)).streams
    assert stream.num_splits == -(-10_000_000 // 65536)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(12, dtype=np.float32).reshape(4, 3),
        np.array([b"a", b"", b"\xff\x00"], dtype=object),
        {"a": np.arange(5), "b": (np.ones((5, 2), np.float16), np.array([True] * 5))},
        np.arange(3, dtype=np.uint16),
        np.zeros((0, 4), np.int32),
        tf.cast(tf.range(6), tf.bfloat16),
        tf.constant([1 + 2j, 3j]),
    ],
    ids=["matrix", "strings", "nested", "uint16", "empty", "bfloat16", "complex"],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_tensor_slices(values: object, shuffled: bool) -> None:
    ds = Dataset.from_tensor_slices(values)
    check(ds.shuffle(10) if shuffled else ds, order=False)


def test_from_tensors_is_one_split() -> None:
    plan = check(Dataset.from_tensors({"a": [1, 2], "b": "x"}))
    assert plan.streams[0].num_splits == 1


def test_equally_long_sources_zipped_are_one_stream() -> None:
    ds = Dataset.zip((Dataset.range(20), {"x": Dataset.from_tensor_slices(tf.range(20, 40))}))
    plan = check(ds.map(lambda i, d: i + tf.cast(d["x"], tf.int64)))
    assert [s.num_splits for s in plan.streams] == [20]


def test_zipped_sources_shuffle_together() -> None:
    ds = Dataset.zip((Dataset.range(50), Dataset.from_tensor_slices(tf.range(50))))
    check(ds.shuffle(10))


def test_zip_of_unequal_index_sources_takes_the_shortest() -> None:
    ds = Dataset.zip((Dataset.range(20), Dataset.range(7).map(lambda x: x * 3), Dataset.range(9)))
    plan = check(ds)
    assert [s.num_splits for s in plan.streams] == [7]


@pytest.mark.parametrize("reads", [None, 2, tf.data.AUTOTUNE])
def test_tfrecord_list_is_one_split_a_file(records: list[str], reads: int | None) -> None:
    plan = check(tf.data.TFRecordDataset(records, num_parallel_reads=reads), order=False)
    assert [s.num_splits for s in plan.streams] == [6]
    assert plan.streams[0].weights is not None
    assert plan.streams[0].weights[0] == 0


def test_a_split_is_described_by_its_file(records: list[str]) -> None:
    (stream,) = analyse(tf.data.TFRecordDataset(records)).streams
    assert load_stream(stream.blob).describe_split(3) == records[3]
    (index,) = analyse(Dataset.range(128)).streams
    assert load_stream(index.blob).describe_split(1) == "elements of the source [2, 4)"


def test_text_lines(texts: list[str]) -> None:
    assert check(tf.data.TextLineDataset(texts)).streams[0].num_splits == 4
    assert check(tf.data.TextLineDataset(texts[0])).streams[0].num_splits == 1


def test_fixed_length_records(binaries: list[str]) -> None:
    ds = tf.data.FixedLengthRecordDataset(binaries, record_bytes=4, header_bytes=2)
    assert check(ds).streams[0].num_splits == 3


def test_list_files_with_interleave(texts: list[str]) -> None:
    pattern = texts[0].replace("0.txt", "*.txt")
    ds = Dataset.list_files(pattern, seed=4)
    plan = check(ds.interleave(tf.data.TextLineDataset, cycle_length=2), order=False)
    assert plan.streams[0].num_splits == 4
    assert plan.streams[0].shuffled
    assert check(ds).streams[0].source == "TensorSlice of 4"


@pytest.mark.parametrize("parallel", [None, 1, tf.data.AUTOTUNE])
@pytest.mark.parametrize("cycle", [1, 3])
def test_interleave_over_readers(records: list[str], cycle: int, parallel: int | None) -> None:
    ds = Dataset.from_tensor_slices(records).interleave(
        tf.data.TFRecordDataset, cycle_length=cycle, block_length=2, num_parallel_calls=parallel
    )
    assert check(ds, order=False).streams[0].num_splits == 6
    ordered = check(ds, lanes=1, order=True)
    assert ordered.streams[0].num_splits == (6 if cycle == 1 else 1)


def test_inner_pipelines_with_shuffle(texts: list[str]) -> None:
    def read(name: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TextLineDataset(name).shuffle(5).map(tf.strings.length)

    ds = Dataset.from_tensor_slices(texts).flat_map(read)
    check(ds)
    loaded = load_stream(analyse(ds).streams[0].blob)
    first = listed(loaded.split_dataset(2, seed=1, epoch=0))
    assert first == listed(loaded.split_dataset(2, seed=1, epoch=0))


def test_files_zipped_with_labels(records: list[str]) -> None:
    ds = Dataset.from_tensor_slices((records, list(range(6)))).flat_map(
        lambda name, label: tf.data.TFRecordDataset(name).map(lambda record: (record, label))
    )
    plan = check(ds)
    assert plan.streams[0].num_splits == 6
    assert load_stream(plan.streams[0].blob).describe_split(1) == records[1]


def test_seeded_random_source_is_the_local_one() -> None:
    plan = check(Dataset.random(seed=5).map(lambda x: x % 10).take(6))
    assert plan.streams[0].replayable


def test_counter_has_one_endless_split() -> None:
    ds = Dataset.counter(start=3, step=2).map(lambda x: x + 1)
    plan = analyse(ds, lanes=1)
    assert plan.streams[0].num_splits == 1
    assert listed(run_plan(plan), limit=5) == [4, 6, 8, 10, 12]


def test_csv_files(tmp_path: Path) -> None:
    names = [tmp_path / "a.csv", tmp_path / "b.csv"]
    names[0].write_text("1,x\n3,y\n")
    names[1].write_text("5,z\n")
    ds = tf.data.experimental.CsvDataset([str(n) for n in names], [tf.int32, tf.string])
    plan = check(ds.map(lambda number, text: number))
    loaded = load_stream(plan.streams[0].blob)
    assert [loaded.describe_split(split) for split in (0, 1)] == [str(n) for n in names]


def test_saved_dataset_is_one_split(tmp_path: Path) -> None:
    Dataset.range(5).save(str(tmp_path / "saved"))
    plan = check(Dataset.load(str(tmp_path / "saved")).map(lambda x: x + 1))
    assert [note.where for note in plan.notes if note.kind == "split"] == ["LoadDataset"]


def test_what_follows_an_undivided_source_stays_on_its_worker() -> None:
    ds = Dataset.random(seed=3).map(lambda x: x % 100).take(7).batch(2).map(lambda b: b + 1)
    plan = check(ds, order=False)
    assert not [note for note in plan.notes if note.kind == "client"]


def test_unseeded_random_source_is_seeded_by_the_job() -> None:
    ds = Dataset.random(rerandomize_each_iteration=True).take(4).map(lambda x: x)
    loaded = load_stream(analyse(ds).streams[0].blob)
    first = listed(loaded.split_dataset(0, seed=1, epoch=0))
    assert len(first) == 4
    assert first == listed(loaded.split_dataset(0, seed=1, epoch=0))
    assert first != listed(loaded.split_dataset(0, seed=1, epoch=1))
    inner = Dataset.range(2).flat_map(lambda x: Dataset.random().take(2))
    loaded = load_stream(analyse(inner).streams[0].blob)
    first = listed(loaded.split_dataset(0, seed=1, epoch=0))
    assert first == listed(loaded.split_dataset(0, seed=1, epoch=0))
    assert first != listed(loaded.split_dataset(1, seed=1, epoch=0))
