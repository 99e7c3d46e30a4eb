"""Batches that an eager loop makes of runs: the very elements, in memory that nobody else has."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.batches import batched, batches_of
from penstock.proto.wire import aligned_empty

Arrays = tuple[np.ndarray, ...]


def runs_of_lengths(lengths: list[int]) -> list[Arrays]:
    ends = np.cumsum(lengths)
    numbers = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return [(n, np.array([b"%d" % x for x in n.tolist()], object)) for n in numbers]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12), st.booleans())
def test_batches_have_the_elements_of_the_runs_in_their_order(
    lengths: list[int], size: int, drop: bool
) -> None:
    count = sum(lengths)
    batches = list(batches_of(runs_of_lengths(lengths), size, drop, aligned_empty))
    whole = [size] * (count // size) + ([count % size] if count % size and not drop else [])
    assert [len(numbers) for numbers, _ in batches] == whole
    numbers = [n for batch, _ in batches for n in batch.tolist()]
    assert numbers == [*range(sum(whole))]
    assert [text for _, batch in batches for text in batch.tolist()] == [b"%d" % n for n in numbers]


def test_what_lies_in_one_run_is_not_copied() -> None:
    runs = [(np.arange(10),), (np.arange(10, 14),)]
    first, second, third, last = (b for (b,) in batches_of(runs, 4, False, aligned_empty))
    assert np.shares_memory(first, runs[0][0])
    assert np.shares_memory(second, runs[0][0])
    assert third.tolist() == [8, 9, 10, 11]
    assert not any(np.shares_memory(third, run) for (run,) in runs)
    assert np.shares_memory(last, runs[1][0])


def dataset(*, size: int = 6, rows: int = 100) -> tf.data.Dataset:
    """Batches of dicts of numbers and of rows, which cross the runs that they are made of."""
    numbers = np.arange(rows)
    value = {"row": np.stack([numbers] * 5000, axis=1), "number": numbers}
    plain = tf.data.Dataset.from_tensor_slices(value)

    def runs() -> Iterator[Any]:
        for first in range(0, rows, 8):
            part = slice(first, first + 8)
            yield numbers[part], value["row"][part]  # in flat order: by key

    return batched(plain.batch(size), runs, plain.element_spec, size, drop_remainder=False)


def test_a_loop_and_a_graph_have_the_same_batches() -> None:
    ours = dataset()

    @tf.function
    def total(given: Any) -> Any:
        result = tf.constant(0, tf.int64)
        for batch in given:
            result += tf.reduce_sum(batch["row"]) - tf.reduce_sum(batch["number"])
        return result

    assert int(total(ours)) == 4999 * sum(range(100))
    assert len(ours) == 17
    for batch, theirs in zip(ours, ours.plain, strict=True):
        tf.nest.assert_same_structure(batch, theirs)
        assert list(batch) == list(theirs)
        for key in batch:
            np.testing.assert_array_equal(batch[key].numpy(), theirs[key].numpy())
    taken = [int(batch["number"][0]) for batch in ours.skip(2).take(2)]
    assert taken == [12, 18]


def test_a_batch_that_is_held_does_not_change() -> None:
    held = [batch["row"] for index, batch in enumerate(dataset()) if index % 3 == 1]
    gc.collect()
    for index, rows in enumerate(held):
        first = (3 * index + 1) * 6
        assert rows.numpy()[:, 0].tolist() == [*range(first, min(first + 6, 100))]


@pytest.mark.parametrize("given_", ["loop", "function"])
def test_a_function_goes_on_where_a_loop_of_batches_has_stopped(given_: str) -> None:
    iterator = iter(dataset())
    assert next(iterator)["number"].numpy().tolist() == [*range(6)]

    @tf.function
    def following(iterator: Any) -> Any:
        return next(iterator)["number"]

    after = following(iterator) if given_ == "function" else next(iterator)["number"]
    assert after.numpy().tolist() == [*range(6, 12)]
