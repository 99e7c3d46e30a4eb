"""Elements that are left out: the same ones in every replay, whatever the pipeline is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.proto.spec import ComponentSpec
from penstock.worker.messages import AttemptError, Piece
from penstock.worker.pieces import EncodedPiece
from penstock.worker.pipeline import run_attempt
from penstock.worker.rate import Rate

from .fakes import assignment

COUNT = 12
BAD = (3, 7)


def checked(number: Any) -> Any:
    """The number; some raise."""
    fine = tf.reduce_all([tf.not_equal(number, bad) for bad in BAD])
    with tf.control_dependencies([tf.debugging.assert_equal(fine, True, message="bad record")]):
        return tf.identity(number)


def pairs(number: Any) -> Any:
    return tf.data.Dataset.range(2).map(lambda second: checked(number) * 10 + second)


NUMBERS = tf.data.Dataset.range(COUNT)
PIPELINES: dict[str, Callable[[], Any]] = {
    "map": lambda: NUMBERS.map(checked),
    "parallel map": lambda: NUMBERS.map(checked, num_parallel_calls=4, deterministic=True),
    "prefetch": lambda: NUMBERS.map(checked, num_parallel_calls=2).prefetch(2),
    "map, then map": lambda: NUMBERS.map(checked).map(lambda x: x + 1, num_parallel_calls=2),
    "filter": lambda: NUMBERS.filter(lambda x: checked(x) % 2 == 0),
    "shuffle": lambda: NUMBERS.map(checked).shuffle(4, seed=1, reshuffle_each_iteration=False),
    "of shuffled": lambda: NUMBERS.shuffle(4, seed=1, reshuffle_each_iteration=False).map(checked),
    "batch": lambda: NUMBERS.map(checked).batch(3, drop_remainder=True),
    "flat_map": lambda: NUMBERS.flat_map(pairs),
    "interleave": lambda: NUMBERS.interleave(pairs, cycle_length=2),
    "parallel interleave": lambda: NUMBERS.interleave(
        pairs, cycle_length=2, num_parallel_calls=2, deterministic=True
    ),
    "zip": lambda: tf.data.Dataset.zip((NUMBERS.map(checked), NUMBERS)).map(lambda a, b: a + b),
}


class Stream:
    """A stream whose only split is a dataset of numbers, or batches of them."""

    fixed_element_bytes = None

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.map(lambda x: (x,))
        shape = tuple(dataset.element_spec.shape.as_list())
        self.components = (ComponentSpec("int64", shape),)

    def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
        return self._dataset

    def describe_split(self, split: int) -> str:
        return "numbers"


def produced(dataset: Any, bad: tuple[int, ...], trial: int = 2) -> list[Any]:
    """What an attempt makes that leaves some elements out."""
    found: list[Any] = []

    def put(piece: Piece) -> bool:
        assert isinstance(piece, EncodedPiece)
        for index in range(piece.start, piece.stop):
            assert index == len(found)
            found.append(np.asarray(piece.chunk.element(index)[0]).tolist())
        return True

    at = assignment(1, trial=trial, bad=bad)
    digest = run_attempt(Stream(dataset), at, put, Rate(), threading.Event())
    assert digest is not None
    assert digest.count == len(found)
    return found


def truth(dataset: Any) -> tuple[list[Any], tuple[int, ...]]:
    """What tf.data gives when it is asked again after each error, and which elements raise."""
    iterator = iter(dataset)
    outcomes = list(iter(lambda: outcome(iterator), "end"))
    bad = tuple(number for number, made in enumerate(outcomes) if made == "bad")
    return [made for made in outcomes if made != "bad"], bad


def outcome(iterator: Any) -> Any:
    """The next element, "bad" if it raises, "end" after the last."""
    try:
        return next(iterator).numpy().tolist()
    except StopIteration:
        return "end"
    except tf.errors.InvalidArgumentError:
        return "bad"


@pytest.mark.parametrize("name", PIPELINES)
def test_the_bad_elements_are_found_one_by_one_and_exactly_they_are_left_out(name: str) -> None:
    dataset = PIPELINES[name]()
    good, wanted = truth(dataset)
    assert wanted
    bad: tuple[int, ...] = ()
    while len(bad) < len(wanted):
        for _ in range(2):  # every replay names the same one
            with pytest.raises(AttemptError) as caught:
                produced(dataset, bad)
            assert caught.value.element == wanted[len(bad)]
            assert f"element {caught.value.element}: InvalidArgumentError" in str(caught.value)
            assert "bad record" in str(caught.value)
        bad += (wanted[len(bad)],)
    assert produced(dataset, bad) == good
    assert produced(dataset, bad, trial=1) == good


def test_an_element_is_left_out_even_if_it_does_not_raise_this_time() -> None:
    assert produced(NUMBERS, (0, 5, 11)) == [n for n in range(COUNT) if n not in (0, 5, 11)]


def test_the_first_trial_names_no_element_because_it_makes_many_at_once() -> None:
    with pytest.raises(AttemptError, match="after 0 elements") as caught:
        produced(PIPELINES["map"](), (), trial=1)
    assert caught.value.element is None


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError, tf.errors.UnavailableError])
def test_what_is_no_fault_of_the_element_names_none(error: Any) -> None:
    class Raising(Stream):
        def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
            raise error(None, None, "no room")

    with pytest.raises(AttemptError) as caught:
        run_attempt(
            Raising(NUMBERS), assignment(1, trial=2), lambda _: True, Rate(), threading.Event()
        )
    assert caught.value.element is None
