"""Runs with fed iterators: the same elements and checkpoints, and iterators that are used again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import LoadedStream, analyse, load_stream
from penstock.graph.fed import FedStream
from penstock.proto.hashing import Digest
from penstock.worker import fed, rate
from penstock.worker.checkpoint_file import Layout
from penstock.worker.checkpointing import Cost
from penstock.worker.fed import FED, SINGLE, STACKED, Fed, FedSplits, IdleIterators
from penstock.worker.messages import AttemptError, Piece
from penstock.worker.pipeline import run_attempt
from penstock.worker.recorder import Recorder

from .fakes import assignment
from .test_restoring import ALWAYS, Shelf, Spot, Threes

Dataset = tf.data.Dataset


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "TARGET_BYTES", 1)


@pytest.fixture(autouse=True)
def _fed_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed, "_ALONE", 0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The iterators that were made."""
    found: list[Any] = []
    new = fed._new

    def noted(*args: Any, **more: Any) -> Any:
        found.append(new(*args, **more))
        return found[-1]

    monkeypatch.setattr(fed, "_new", noted)
    return found


def stream(dataset: Any) -> LoadedStream:
    (only,) = analyse(dataset).streams
    return load_stream(bytes(only.blob))


def numbers() -> Any:
    return Dataset.range(640).shuffle(20).map(lambda x: (x, tf.random.uniform([2])))


def varying() -> Any:
    """Every way of a component: fixed, of one varying dimension, of two, of an unknown rank."""

    def element(x: Any) -> Any:
        some = tf.fill([x % 3], tf.strings.as_string(x))
        of_two = tf.random.uniform([x % 4, 2, x % 2])
        unknown = tf.reshape(tf.range(x % 5), tf.concat([[-1], tf.ones([x % 2], tf.int32)], 0))
        return x, some, of_two, unknown, tf.RaggedTensor.from_row_lengths(tf.range(x), [x])

    return Dataset.range(640).shuffle(20).map(element)


STREAMS = pytest.mark.parametrize("build", [numbers, varying], ids=["fixed", "varying"])


def run(
    splits: FedSplits,
    split: int,
    *,
    shelf: Shelf | None = None,
    first: int | None = None,
    trial: int = 1,
    fed_: bool = True,
    stop_at: int | None = None,
) -> tuple[Digest | None, Spot]:
    """Makes a split."""
    spot, wanted = Spot(first), assignment(1, split=split, trial=trial)
    keeper: Any = shelf
    cost, stopped = Cost(ALWAYS), threading.Event()

    def put(piece: Piece) -> bool:
        return spot.put(piece) and piece.stop != stop_at

    origin = Fed(splits, wanted) if fed_ else None
    recorder = Recorder(keeper, cost, spot, wanted)
    digest = run_attempt(splits.stream, wanted, put, Threes(), stopped, recorder, origin)
    if origin is not None:
        origin.prepare()
    return digest, spot


def primed(dataset: Any) -> FedSplits:
    """The splits of a stream that has an idle iterator."""
    splits = FedSplits(stream(dataset), IdleIterators())
    run(splits, 7)
    return splits


@STREAMS
def test_split_after_split_comes_from_one_iterator(build: Any, made: list[Any]) -> None:
    splits = primed(build())
    for split in (3, 0, 3):
        digest, spot = run(splits, split)
        alone, other = run(splits, split, fed_=False)
        assert digest == alone is not None
        assert [p.start for p in spot.pieces] == [p.start for p in other.pieces]
    assert len(made) == 1


def test_the_first_splits_are_not_fed(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed, "_ALONE", 2)
    splits = FedSplits(stream(numbers()), IdleIterators())
    for split in range(2):
        run(splits, split)
    assert made == []
    run(splits, 2)
    assert len(made) == 1


def test_splits_that_find_no_idle_iterator_go_without_and_make_some_when_they_are_over(
    made: list[Any],
) -> None:
    splits, layout = FedSplits(stream(numbers()), IdleIterators()), Layout("stacked", 4)

    def begun(number: int) -> tuple[Fed, str]:
        origin = Fed(splits, assignment(number, split=0))
        return origin, origin.elements(layout, fresh=True).layout.via

    first, second = begun(1), begun(2)
    assert (first[1], second[1]) == ("", "")
    assert made == []
    first[0].prepare()
    third = begun(3)
    assert third[1] == FED
    second[0].prepare()
    third[0].prepare()  # it has missed none
    assert len(made) == 2
    assert [begun(number)[1] for number in (4, 5)] == [FED, ""]


def test_no_more_than_four_runs_that_are_over_make_iterators(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, layout = FedSplits(stream(numbers()), IdleIterators()), Layout("stacked", 4)
    new, wanted, enough = fed._new, threading.Semaphore(0), threading.Event()

    def slow(*args: Any) -> Any:
        assert enough.wait(60)
        return new(*args)

    monkeypatch.setattr(fed, "_new", slow)

    def over() -> None:
        splits.prepare(layout)
        wanted.release()

    threads = [threading.Thread(target=over) for _ in range(7)]
    for thread in threads:
        thread.start()
    for _ in range(3):  # those that are too many do not wait
        assert wanted.acquire(timeout=60)
    enough.set()
    for thread in threads:
        thread.join(60)
    taken = [Fed(splits, assignment(n, split=0)).elements(layout, fresh=True) for n in range(1, 6)]
    assert [elements.layout.via for elements in taken] == [FED] * 4 + [""]


def test_what_goes_on_from_a_fed_iterators_state_makes_one_if_none_is_idle(
    made: list[Any],
) -> None:
    splits, layout = FedSplits(stream(numbers()), IdleIterators()), Layout("stacked", 4, FED)
    for number in (1, 2):
        origin = Fed(splits, assignment(number, split=0))
        assert origin.elements(layout, fresh=False).layout.via == FED
        assert len(made) == number


def test_a_later_trial_is_not_fed(made: list[Any]) -> None:
    run(FedSplits(stream(numbers()), IdleIterators()), 0, trial=2)
    assert made == []


def test_an_iterator_that_was_stopped_is_let_go(made: list[Any]) -> None:
    splits = primed(numbers())
    digest, spot = run(splits, 0, stop_at=3)
    assert digest is None
    assert spot.pieces[-1].stop == 3
    assert run(splits, 1)[0] == run(splits, 1, fed_=False)[0]
    assert len(made) == 2


def test_an_iterator_that_raised_is_let_go(made: list[Any]) -> None:
    def fussy(x: Any) -> Any:
        return tf.debugging.check_numerics(1 / tf.cast(x - 25, tf.float32), "no such number")

    splits = primed(Dataset.range(640).map(fussy))
    with pytest.raises(AttemptError, match=r"split 2 .*no such number"):
        run(splits, 2)
    assert run(splits, 1)[0] == run(splits, 1, fed_=False)[0]
    assert len(made) == 2


@pytest.mark.parametrize("again", [False, True], ids=["another iterator", "the same iterator"])
@STREAMS
def test_a_restored_run_makes_exactly_the_rest(build: Any, again: bool) -> None:
    dataset = build()
    splits = primed(dataset)
    shelf = Shelf()
    whole, before = run(splits, 4, shelf=shelf)
    assert [saved.header.layout.via for saved in shelf.saved] == [FED] * 4
    for saved in shelf.saved:
        if not again:
            splits = FedSplits(stream(dataset), IdleIterators())
        at = saved.header.elements
        digest, spot = run(splits, 4, shelf=Shelf(saved), first=at)
        assert spot.begun == at
        assert [p.start for p in spot.pieces] == [p.start for p in before.pieces if p.start >= at]
        assert digest == whole
        assert run(splits, 5)[0] == run(splits, 5, fed_=False)[0]


def test_a_state_of_an_iterator_of_its_own_is_restored_as_one() -> None:
    splits = FedSplits(stream(numbers()), IdleIterators())
    shelf = Shelf()
    whole, _ = run(splits, 4, shelf=shelf, fed_=False)
    saved = shelf.saved[1]
    digest, spot = run(splits, 4, shelf=Shelf(saved), first=saved.header.elements)
    assert spot.begun == saved.header.elements
    assert digest == whole


def test_a_stream_with_a_state_of_its_own_is_not_saved(caplog: pytest.LogCaptureFixture) -> None:
    @tf.function
    def counted(x: Any) -> Any:
        return x + tf.cast(tf.timestamp() * 0, tf.int64)

    splits = primed(Dataset.range(640).map(counted))
    shelf = Shelf()
    digest, _ = run(splits, 0, shelf=shelf)
    assert digest is not None
    assert shelf.saved == []
    assert "cannot be checkpointed, its splits replay" in caplog.text


@pytest.mark.parametrize("refuses", ["fed", "dataset"])
def test_a_stream_that_tensorflow_will_not_feed_is_made_all_the_same(
    refuses: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("an op that it does not know")

    loaded = stream(numbers())
    shelf, want = Shelf(), run(FedSplits(loaded, IdleIterators()), 4, fed_=False)[0]
    run(primed(numbers()), 4, shelf=shelf)
    if refuses == "fed":
        monkeypatch.setattr(LoadedStream, "fed", refuse)
    else:
        monkeypatch.setattr(FedStream, "dataset", refuse)
    splits = FedSplits(loaded, IdleIterators())
    saved = shelf.saved[0]
    for first in (None, saved.header.elements):  # the state is of no use any more
        digest, spot = run(splits, 4, shelf=Shelf(saved), first=first)
        assert digest == want
        assert spot.begun == 0
    assert caplog.text.count("an op that it does not know") >= 1
    assert caplog.text.count("have iterators of their own") == 1


def test_those_that_are_too_many_are_let_go_the_oldest_first() -> None:
    idle = IdleIterators(keep_max=2)
    one, other = (FedSplits(stream(numbers()), idle).fed() for _ in range(2))
    assert one is not None
    assert other is not None
    first, second, third = (fed.FedIterator(object(), Any, object(), STACKED) for _ in range(3))
    assert idle.give(one, first) is None
    assert idle.give(other, second) is None
    assert idle.give(one, third) is first
    assert idle.take(one, SINGLE) is None
    assert idle.take(one, STACKED) is third
    assert idle.take(one, STACKED) is None
    assert idle.take(other, STACKED) is second
