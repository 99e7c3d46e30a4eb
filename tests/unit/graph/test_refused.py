"""What cannot be shipped is refused by name; what cannot be replayed is named."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from penstock.errors import NotShippableError, UsageError
from penstock.graph import analyse, load_stream
from penstock.graph.functions import findings, refusal
from penstock.graph.ir import Graph, capture_graph

from .harness import check, listed, run_plan

Dataset = tf.data.Dataset


def decode_in_python(x: Any) -> Any:
    return x


def generated() -> Any:
    return Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec([], tf.int32))


def test_py_function_is_named() -> None:
    ds = Dataset.range(3).map(lambda x: tf.py_function(decode_in_python, [x], tf.int64))
    with pytest.raises(NotShippableError, match=r"decode_in_python.*after distribute"):
        analyse(ds)


def test_numpy_function_is_named() -> None:
    ds = Dataset.range(3).filter(lambda x: tf.numpy_function(decode_in_python, [x], tf.int64) > 1)
    with pytest.raises(NotShippableError, match=r"decode_in_python.*filter_lambda"):
        analyse(ds)


@pytest.mark.parametrize(
    "ds",
    [
        generated(),
        generated().map(lambda x: x + 1).shuffle(3),
        Dataset.range(2).flat_map(lambda x: generated()),
    ],
    ids=["bare", "mapped", "inner"],
)
def test_from_generator(ds: Any) -> None:
    with pytest.raises(NotShippableError, match=r"from_generator.*TFRecord"):
        analyse(ds)


def test_python_at_the_client_is_fine() -> None:
    ds = Dataset.range(9).filter(lambda x: x > 2).take(4)
    check(ds.map(lambda x: tf.py_function(lambda y: y + 1, [x], tf.int64)), order=True)


@pytest.mark.parametrize(
    ("draw", "op"),
    [
        (lambda x: tf.random.uniform([]), "RandomUniform"),
        (lambda x: tf.image.random_flip_left_right(tf.zeros([2, 2, 3])), "RandomUniform"),
        (lambda x: tf.random.normal([2], seed=4), "RandomStandardNormal"),
        (lambda x: tf.random.shuffle(tf.range(5)), "RandomShuffle"),
    ],
    ids=["uniform", "flip", "normal", "shuffle"],
)
def test_random_ops_are_made_reproducible(draw: Any, op: str) -> None:
    plan = analyse(Dataset.range(4).map(draw, num_parallel_calls=2), strict=True)
    assert plan.streams[0].replayable
    (note,) = [note for note in plan.notes if note.kind == "random"]
    assert note.text.startswith(f"{op}: made reproducible")
    assert len(listed(run_plan(plan))) == 4


def test_ops_with_another_state_are_named() -> None:
    generator = tf.random.Generator.from_seed(1)
    ds = Dataset.range(4).map(lambda x: generator.normal([]), num_parallel_calls=2)
    plan = analyse(ds)
    assert not plan.streams[0].replayable
    assert any(note.kind == "replay" and "Rng" in note.text for note in plan.notes)
    assert len(listed(run_plan(plan))) == 4
    with pytest.raises(NotShippableError, match="map_lambda"):
        analyse(ds, strict=True)


def test_stateless_random_ops_are_replayable() -> None:
    ds = Dataset.range(4).map(lambda x: tf.random.stateless_uniform([], [x, 1]))
    assert check(ds, strict=True).streams[0].replayable


def test_tables_and_assertions_are_replayable() -> None:
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), 0)

    def look_up(x: tf.Tensor) -> tf.Tensor:
        tf.debugging.assert_less(x, tf.constant(100, tf.int64))
        return table.lookup(tf.cast(x, tf.int32))

    assert check(Dataset.range(4).map(look_up), strict=True).streams[0].replayable


def test_a_captured_iterator_is_refused() -> None:
    iterator = iter(Dataset.range(5))
    with pytest.raises(NotShippableError, match="only exists in this process"):
        analyse(Dataset.range(3).map(lambda x: next(iterator)))


def test_an_iterator_inside_a_function_is_fine() -> None:
    def total(x: tf.Tensor) -> tf.Tensor:
        result = x
        for y in Dataset.range(3):
            result += y
        return result

    assert check(Dataset.range(4).map(total), strict=True).streams[0].replayable


def test_reading_a_data_service_is_refused() -> None:
    # Making the real thing waits for a dispatcher.
    (finding,) = findings(stand_in("DataServiceDatasetV4"), ["source"])
    assert finding.fatal
    assert "tf.data service" in refusal(finding)


def stand_in(op: str) -> Graph:
    """A graph of one node of an op."""
    graph = capture_graph(Dataset.range(1))
    graph.add("source", op)
    return graph


def test_a_blob_that_is_none() -> None:
    for blob in (b"", b"junk", b"\x93\x01\x02\x03", b"\x81\xa7version\x07"):
        with pytest.raises(UsageError):
            load_stream(blob)


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="lanes"):
        analyse(Dataset.range(3), lanes=0)
    plan = analyse(Dataset.range(3))
    with pytest.raises(UsageError, match="1 streams, 0 datasets"):
        plan.apply_suffix([])
    with pytest.raises(UsageError, match="split 3 does not exist"):
        load_stream(plan.streams[0].blob).split_dataset(3, seed=0, epoch=0)
