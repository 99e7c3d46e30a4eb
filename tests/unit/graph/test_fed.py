"""Splits that are fed to one iterator are those that a dataset of their own gives, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.graph import LoadedStream, analyse, load_stream, split
from penstock.graph.fed import FedStream
from penstock.worker.fed import SINGLE, STACKED
from penstock.worker.iterators import options

from . import random_recipe
from .random_recipe import exact
from .test_random_pipelines import build, pipelines, slow

Dataset = tf.data.Dataset


def streams(dataset: Any) -> list[LoadedStream]:
    return [load_stream(bytes(stream.blob)) for stream in analyse(dataset).streams]


def stream(dataset: Any) -> tuple[LoadedStream, FedStream]:
    """The one stream of a dataset, and what it is fed by."""
    (loaded,) = streams(dataset)
    fed = loaded.fed()
    assert fed is not None
    return loaded, fed


class Iterator:
    """One iterator of a fed stream."""

    def __init__(self, fed: FedStream, *, batched: bool = False) -> None:
        self.fed = fed
        self.queue = fed.queue()
        bounds = options()
        bounds.experimental_optimization.inject_prefetch = False
        self.batching = STACKED if batched else SINGLE
        self.iterator = iter(fed.dataset(self.queue, self.batching).with_options(bounds))

    def split(self, number: int, *, seed: int = 5, epoch: int = 0, size: int = 3) -> list[Any]:
        self.queue.enqueue(self.fed.values(number, seed=seed, epoch=epoch, size=size))
        found = []
        while not self.fed.is_mark(got := next(self.iterator), self.batching):
            found.append(tuple(exact(part.numpy()) for part in got))
        return found


def own(loaded: LoadedStream, number: int, *, seed: int = 5, epoch: int = 0, size: int = 0) -> Any:
    """What the split's own dataset gives."""
    dataset = loaded.split_dataset(number, seed=seed, epoch=epoch)
    if size:
        dataset = dataset.batch(size)
    return random_recipe.elements(dataset)


def shapes(x: Any) -> Any:
    return x, tf.fill([2, 0], x), tf.strings.as_string(x), tf.cast(x, tf.float32) / 3


@tf.function
def looped(x: Any) -> Any:
    def turn(k: Any, y: Any) -> Any:
        return k + 1, y + tf.random.uniform([], 0, 9, tf.int64)

    return tf.while_loop(lambda k, _: k < x % 3, turn, (tf.constant(0, tf.int64), x))


def branched(x: Any) -> Any:
    low, high = (lambda: tf.random.uniform([]), lambda: tf.random.normal([]))
    return x, tf.cond(x % 2 == 0, low, lambda: tf.cond(x % 3 == 0, low, high))


def inner(x: Any) -> Any:
    return (
        Dataset.range(x, x + 4).shuffle(4).map(lambda y: y + tf.random.uniform([], 0, 9, y.dtype))
    )


PIPELINES: dict[str, Any] = {
    "range": lambda: Dataset.range(100),
    "rows": lambda: Dataset.from_tensor_slices(([[1.5, 2], [3, 4]] * 40, ["a", "bc"] * 40)),
    "permuted range": lambda: Dataset.range(100).shuffle(100),
    "permuted rows": lambda: Dataset.from_tensor_slices((["a", "bc", ""] * 30,)).shuffle(90),
    "shuffle": lambda: Dataset.range(100).filter(lambda x: x % 7 != 0).shuffle(10),
    "shapes": lambda: Dataset.range(70).map(shapes),
    "nothing": lambda: Dataset.range(70).filter(lambda x: x < 0),
    "random": lambda: Dataset.range(70).map(lambda x: (x, tf.random.uniform([2]))),
    "loop": lambda: Dataset.range(70).map(looped),
    "branches": lambda: Dataset.range(70).map(branched),
    "flat": lambda: Dataset.range(70).flat_map(inner),
    "interleave": lambda: Dataset.range(70).interleave(inner, cycle_length=3),
    "scan": lambda: Dataset.range(70).map(lambda x: x + 1).shuffle(9).batch(4).unbatch(),
    "all of it": random_recipe.make,
    "all of it, in parallel": lambda: random_recipe.make(2),
}


@pytest.mark.parametrize("batched", [False, True], ids=["elements", "batches"])
@pytest.mark.parametrize("name", PIPELINES)
def test_splits_come_in_any_order_as_from_datasets_of_their_own(name: str, batched: bool) -> None:
    loaded, fed = stream(PIPELINES[name]())
    iterator = Iterator(fed, batched=batched)
    last = loaded.num_splits - 1
    for number, seed, epoch, size in [
        (last, 5, 0, 3),
        (0, 5, 1, 1),
        (last, 5, 2, 64),
        (0, 6, 0, 2),
    ]:
        found = iterator.split(number, seed=seed, epoch=epoch, size=size)
        want = own(loaded, number, seed=seed, epoch=epoch, size=size if batched else 0)
        assert found == want
        assert iterator.split(number, seed=seed, epoch=epoch, size=size) == want


@slow(15)
@given(pipelines, st.data())
def test_random_pipelines_are_fed_alike(recipe: Any, data: st.DataObject) -> None:
    for loaded in streams(build(recipe)):
        fed = loaded.fed()
        if fed is None or not loaded.num_splits:
            continue
        iterator = Iterator(fed)
        for number in data.draw(st.lists(st.integers(0, loaded.num_splits - 1), max_size=4)):
            assert iterator.split(number) == own(loaded, number)


def test_two_iterators_of_a_stream_know_nothing_of_each_other() -> None:
    loaded, fed = stream(PIPELINES["random"]())
    one, other = Iterator(fed), Iterator(fed)
    for number in (3, 1):
        assert one.split(number) == own(loaded, number)
        assert other.split(number + 1) == own(loaded, number + 1)


def test_two_streams_may_have_functions_of_one_name() -> None:
    made = [stream(Dataset.range(70).map(lambda x, k=k: x + k)) for k in (1, 2)]
    iterators = [Iterator(fed) for _, fed in made]
    for (loaded, _), iterator in zip(made, iterators, strict=True):
        assert iterator.split(2) == own(loaded, 2)


def test_a_split_that_does_not_exist_is_refused() -> None:
    loaded, fed = stream(Dataset.range(70))
    with pytest.raises(UsageError, match=f"split {loaded.num_splits} does not exist"):
        fed.values(loaded.num_splits, seed=0, epoch=0, size=1)


def table() -> Any:
    words = tf.lookup.KeyValueTensorInitializer(tf.range(9, dtype=tf.int64), tf.range(9))
    held = tf.lookup.StaticHashTable(words, -1)
    return Dataset.range(70).map(lambda x: held.lookup(x))


def test_what_makes_resources_is_not_fed() -> None:
    (loaded,) = streams(table())
    assert loaded.fed() is None


def test_the_number_of_splits_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_SPLITS", 3)
    loaded, fed = stream(Dataset.range(10).shuffle(10))
    iterator = Iterator(fed)
    for number in range(loaded.num_splits):
        assert iterator.split(number) == own(loaded, number)
