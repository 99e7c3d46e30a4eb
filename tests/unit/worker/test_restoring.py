"""Real iterators, taken apart and put together again: the rest is what tf.data alone makes."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import analyse, load_stream
from penstock.proto.hashing import Digest, DigestBuilder
from penstock.worker import rate, recorder
from penstock.worker.checkpoint_file import Checkpoint, encode, read
from penstock.worker.checkpointing import Cost, Interval
from penstock.worker.messages import Key, Piece
from penstock.worker.pieces import EncodedPiece
from penstock.worker.pipeline import run_attempt
from penstock.worker.rate import Rate
from penstock.worker.recorder import Recorder

from .fakes import assignment
from .test_pipeline import OneSplit, elements

ALWAYS = Interval(1e-12)
NOTHING = np.empty(0, np.uint64)
Builder = Callable[[], Any]


class Threes(Rate):
    """Makes pieces of three elements, where tf.data batches them."""

    def batch_size(self, fixed_bytes: int | None) -> int:
        return 3


class Shelf:
    """A keeper and its store that hold what a test puts there, as the bytes of their files."""

    def __init__(self, *points: Checkpoint) -> None:
        self.files = {(p.header.key, p.header.elements): b"".join(encode(p)) for p in points}
        self.saved: list[Checkpoint] = []
        self.aside: dict[int, str] = {}
        self.forgotten: list[int] = []
        self.store = self

    def elements(self, key: Key) -> list[int]:
        return sorted(elements for held, elements in self.files if held == key)

    def read(self, key: Key, elements: int) -> Checkpoint | None:
        data = self.files[key, elements]
        return read(io.BytesIO(data), len(data))

    def set_aside(self, key: Key, elements: int, suffix: str, why: str) -> None:
        del self.files[key, elements]
        self.aside[elements] = why

    def busy(self, key: Key) -> bool:
        return False

    def save(self, checkpoint: Checkpoint, acknowledged: int, prepare: Any) -> None:
        assert acknowledged == checkpoint.header.elements
        self.saved.append(checkpoint)

    def forget(self, key: Key, above: int = -1) -> None:
        self.forgotten.append(above)


class Spot:
    """A run's place: its client has everything that was put, and wanted `first` to begin with."""

    def __init__(self, first: int | None) -> None:
        self.first = first
        self.hashes = NOTHING
        self.begun: int | None = None
        self.pieces: list[EncodedPiece] = []
        self.held: list[object] = []

    def cursor(self, *, patient: bool) -> int | None:
        return self.first

    def hold(self, iterator: object) -> None:
        self.held.append(iterator)

    def begin(self, hashes: Any) -> None:
        assert self.begun is None
        self.hashes, self.begun = hashes, len(hashes)

    def put(self, piece: Piece) -> bool:
        assert isinstance(piece, EncodedPiece)
        assert piece.start == len(self.hashes)
        self.pieces.append(piece)
        self.hashes = np.concatenate([self.hashes, piece.hashes])
        return True

    def save(self, elements: int, take: Callable[[int, Any], None]) -> None:
        take(elements, self.hashes[:elements])


def run(
    stream: Any, shelf: Shelf, first: int | None = None, trial: int = 1, cost: Cost | None = None
) -> tuple[Digest, Spot]:
    """Makes a split with the checkpoints of a shelf; checks that its digest covers everything."""
    spot, wanted = Spot(first), assignment(1, split=0, trial=trial)
    recorder_ = Recorder(shelf, cost or Cost(ALWAYS), spot, wanted)  # type: ignore[arg-type]
    digest = run_attempt(stream, wanted, spot.put, Threes(), threading.Event(), recorder_)
    assert digest is not None
    builder = DigestBuilder()
    builder.update(spot.hashes)
    assert builder.digest() == digest
    return digest, spot


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "TARGET_BYTES", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four files with 5 to 8 records of different lengths."""
    directory = tmp_path_factory.mktemp("records")
    paths = [str(directory / f"{n}.tfrecord") for n in range(4)]
    for n, path in enumerate(paths):
        with tf.io.TFRecordWriter(path) as writer:
            for k in range(5 + n):
                writer.write(f"file {n} record {k} {'x' * k}".encode())
    return paths


def flat(*parts: Any) -> tuple[Any, ...]:
    return parts


def numbers(count: int = 40) -> Any:
    return tf.data.Dataset.range(count)


def interleaved(paths: list[str]) -> Any:
    return tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset, cycle_length=2, block_length=2, num_parallel_calls=2
    )


PIPELINES: dict[str, Callable[[list[str]], Any]] = {
    "range": lambda _: numbers().map(flat),
    "map": lambda _: numbers().map(lambda x: (x, tf.cast(x, tf.float32) / 3)),
    "parallel map": lambda _: numbers().map(lambda x: (x * 2,), num_parallel_calls=2),
    "shuffle": lambda _: numbers().shuffle(16, seed=5).map(flat),
    "filter": lambda _: numbers(90).filter(lambda x: x % 3 != 1).map(flat),
    "records": lambda paths: tf.data.TFRecordDataset(paths).map(flat),
    "interleave": lambda paths: interleaved(paths).map(flat),
    "flat_map": lambda _: numbers(9).flat_map(lambda x: tf.data.Dataset.range(x)).map(flat),
    "strings": lambda _: numbers().map(lambda x: (tf.strings.as_string(x), x)),
    "varying shapes": lambda _: numbers().map(lambda x: (tf.fill([x % 4, 2], x), x)),
    "batches": lambda _: numbers(43).batch(2).map(flat),
    "full batches": lambda _: numbers(43).batch(2, drop_remainder=True).map(flat),
    "zip": lambda _: tf.data.Dataset.zip((numbers(), numbers(50).skip(7))),
    "prefetch": lambda _: numbers().map(flat).prefetch(8),
    "repeat": lambda _: numbers(7).repeat(6).map(flat),
    "unbatch": lambda _: numbers().batch(5).unbatch().map(flat),
    "cache": lambda _: numbers().cache().map(flat),
    "all of it": lambda paths: (
        interleaved(paths)
        .shuffle(8, seed=2)
        .map(lambda r: (tf.strings.length(r), r), num_parallel_calls=2)
        .filter(lambda n, _: n % 5 != 0)
        .prefetch(2)
    ),
}


def truth(dataset: Any) -> list[tuple[Any, ...]]:
    """What tf.data alone makes."""
    return [tuple(np.asarray(part) for part in element) for element in dataset]


def check_rest(spot: Spot, want: list[tuple[Any, ...]], start: int) -> None:
    found = elements(spot.pieces)
    assert len(found) == len(want) - start
    for parts, expected in zip(found, want[start:], strict=True):
        for part, other in zip(parts, expected, strict=True):
            np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize(
    ("name", "trial"),
    [*((name, 1) for name in PIPELINES), ("map", 2), ("shuffle", 2), ("strings", 2)],
)
def test_a_restored_run_makes_exactly_the_rest(name: str, trial: int, files: list[str]) -> None:
    class Fresh(OneSplit):  # another dataset each time, as in another process
        def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
            return PIPELINES[name](files)

    stream = Fresh(PIPELINES[name](files))
    want = truth(PIPELINES[name](files))
    shelf = Shelf()
    whole, spot = run(stream, shelf, trial=trial)
    check_rest(spot, want, 0)
    assert len(shelf.saved) >= 7
    for ahead, saved in enumerate(shelf.saved[:: 2 if trial == 1 else 6]):
        start = saved.header.elements
        digest, spot = run(stream, Shelf(saved), start + ahead, trial)
        assert spot.begun == start
        check_rest(spot, want, start)
        assert digest == whole


@pytest.mark.parametrize("name", ["shuffle", "records", "filter", "interleave", "strings"])
def test_streams_that_came_as_graphs_are_restored(name: str, files: list[str]) -> None:
    def loaded() -> Any:
        return load_stream(analyse(PIPELINES[name](files)).streams[0].blob)

    shelf = Shelf()
    whole, spot = run(loaded(), shelf)
    want = elements(spot.pieces)
    for saved in shelf.saved[::3]:
        digest, spot = run(loaded(), Shelf(saved), saved.header.elements)
        assert spot.begun == saved.header.elements > 0
        check_rest(spot, want, saved.header.elements)
        assert digest == whole


def counting() -> tuple[OneSplit, list[Checkpoint]]:
    stream = OneSplit(numbers().map(flat))
    shelf = Shelf()
    run(stream, shelf)
    return stream, shelf.saved


def test_the_newest_that_leaves_nothing_out_is_restored() -> None:
    stream, saved = counting()
    shelf = Shelf(*saved)
    _, spot = run(stream, shelf, 20)
    assert spot.begun == 18
    assert shelf.forgotten == [18]  # those after it will be made anew
    _, spot = run(stream, Shelf(*saved), 2)
    assert spot.begun == 0


def test_without_a_client_a_run_begins_at_its_beginning() -> None:
    stream, saved = counting()
    shelf = Shelf(*saved)
    _, spot = run(stream, shelf, None)
    assert spot.begun == 0
    assert shelf.forgotten == []


def test_a_state_of_another_graph_is_set_aside_and_an_older_one_is_tried() -> None:
    stream, saved = counting()
    other = Shelf()
    run(OneSplit(numbers().shuffle(16, seed=1).map(flat)), other)
    wrong = other.saved[3]
    shelf = Shelf(saved[1], wrong)
    _, spot = run(stream, shelf, 12)
    assert spot.begun == saved[1].header.elements == 6
    assert list(shelf.aside) == [12]
    check_rest(spot, truth(numbers().map(flat)), 6)


@pytest.mark.parametrize("state", [b"", b"no tensor", bytes(1000)])
def test_a_state_that_is_none_is_set_aside_and_the_split_replays(state: bytes) -> None:
    stream, saved = counting()
    shelf = Shelf(replace(saved[1], state=state))
    _, spot = run(stream, shelf, 12)
    assert spot.begun == 0
    assert list(shelf.aside) == [6]
    check_rest(spot, truth(numbers().map(flat)), 0)


def test_a_state_of_other_options_is_set_aside() -> None:
    stream, saved = counting()
    other = replace(saved[1], header=replace(saved[1].header, options="cpu_budget=99"))
    shelf = Shelf(other)
    _, spot = run(stream, shelf, 12)
    assert spot.begun == 0
    assert "made with cpu_budget=99" in shelf.aside[6]


def test_a_later_trial_does_not_use_what_was_made_in_batches() -> None:
    stream, saved = counting()
    shelf = Shelf(*saved)
    _, spot = run(stream, shelf, 12, trial=2)
    assert spot.begun == 0
    assert shelf.aside == {}


def test_a_disk_that_cannot_be_read_is_a_replay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: the disk is on fire")

    stream, saved = counting()
    monkeypatch.setattr(recorder, "failpoint", refuse)
    _, spot = run(stream, Shelf(*saved), 8)
    assert spot.begun == 0
    assert "not restored at element 6: worker.restore.after_restore" in caplog.text


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: numbers().map(lambda x: (tf.random.uniform([]), x)), "RandomUniform is stateful"),
        (
            lambda: tf.data.Dataset.from_generator(
                lambda: iter(range(40)), output_signature=tf.TensorSpec((), tf.int64)
            ).map(flat),
            "PyFunc is stateful",
        ),
    ],
    ids=["random", "generator"],
)
def test_what_cannot_be_checkpointed_is_named_once_and_replays(
    build: Builder, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream, shelf, cost = OneSplit(build()), Shelf(), Cost(ALWAYS)
    for _ in range(2):
        digest, _ = run(stream, shelf, cost=cost)
        assert digest.count == 40
    assert shelf.saved == []
    assert caplog.text.count(why) == 1
    assert "dataset d1 cannot be checkpointed, its splits replay" in caplog.text
    assert "{{" not in caplog.text


@pytest.mark.parametrize("interval", [Interval(), Interval(1000.0), Interval(auto=True)])
def test_cheap_splits_take_no_checkpoints(interval: Interval) -> None:
    shelf = Shelf()
    run(OneSplit(numbers().map(flat)), shelf, cost=Cost(interval))
    assert shelf.saved == []


def test_one_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.worker.checkpointing.CHECKPOINT_BYTES_MAX", 10)
    shelf, cost = Shelf(), Cost(ALWAYS)
    run(OneSplit(numbers().map(flat)), shelf, cost=cost)
    assert shelf.saved == []
    assert cost.period_s() == math.inf


def test_a_client_far_behind_is_waited_for() -> None:
    class Behind(Spot):
        def save(self, elements: int, take: Callable[[int, Any], None]) -> None:
            take(0, self.hashes[:elements])

    class Stocked(Shelf):
        def elements(self, key: Key) -> list[int]:
            return [] if not self.saved else [p.header.elements for p in self.saved]

        def save(self, checkpoint: Checkpoint, acknowledged: int, prepare: Any) -> None:
            self.saved.append(checkpoint)

    spot, shelf, wanted = Behind(0), Stocked(), assignment(1, split=0)
    made = Recorder(shelf, Cost(ALWAYS), spot, wanted)  # type: ignore[arg-type]
    stream = OneSplit(numbers(90).map(flat))
    run_attempt(stream, wanted, spot.put, Threes(), threading.Event(), made)
    assert [p.header.elements for p in shelf.saved] == [3, 6, 9, 12, 15, 18, 21, 24]


def test_no_checkpoint_is_taken_of_a_run_that_was_stopped(tmp_path: Path) -> None:
    class Stopped(Spot):
        def save(self, elements: int, take: Callable[[int, Any], None]) -> None:
            """Nothing is wanted of it any more."""

    spot, shelf, wanted = Stopped(0), Shelf(), assignment(1, split=0)
    made = Recorder(shelf, Cost(ALWAYS), spot, wanted)  # type: ignore[arg-type]
    stream = OneSplit(numbers().map(flat))
    run_attempt(stream, wanted, spot.put, Threes(), threading.Event(), made)
    assert shelf.saved == []
