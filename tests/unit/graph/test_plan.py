"""Plans as a whole: fingerprints, order, what is kept where, blobs that travel."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import tensorflow as tf

from penstock.errors import UsageError
from penstock.graph import analyse, explain, load_stream

from . import recipe
from .harness import listed, run_plan

Dataset = tf.data.Dataset


def test_fingerprints_are_the_same_in_another_process_with_another_past() -> None:
    made = subprocess.run(
        [sys.executable, recipe.__file__], capture_output=True, text=True, check=True, timeout=120
    )
    plan = analyse(recipe.make())
    assert made.stdout.split() == [plan.fingerprint, *[s.fingerprint for s in plan.streams]]


def test_fingerprints_tell_pipelines_apart() -> None:
    base = Dataset.range(10)
    variants = [
        base,
        Dataset.range(11),
        base.map(lambda x: x + 1),
        base.map(lambda x: x + 2),
        base.shuffle(3),
        base.shuffle(4),
        base.batch(2),
        base.batch(3),
        base.repeat(2),
        Dataset.from_tensor_slices([1, 2]),
        Dataset.from_tensor_slices([1, 3]),
        Dataset.from_tensor_slices([1.0, 3.0]),
    ]
    assert len({analyse(ds).fingerprint for ds in variants}) == len(variants)


def test_what_is_shared_by_two_pipelines_has_one_stream() -> None:
    base = Dataset.range(10).filter(lambda x: x > 2)
    first, second = analyse(base.take(3)), analyse(base.batch(4))
    assert first.streams[0].fingerprint == second.streams[0].fingerprint
    assert first.fingerprint != second.fingerprint


def test_seeds_of_the_user_do_not_change_a_stream() -> None:
    plans = [analyse(Dataset.range(10).shuffle(3, seed=seed)) for seed in (1, 2, None)]
    assert len({plan.fingerprint for plan in plans}) == 1


def test_every_split_is_reproducible() -> None:
    stream = analyse(recipe.make()).streams[0]
    first, second = load_stream(stream.blob), load_stream(stream.blob)
    for split in (0, stream.num_splits - 1):
        one = listed(first.split_dataset(split, seed=3, epoch=1))
        first.split_dataset(0, seed=4, epoch=7)
        assert one == listed(first.split_dataset(split, seed=3, epoch=1))
        assert one == listed(second.split_dataset(split, seed=3, epoch=1))
        dataset = first.split_dataset(split, seed=3, epoch=1)
        assert listed(dataset) == listed(dataset)


def test_two_streams_with_different_variables_in_one_process() -> None:
    plans = []
    for value in (1, 100):
        variable = tf.Variable(value, dtype=tf.int64)
        plans.append(analyse(Dataset.range(3).map(lambda x, v=variable: x + v), lanes=1))
    loaded = [load_stream(plan.streams[0].blob) for plan in plans]
    datasets = [stream.split_dataset(1, seed=0, epoch=0) for stream in loaded]
    assert [listed(ds) for ds in datasets] == [[(2,)], [(101,)]]


def test_order_is_needed_only_where_something_depends_on_it() -> None:
    base = Dataset.range(20).filter(lambda x: x > 3)
    assert not analyse(base.batch(3)).ordered
    assert analyse(base.batch(3), lanes=1).ordered
    assert analyse(base.take(3)).ordered
    assert not analyse(base.shuffle(5).take(3)).ordered
    assert not analyse(base.shuffle(5), lanes=1).ordered
    assert not analyse(base.batch(3), lanes=4).ordered
    taken = analyse(base.take(3).shuffle(5), lanes=8)
    assert taken.ordered
    assert taken.lanes == 1
    assert analyse(base, lanes=8).lanes == 8


def test_a_repeat_reads_one_epoch_after_another() -> None:
    ds = Dataset.range(60).shuffle(60).repeat(3).map(lambda x: x)
    result = listed(run_plan(analyse(ds)))
    epochs = [result[i : i + 60] for i in (0, 60, 120)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_plans_are_frozen_and_need_no_files_to_be_there() -> None:
    plan = analyse(tf.data.TFRecordDataset(["/nowhere/a", "/nowhere/b"]))
    assert plan.streams[0].weights is None
    with pytest.raises(AttributeError):
        plan.ordered = True  # type: ignore[misc]


def test_explanation_in_words_and_as_values(records: list[str]) -> None:
    generator = tf.random.Generator.from_seed(1)
    ds = tf.data.TFRecordDataset(records).map(
        lambda r: (r, tf.random.uniform([]) + generator.uniform([]))
    )
    ds = ds.take(3)
    explanation = explain(ds)
    text = str(explanation)
    assert "stream 0: 6 files (6 splits, not replayable)" in text
    assert "Take(3): runs at the client" in text
    assert "RandomUniform: made reproducible" in text
    values = json.loads(json.dumps(explanation.to_dict()))
    assert values["ordered"] is True
    assert values["streams"][0]["num_splits"] == 6
    assert {"kind", "where", "text"} == set(values["notes"][0])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 1000, 4097])
def test_permutations_are_permutations(n: int) -> None:
    from penstock.graph.seeds import permuted

    half = n // 2
    values = [*permuted(n, 0, half, 3, 1), *permuted(n, half, n, 3, 1)]
    assert sorted(values) == list(range(n))
    if n > 10:
        assert values != [*permuted(n, 0, n, 3, 2)]
        assert values != list(range(n))


def test_permutation_and_seeds_never_change() -> None:
    """Golden values: a job restarted with a newer release must see the same order."""
    from penstock.graph.seeds import derive, permuted

    assert permuted(10, 0, 10, 1, 2).tolist() == GOLDEN_PERMUTATION
    assert derive("op", 1, 2, 3, 4) == GOLDEN_SEEDS


GOLDEN_PERMUTATION = [3, 2, 6, 4, 5, 8, 0, 7, 1, 9]
GOLDEN_SEEDS = (5715724870608295396, 3853257144662856801)


def test_chunked_needs_streams_of_the_plan() -> None:
    with pytest.raises(UsageError):
        analyse(Dataset.range(4).batch(2)).apply_suffix([], chunked=True)


def test_the_plan_lists_what_runs_where_in_order() -> None:
    plan = analyse(tf.data.Dataset.range(100).map(lambda i: i + 1).shuffle(10).batch(8))
    (stream,) = plan.streams
    assert [step.partition("(")[0] for step in stream.steps] == ["Range", "Map", "Shuffle"]
    assert plan.client_steps == ("Batch(8)",)


@pytest.mark.parametrize(
    ("suffix", "wanted"),
    [
        (lambda ds: ds.batch(8), (8, False)),
        (lambda ds: ds.batch(8, drop_remainder=True).prefetch(2), (8, True)),
        (lambda ds: ds.prefetch(1).batch(3, num_parallel_calls=2), (3, False)),
        (lambda ds: ds.batch(8).map(lambda i: i + 1), None),
        (lambda ds: ds.batch(8).take(2), None),
        (lambda ds: ds.batch(8).batch(2), None),
        (lambda ds: ds.repeat(2).batch(8), None),
        (lambda ds: ds.batch(8).repeat(2), None),
        (lambda ds: ds.map(lambda i: tf.range(i)).ragged_batch(8), None),
        (lambda ds: ds, None),
    ],
)
def test_a_plan_tells_when_the_client_only_makes_batches(suffix: Any, wanted: Any) -> None:
    found = analyse(suffix(tf.data.Dataset.range(100).map(lambda i: i + 1))).final_batch
    assert wanted == (None if found is None else (found.size, found.drop_remainder))
