"""Randomness of datasets themselves: what is seeded by the job, and what is named and refused."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from penstock.errors import NotShippableError
from penstock.graph import Plan, analyse

from .harness import listed, stream_dataset

Dataset = tf.data.Dataset


def sampled(**seed: int) -> Any:
    numbers = Dataset.range(60).shuffle(5), Dataset.range(60, 120).shuffle(5)
    return Dataset.sample_from_datasets(numbers, [0.5, 0.5], **seed)


#: Each is made without a seed of the user, so that only the job's can decide.
SEEDED: dict[str, Any] = {
    "shuffle": lambda: Dataset.range(100).shuffle(10),
    "shuffle after batch": lambda: Dataset.range(100).batch(5).shuffle(10),
    "shuffle at the client": lambda: Dataset.range(100).take(50).shuffle(10),
    "sample": sampled,
    "sample of endless ones": lambda: Dataset.sample_from_datasets(
        [Dataset.range(9).repeat(), Dataset.range(9, 18).repeat()], [0.3, 0.7]
    ).take(100),
    "random": lambda: Dataset.random().take(30),
    "random beside": lambda: Dataset.zip((Dataset.range(30), Dataset.random())),
    "random in turn": lambda: Dataset.random(rerandomize_each_iteration=True).map(abs).take(30),
}


def read(plan: Plan, *, seed: int = 7, epoch: int = 0) -> list[Any]:
    """What a job with that seed reads of the plan in that epoch."""
    streams = [stream_dataset(plan, k, seed, epoch) for k in range(len(plan.streams))]
    return listed(plan.apply_suffix(streams, seed=seed, epoch=epoch))


@pytest.mark.parametrize("name", SEEDED)
def test_it_is_a_function_of_seed_and_epoch_and_strict_accepts_it(name: str) -> None:
    plan = analyse(SEEDED[name](), strict=True)
    assert all(stream.replayable for stream in plan.streams)
    assert [note for note in plan.notes if note.kind == "replay"] == []
    once = read(plan)
    assert len(once) >= 20
    assert read(plan) == once
    assert read(plan, epoch=1) != once
    assert read(plan, seed=8) != once


@pytest.mark.parametrize("name", SEEDED)
def test_another_process_would_read_the_same(name: str) -> None:
    one, two = (analyse(SEEDED[name]()) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert read(one) == read(two)


def test_a_random_source_with_a_seed_is_the_users() -> None:
    ds = Dataset.random(seed=4).take(30)
    plan = analyse(ds, strict=True)
    assert read(plan) == read(plan, seed=8, epoch=3) == listed(ds)


def resampled() -> Any:
    """Two of three are of class 1; about half of those are thrown out."""
    classes = Dataset.range(300).map(lambda x: tf.cast(x % 3 > 0, tf.int32))
    return classes.rejection_resample(lambda x: x, [0.5, 0.5], [1 / 3, 2 / 3])


def taken() -> Any:
    """What follows runs at the client: a filter keeps the `take` from the source."""
    return Dataset.range(40).filter(lambda x: x >= 0).take(30)


def client_filter() -> Any:
    return taken().filter(lambda x: tf.random.uniform([]) < 0.5)


def generator_at_the_client() -> Any:
    generator = tf.random.Generator.from_seed(1)
    return taken().map(lambda x: generator.normal([]))


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (resampled, "filter__reject"),
        (client_filter, "filter_lambda"),
        (generator_at_the_client, "map_lambda"),
    ],
    ids=["rejection_resample", "filter", "generator"],
)
def test_what_is_drawn_at_the_client_is_named_and_refused_if_strict(make: Any, where: str) -> None:
    plan = analyse(make())
    assert where in {note.where for note in plan.notes if note.kind == "replay"}
    assert all("at the client" in n.text for n in plan.notes if n.kind == "replay")
    # The workers' part is not to blame: it is compared by value as ever.
    assert all(stream.replayable for stream in plan.streams)
    with pytest.raises(NotShippableError, match=f"{where}.*at the client"):
        analyse(make(), strict=True)


def test_python_at_the_client_is_nobodys_business() -> None:
    mapped = taken().map(lambda x: tf.py_function(lambda y: y + 1, [x], tf.int64))
    assert analyse(mapped, strict=True).streams[0].replayable


@pytest.mark.parametrize(
    ("ds", "blended", "permuted"),
    [
        (Dataset.range(100), False, False),
        (Dataset.range(100).shuffle(10), False, True),
        (Dataset.range(100).interleave(Dataset.from_tensors, cycle_length=4), True, False),
        (tf.data.TFRecordDataset(["a", "b"]), False, False),
        (tf.data.TFRecordDataset(["a", "b"]).shuffle(10), True, False),
        (
            Dataset.from_tensor_slices(["a", "b"]).shuffle(2).flat_map(tf.data.TFRecordDataset),
            False,
            False,
        ),
        (
            Dataset.from_tensor_slices(["a", "b"]).interleave(
                tf.data.TFRecordDataset, cycle_length=2
            ),
            True,
            False,
        ),
        (Dataset.range(100).batch(5).map(tf.negative).shuffle(10), True, False),
    ],
    ids=["index", "shuffled", "inner", "files", "records", "order", "turns", "groups"],
)
def test_lanes_have_to_blend_what_no_permutation_of_the_source_can(
    ds: Any, blended: bool, permuted: bool
) -> None:
    (stream,) = analyse(ds).streams
    assert (stream.blended, stream.permuted) == (blended, permuted)
