"""Streams with a cache point: writing and reading there changes nothing that comes out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tensorflow as tf

from penstock.errors import UsageError
from penstock.graph import analyse, cache_here, split
from penstock.graph.seeds import permuted
from penstock.graph.spec import flatten_element

from .caches import PIPELINES, SPLITS, N, got, loaded, marked, numbers, plus, put, thrice
from .harness import check, listed, run_plan

Dataset = tf.data.Dataset
#: (seed, epoch)
KEYS = ({"seed": 3, "epoch": 0}, {"seed": 3, "epoch": 1}, {"seed": 1 << 63, "epoch": 4})
names = pytest.mark.parametrize("name", list(PIPELINES))


@pytest.fixture(autouse=True)
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of several elements each, and few of them."""
    monkeypatch.setattr(split, "_SPLITS", SPLITS)


def flat(ds: Any) -> list[Any]:
    """The flat dense components of a dataset's elements, made by TensorFlow alone."""

    def flatten(*element: Any) -> Any:
        whole = element if isinstance(ds.element_spec, tuple) else element[0]
        return flatten_element(ds.element_spec, whole)

    return listed(ds.map(flatten))


@names
def test_writing_and_reading_give_what_the_split_gives(name: str, records: list[str]) -> None:
    stream = loaded(marked(name, records))
    for at, key in itertools.product({0, stream.num_splits - 1}, KEYS):
        plain = stream.split_dataset(at, **key)
        want = listed(plain)
        dataset, segment = put(stream, at, **key)
        assert dataset.element_spec == plain.element_spec
        assert listed(dataset) == want
        assert got(stream, at, segment, **key) == want


@names
def test_all_splits_together_are_the_local_run(name: str, records: list[str]) -> None:
    ds = marked(name, records)
    plan = analyse(ds)
    assert sorted(map(repr, listed(run_plan(plan)))) == sorted(map(repr, listed(ds)))


@names
def test_what_is_written_is_what_the_head_makes(name: str, records: list[str]) -> None:
    head, _ = PIPELINES[name](records)
    stream = loaded(marked(name, records))
    written: list[Any] = []
    for at in range(stream.num_splits):
        dataset, segment = put(stream, at, size=5, seed=8, epoch=2)
        for _ in dataset:
            pass
        counts = segment.counts
        assert segment.starts == [sum(counts[:i]) for i in range(len(counts))]
        assert set(counts[:-1]) <= {5 if segment.stackable else 1}
        written += segment.elements()
    assert sorted(map(repr, written)) == sorted(map(repr, flat(head)))


@names
def test_the_head_is_the_same_in_every_epoch_and_job(name: str, records: list[str]) -> None:
    stream = loaded(marked(name, records))
    found = []
    for key in KEYS:
        dataset, segment = put(stream, 0, **key)
        for _ in dataset:
            pass
        found.append(segment.elements())
    assert found[0] == found[1] == found[2]


def test_the_tail_is_random_as_ever() -> None:
    stream = loaded(numbers.cache().shuffle(20))
    first, second, third = (listed(stream.split_dataset(2, **key)) for key in KEYS)
    assert first != second != third
    assert sorted(first) == sorted(second) == sorted(third)


def test_a_shuffle_below_the_cache_is_frozen_as_in_a_local_run() -> None:
    ds = Dataset.range(N).shuffle(50).cache()
    assert listed(ds) == listed(ds)
    stream = loaded(ds)
    splits = range(stream.num_splits)
    epochs = [[listed(stream.split_dataset(s, seed=1, epoch=e)) for s in splits] for e in (0, 1)]
    assert epochs[0] == epochs[1]
    assert sorted(x for elements in epochs[0] for (x,) in elements) == list(range(N))
    assert listed(stream.split_dataset(0, seed=1, epoch=0)) == epochs[0][0]


def test_splits_are_those_of_seed_0_and_epoch_0_if_only_the_tail_shuffles() -> None:
    stream = loaded(Dataset.range(N).cache().shuffle(1))
    for at in range(SPLITS):
        want = permuted(N, at * N // SPLITS, (at + 1) * N // SPLITS, 0, 0).tolist()
        assert [x for (x,) in listed(stream.split_dataset(at, seed=9, epoch=4))] == want


def test_without_a_cache_a_shuffle_differs_from_epoch_to_epoch() -> None:
    stream = loaded(Dataset.range(N).shuffle(50))
    first, second = (listed(stream.split_dataset(0, seed=1, epoch=e)) for e in (0, 1))
    assert first != second


@pytest.mark.parametrize("make", [lambda ds: ds.cache(), lambda ds: ds.apply(cache_here())])
def test_frozen_orders_that_cannot_be_cached_are_frozen_nonetheless(make: Any) -> None:
    ds = make(numbers.shuffle(50)).ignore_errors()
    assert analyse(ds).streams[0].cache is None
    stream = loaded(ds)
    assert stream.cache is None
    first, second = (listed(stream.split_dataset(0, seed=s, epoch=s)) for s in (0, 1))
    assert first == second
    check(ds)


def test_elements_that_cannot_be_stored_are_frozen_nonetheless() -> None:
    ds = numbers.shuffle(50).map(tf.experimental.Optional.from_value).cache()
    ds = ds.map(lambda optional: optional.get_value())
    stream = loaded(ds)
    assert stream.cache is None
    first, second = (listed(stream.split_dataset(0, seed=s, epoch=s)) for s in (0, 1))
    assert first == second
    check(ds)


def test_heads_with_the_same_name_are_shared_by_jobs_with_other_tails() -> None:
    writer = loaded(numbers.cache().map(thrice))
    reader = loaded(numbers.cache().filter(lambda x: x % 2 == 0).map(plus))
    assert writer.cache is not None
    assert reader.cache is not None
    assert writer.cache.key == reader.cache.key
    dataset, segment = put(writer, 4, seed=0, epoch=0)
    for _ in dataset:
        pass
    want = listed(reader.split_dataset(4, seed=5, epoch=3))
    assert got(reader, 4, segment, seed=5, epoch=3) == want


def test_shuffled_heads_are_shared_whatever_is_random_in_the_tail() -> None:
    head = numbers.shuffle(9)
    tails = [head.cache(), head.cache().shuffle(5).map(plus), head.cache().shuffle(3).shuffle(4)]
    streams = [loaded(ds.map(thrice)) for ds in tails]
    written = []
    for stream in streams:
        dataset, segment = put(stream, 3, seed=4, epoch=1)
        for _ in dataset:
            pass
        written.append(segment.elements())
    assert len({stream.cache.key for stream in streams if stream.cache}) == 1
    assert written[0] == written[1] == written[2]


def test_what_is_cached_is_described() -> None:
    cache = loaded(numbers.map(lambda x: (x, tf.zeros([2, 3]))).cache().map(lambda x, y: x)).cache
    assert cache is not None
    assert not cache.whole
    assert [(c.dtype, c.shape) for c in cache.components] == [("int64", ()), ("float32", (2, 3))]
    assert cache.fixed_element_bytes == 32
    assert cache.stackable
    varying = loaded(numbers.map(lambda x: tf.fill([x % 3], x)).cache().map(tf.size)).cache
    assert varying is not None
    assert varying.fixed_element_bytes is None
    assert not varying.stackable


def test_a_stream_that_is_cached_whole_has_no_tail() -> None:
    stream = loaded(numbers.cache().prefetch(2))
    assert stream.cache is not None
    assert stream.cache.whole
    assert stream.cache.components == stream.components
    for make in (
        lambda: stream.put_dataset(0, seed=0, epoch=0, size=1, write=lambda start, arrays: None),
        lambda: stream.get_dataset(0, seed=0, epoch=0, chunks=1, read=lambda chunk: ()),
    ):
        with pytest.raises(UsageError, match="nothing of the stream follows"):
            make()


def test_streams_cached_whole_hold_the_components_that_are_sent() -> None:
    ds = Dataset.range(20).map(lambda x: tf.RaggedTensor.from_row_lengths(tf.range(x), [x, 0]))
    stream = loaded(ds.cache())
    assert stream.cache is not None
    assert stream.cache.whole
    assert stream.cache.components == stream.components
    check(ds.cache())


def test_an_empty_split_reads_nothing() -> None:
    stream = loaded(Dataset.range(N).filter(lambda x: x < 0).cache().map(thrice))
    dataset, segment = put(stream, 0, seed=0, epoch=0)
    assert listed(dataset) == []
    assert segment.written == []
    assert got(stream, 0, segment, seed=0, epoch=0) == []


def test_chunks_may_be_of_any_size() -> None:
    stream = loaded(numbers.cache().map(thrice))
    dataset, segment = put(stream, 1, size=100, seed=0, epoch=0)
    want = listed(dataset)
    ((start, (array,)),) = segment.written
    assert (start, len(array)) == (0, 11)
    segment.written = [(0, (array[:1],)), (1, (array[1:8],)), (8, (array[8:],))]
    assert got(stream, 1, segment, seed=0, epoch=0) == want
    assert segment.reads == [0, 1, 2]
