"""Iterators of cached streams can be saved and restored; errors of the cache come through."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import LoadedStream, analyse, split
from penstock.worker.checkpoint_file import Layout
from penstock.worker.iterators import Source

from . import cached_recipe
from .caches import SPLITS, Segment, as_plain, got, loaded, marked, numbers, put, thrice
from .harness import listed

KEY = {"seed": 5, "epoch": 1}
#: With batches and without, buffers above and below, and readers of files.
STATEFUL = ["parallel map", "shuffles in both", "flat_map", "strings", "nested", "no bytes"]
names = pytest.mark.parametrize("name", [*STATEFUL, "records of mixed files", "batches"])


@pytest.fixture(autouse=True)
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of several elements each, and few of them."""
    monkeypatch.setattr(split, "_SPLITS", SPLITS)


def rest(source: Source) -> list[Any]:
    return [tuple(as_plain(part) for part in element) for element in source]


def begun(dataset: Any, count: int) -> tuple[list[Any], Source]:
    """So many elements, and the iterator that made them."""
    source = Source(dataset, Layout("collected"))
    iterator = iter(source)
    return [tuple(as_plain(part) for part in next(iterator)) for _ in range(count)], source


def restored(dataset: Any, state: bytes) -> Source:
    source = Source(dataset, Layout("collected"))
    source.restore(state)
    return source


@names
def test_writing_goes_on_where_a_saved_iterator_was(name: str, records: list[str]) -> None:
    ds = marked(name, records)
    stream = loaded(ds)
    at = stream.num_splits - 1
    whole, all_of_it = put(stream, at, size=3, **KEY)
    want = rest(Source(whole, Layout("collected")))
    for count in range(0, len(want) + 1, 2):
        dataset, before = put(stream, at, size=3, **KEY)
        first, source = begun(dataset, count)
        state = source.capture()
        written = sum(before.counts)
        again, after = put(loaded(ds), at, size=3, **KEY)
        assert first + rest(restored(again, state)) == want
        if after.written:
            begins = after.starts[0]
            assert begins in [*before.starts, sum(before.counts)]
            assert begins <= written or not before.written
            skipped = all_of_it.starts.index(begins)
            assert after.starts == all_of_it.starts[skipped:]
            assert after.elements() == all_of_it.elements()[begins:]
        else:
            assert written == sum(all_of_it.counts)


@names
def test_reading_goes_on_where_a_saved_iterator_was(name: str, records: list[str]) -> None:
    ds = marked(name, records)
    stream = loaded(ds)
    at = stream.num_splits - 1
    whole, segment = put(stream, at, size=3, **KEY)
    want = rest(Source(whole, Layout("collected")))
    chunks = len(segment.written)

    def reading(of: LoadedStream) -> Any:
        return of.get_dataset(at, chunks=chunks, read=segment.read, **KEY)

    for count in range(0, len(want) + 1, 3):
        first, source = begun(reading(stream), count)
        state = source.capture()
        assert first + rest(restored(reading(loaded(ds)), state)) == want


def test_batches_that_a_worker_makes_are_restored_too() -> None:
    stream = loaded(numbers.cache().shuffle(5).map(thrice))
    layout = Layout("stacked", 4)
    want = [batch[0].numpy().tolist() for batch in Source(put(stream, 2, **KEY)[0], layout)]
    source = Source(put(stream, 2, **KEY)[0], layout)
    first = next(iter(source))[0].numpy().tolist()
    again = Source(put(stream, 2, **KEY)[0], layout)
    again.restore(source.capture())
    assert [first, *(batch[0].numpy().tolist() for batch in again)] == want


def test_names_and_states_fit_in_another_process_with_another_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # the other process has as many splits as ever
    made = subprocess.run(
        [sys.executable, cached_recipe.__file__],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    fingerprint, cache_key, state, *taken = made.stdout.split()
    (stream,) = analyse(cached_recipe.make()).streams
    assert stream.cache is not None
    assert (stream.fingerprint, stream.cache.key) == (fingerprint, cache_key)
    here = loaded(cached_recipe.make())
    want = listed(here.split_dataset(1, seed=4, epoch=2))
    assert [(int(x),) for x in taken] == want[: len(taken)]
    dataset, segment = put(here, 1, size=3, seed=4, epoch=2)
    assert listed(dataset) == want
    reading = here.get_dataset(1, seed=4, epoch=2, chunks=len(segment.written), read=segment.read)
    assert rest(restored(reading, bytes.fromhex(state))) == want[len(taken) :]


class DiskError(Exception):
    """What a cache may raise."""


@pytest.mark.parametrize(
    "error",
    [
        DiskError("no space"),
        ValueError("no space"),
        StopIteration("no space"),
        tf.errors.OutOfRangeError(None, None, "no space"),
        PermissionError("no space"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", ["map", "ragged"])
def test_an_error_of_the_cache_is_the_error_of_the_dataset(name: str, error: Exception) -> None:
    stream = loaded(marked(name, []))
    calls: list[int] = []

    def failing(at: int, *arrays: Any) -> Any:
        calls.append(at)
        if len(calls) == 2:
            raise error
        return segment.read(at)

    dataset, segment = put(stream, 0, **KEY)
    want = listed(dataset)
    writing = stream.put_dataset(0, size=4, write=failing, **KEY)
    with pytest.raises(tf.errors.OpError, match="no space"):
        listed(writing)
    calls.clear()
    reading = stream.get_dataset(0, chunks=len(segment.written), read=failing, **KEY)
    with pytest.raises(tf.errors.OpError, match="no space"):
        listed(reading)
    assert got(stream, 0, segment, **KEY) == want


@pytest.mark.parametrize(
    "arrays",
    [
        (),
        (np.zeros(3, np.int32), np.zeros((3, 2), np.float32)),
        (np.zeros(3, np.int64), np.zeros((3, 3), np.float32)),
        (np.zeros(3, np.int64), np.zeros((2, 2), np.float32)),
        (np.zeros((), np.int64), np.zeros(2, np.float32)),
    ],
    ids=["none", "dtype", "shape", "length", "not stacked"],
)
def test_what_does_not_fit_is_refused_before_the_tail_sees_it(arrays: Any) -> None:
    ds = numbers.map(lambda x: (x, tf.zeros([2]))).cache().map(lambda x, y: y)
    reading = loaded(ds).get_dataset(0, chunks=1, read=lambda chunk: arrays, **KEY)
    with pytest.raises(tf.errors.OpError, match="chunk 0"):
        listed(reading)


def test_what_is_read_is_not_written_to() -> None:
    """It may be a mapped file, or a buffer for later: TensorFlow would work on it in place."""
    memory = np.empty(11 * 16 * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + 11 * 16 * 4].view(np.float32).reshape(11, 16)
    array[...] = 1
    array.flags.writeable = False
    ds = numbers.map(lambda x: tf.fill([16], tf.cast(x, tf.float32)))
    # The shuffle holds elements back until nothing else refers to the memory behind them.
    stream = loaded(ds.cache().shuffle(100).map(thrice))
    reading = stream.get_dataset(0, chunks=5, read=lambda chunk: (array,), **KEY)
    assert listed(reading) == [([3.0] * 16,)] * 55
    assert (array == 1).all()


def test_a_writer_may_keep_what_it_is_given() -> None:
    ds = numbers.map(lambda x: tf.fill([16], tf.cast(x, tf.float32))).cache()
    dataset, segment = put(loaded(ds.shuffle(100).map(thrice)), 0, size=2, **KEY)
    made = {x for ((x, *_),) in listed(dataset)}
    assert len(made) == 11
    assert {3 * x for ((x, *_),) in segment.elements()} == made


def test_a_writer_lives_as_long_as_its_dataset_and_iterators() -> None:
    stream = loaded(numbers.cache().map(thrice))
    segment = Segment(stackable=True)
    alive = weakref.ref(segment)
    dataset = stream.put_dataset(0, size=2, write=segment.write, **KEY)
    del segment
    iterator = iter(dataset.batch(3).prefetch(1))
    del dataset, stream
    gc.collect()
    assert alive() is not None
    assert sum(len(batch) for (batch,) in iterator) == 11
    del iterator
    gc.collect()
    assert alive() is None


def test_two_datasets_of_one_split_write_to_their_own_places() -> None:
    stream = loaded(numbers.cache().map(thrice))
    (one, first), (two, second) = put(stream, 0, **KEY), put(stream, 0, size=3, **KEY)
    assert [a for (a, b) in zip(one, two, strict=True) if a != b] == []
    assert first.counts == [4, 4, 3]
    assert second.counts == [3, 3, 3, 2]
    assert first.elements() == second.elements()
