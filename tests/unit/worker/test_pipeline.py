"""Attempts with real TensorFlow: every kind of element, errors by index and file, stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import LoadedStream, analyse, load_stream
from penstock.proto.chunk import decode
from penstock.proto.hashing import Digest, DigestBuilder
from penstock.proto.spec import ComponentSpec
from penstock.proto.wire import FrameLimits
from penstock.worker import pieces
from penstock.worker.iterators import FlatElements
from penstock.worker.messages import DETAIL_BYTES_MAX, AttemptError, Piece
from penstock.worker.pieces import EncodedPiece
from penstock.worker.pipeline import run_attempt
from penstock.worker.rate import ELEMENTS_MAX, TARGET_BYTES, Meter, Rate

from .fakes import assignment


class OneSplit:
    """A stream whose only split is a given dataset of flat tuples."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.components = tuple(
            ComponentSpec(
                spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape.as_list())
            )
            for spec in dataset.element_spec
        )
        self.fixed_element_bytes: int | None = None
        if all(c.dtype != "string" and c.static_shape is not None for c in self.components):
            self.fixed_element_bytes = sum(
                spec.shape.num_elements() * spec.dtype.size for spec in dataset.element_spec
            )

    def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
        return self._dataset

    def describe_split(self, split: int) -> str:
        return f"file-{split}"


def run(
    stream: Any, *, split: int = 0, trial: int = 1, rate: Rate | None = None
) -> tuple[Digest, list[EncodedPiece]]:
    pieces: list[EncodedPiece] = []

    def put(piece: Piece) -> bool:
        assert isinstance(piece, EncodedPiece)
        pieces.append(piece)
        return True

    digest = run_attempt(
        stream,
        assignment(1, split=split, trial=trial, epoch=4),
        put,
        rate or Rate(),
        threading.Event(),
    )
    assert digest is not None
    check(pieces, digest)
    return digest, pieces


def check(pieces: list[EncodedPiece], digest: Digest) -> None:
    """Pieces follow each other, say the truth of themselves, and make up the digest."""
    builder = DigestBuilder()
    at = 0
    for piece in pieces:
        assert piece.start == at
        at = piece.stop
        payload = b"".join(piece.buffers)
        assert len(payload) == piece.nbytes
        chunk = decode(piece.header, memoryview(payload))
        chunk.verify()
        builder.update(chunk.hashes)
    assert builder.digest() == digest


def elements(pieces: list[EncodedPiece]) -> list[tuple[Any, ...]]:
    return [
        piece.chunk.element(index) for piece in pieces for index in range(piece.start, piece.stop)
    ]


def flat(dataset: Any) -> OneSplit:
    return OneSplit(dataset)


def numbers(count: int) -> Any:
    return tf.data.Dataset.range(count).map(lambda x: (x, tf.cast(x, tf.float32) / 2))


def test_fixed_elements_are_batched() -> None:
    digest, pieces = run(flat(numbers(10_000)))
    assert digest.count == 10_000
    assert len(pieces) < 500
    assert [int(x) for x, _ in elements(pieces)] == list(range(10_000))


def test_a_known_rate_makes_pieces_of_the_intended_size() -> None:
    rate = Rate()
    run(flat(numbers(20_000)), rate=rate)
    stream = flat(tf.data.Dataset.range(400).map(lambda x: (tf.fill([4096], x),)))
    _, pieces = run(stream, rate=Rate(element_s=1e-9))
    assert {piece.stop - piece.start for piece in pieces[:-1]} == {TARGET_BYTES // (4096 * 8)}
    _, pieces = run(flat(numbers(20_000)), rate=Rate(element_s=1e-9))
    assert max(piece.stop - piece.start for piece in pieces) == ELEMENTS_MAX


def test_large_elements_go_two_by_two_from_the_tensors_memory() -> None:
    stream = flat(tf.data.Dataset.range(5).map(lambda x: (tf.fill([3 << 17], x), x)))
    _, pieces = run(stream)
    assert [piece.stop - piece.start for piece in pieces] == [2, 2, 1]
    for piece in pieces:
        sizes = [memoryview(part).nbytes for part in piece.buffers]
        assert sizes[:-1] == [3 << 20] * (piece.stop - piece.start)
        assert not any(isinstance(p, bytes) and len(p) > 64 for p in piece.buffers)
    assert [x.item() for _, x in elements(pieces)] == [*range(5)]


def test_components_come_as_tensorflow_gives_them_errors_and_the_end_too() -> None:
    checked = tf.data.Dataset.range(4).map(lambda x: (tf.debugging.check_numerics(4 / x, ""), x))
    wanted = [tf.errors.InvalidArgumentError, [4.0, 1], [2.0, 2], [4 / 3, 3], StopIteration]
    for elements in (iter(checked), FlatElements(iter(checked))):
        assert [outcome(elements) for _ in range(6)] == [*wanted, StopIteration]


def outcome(elements: Iterator[Any]) -> Any:
    """The next element, or what is raised instead."""
    try:
        return [part.numpy() for part in next(elements)]
    except (StopIteration, tf.errors.InvalidArgumentError) as error:
        return type(error)


def test_scalar_strings_are_batched() -> None:
    stream = flat(tf.data.Dataset.range(1000).map(lambda x: (tf.strings.as_string(x),)))
    _, pieces = run(stream)
    assert [x.item() for (x,) in elements(pieces)] == [str(i).encode() for i in range(1000)]
    assert len(pieces) < 100


@pytest.mark.parametrize("dtype", ["bfloat16", "int4"])
@pytest.mark.parametrize("trial", [1, 2])
def test_scalars_of_ml_dtypes_beside_what_varies(dtype: Any, trial: int) -> None:
    numbers = tf.data.Dataset.range(3).map(lambda x: tf.cast(x, tf.int8))
    stream = flat(numbers.map(lambda x: (tf.cast(x, dtype), tf.fill([x], x))))
    _, pieces = run(stream, trial=trial)
    assert [float(part) for part, _ in elements(pieces)] == [0, 1, 2]


def test_large_or_slow_elements_of_varying_shapes_are_collected() -> None:
    stream = flat(tf.data.Dataset.range(9).map(lambda x: (tf.fill([x % 3], x),)))
    digest, _ = run(stream)
    slow, _ = run(stream, rate=Rate(element_s=1.0))
    large, _ = run(stream, rate=Rate(element_bytes=TARGET_BYTES, element_s=1e-3))
    assert digest == slow == large


def test_varying_shapes_are_batched() -> None:
    stream = flat(tf.data.Dataset.range(50).map(lambda x: (tf.fill([x % 5, 2], x), x)))
    _, pieces = run(stream)
    found = elements(pieces)
    assert [part.shape for part, _ in found] == [(i % 5, 2) for i in range(50)]
    assert len(pieces) < 50


def test_strings_of_varying_rank_are_batched() -> None:
    stream = flat(tf.data.Dataset.range(6).map(lambda x: (tf.strings.as_string(tf.range(x)),)))
    _, pieces = run(stream)
    assert [list(part) for (part,) in elements(pieces)] == [
        [str(i).encode() for i in range(n)] for n in range(6)
    ]


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.bool, tf.complex64, tf.uint8, tf.float16])
def test_dtypes_survive(dtype: Any) -> None:
    stream = flat(tf.data.Dataset.range(3).map(lambda x: (tf.cast([x, x], dtype),)))
    _, pieces = run(stream)
    want = np.asarray(tf.cast([[0, 0], [1, 1], [2, 2]], dtype))
    for (found,), expected in zip(elements(pieces), want, strict=True):
        assert found.tobytes() == expected.tobytes()


def test_an_empty_split_makes_no_piece() -> None:
    for trial in (1, 2):
        digest, pieces = run(flat(numbers(0)), trial=trial)
        assert (digest.count, pieces) == (0, [])


def test_elements_without_bytes_are_counted() -> None:
    stream = flat(tf.data.Dataset.range(10).map(lambda x: (tf.zeros([0, 3]),)))
    digest, _ = run(stream)
    assert digest.count == 10


@pytest.mark.parametrize(
    "dataset",
    [
        numbers(100),
        tf.data.Dataset.range(20).map(lambda x: (tf.fill([x % 3], x),)),
        tf.data.Dataset.range(20).map(lambda x: (tf.strings.as_string(x),)),
    ],
    ids=["fixed", "varying", "strings"],
)
def test_later_trials_make_the_same_elements_one_by_one(dataset: Any) -> None:
    first, _ = run(flat(dataset))
    second, pieces = run(flat(dataset), trial=2)
    assert first == second
    assert all(piece.stop - piece.start == 1 for piece in pieces)


def failing_at(index: int) -> OneSplit:
    def check_one(x: Any) -> tuple[Any, ...]:
        value = tf.where(x == index, float("nan"), 1.0)
        return (tf.debugging.check_numerics(value, "record is damaged"),)

    return flat(tf.data.Dataset.range(100).map(check_one))


def test_a_later_trial_names_element_file_message_and_op() -> None:
    with pytest.raises(AttemptError) as caught:
        run(failing_at(37), split=3, trial=2)
    text = str(caught.value)
    assert caught.value.code == "PIPELINE"
    assert text.startswith("split 3 (file-3), element 37: InvalidArgumentError: ")
    assert "record is damaged" in text
    assert "CheckNumerics" in text
    assert "\n" not in text


def test_a_first_trial_names_how_far_it_came() -> None:
    with pytest.raises(AttemptError, match=r"split 0 \(file-0\), after \d+ elements: "):
        run(failing_at(37))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"x")
    stream = loaded(tf.data.TFRecordDataset([str(path)]))
    path.unlink()
    with pytest.raises(AttemptError) as caught:
        run(stream, trial=2)
    assert str(caught.value).startswith(f"split 0 ({path}), element 0: NotFoundError: ")


def test_details_are_bounded() -> None:
    class Wordy(OneSplit):
        def describe_split(self, split: int) -> str:
            return "ü" * 10_000

    with pytest.raises(AttemptError) as caught:
        run(Wordy(failing_at(0)._dataset), trial=2)
    assert len(str(caught.value).encode()) <= DETAIL_BYTES_MAX
    assert "record is damaged" in str(caught.value)


def test_an_element_that_no_frame_can_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "DEFAULT_LIMITS", FrameLimits(payload_bytes_max=1000))
    stream = flat(tf.data.Dataset.range(5).map(lambda x: (tf.fill([500 * x], x),)))
    with pytest.raises(AttemptError, match=r"element 1: .*1\.\.2 have 4000 bytes"):
        run(stream, trial=2)


def loaded(dataset: Any) -> LoadedStream:
    return load_stream(analyse(dataset).streams[0].blob)


def test_a_real_stream_is_the_same_in_every_run() -> None:
    dataset = tf.data.Dataset.range(1000).shuffle(100, seed=1).map(lambda x: x * 2)
    stream = loaded(dataset)
    digests = [run(stream, split=2)[0] for _ in range(2)]
    assert digests[0] == digests[1]
    assert run(stream, split=2, trial=2)[0] == digests[0]
    assert run(stream, split=3)[0] != digests[0]


def stop_after(pieces: int) -> tuple[Callable[[Piece], bool], list[Piece]]:
    taken: list[Piece] = []

    def put(piece: Piece) -> bool:
        taken.append(piece)
        return len(taken) < pieces

    return put, taken


def test_a_run_stops_when_its_pieces_are_refused() -> None:
    put, taken = stop_after(3)
    stream = flat(tf.data.Dataset.range(1 << 40).map(lambda x: (x,)))
    assert run_attempt(stream, assignment(1), put, Rate(), threading.Event()) is None
    assert len(taken) == 3


def test_a_run_stops_when_told_so() -> None:
    stopped = threading.Event()
    stopped.set()
    stream = flat(tf.data.Dataset.range(1 << 40).map(lambda x: (x,)))
    assert run_attempt(stream, assignment(1), lambda piece: True, Rate(), stopped) is None


def test_a_piece_can_be_cut() -> None:
    _, pieces = run(flat(numbers(8)), rate=Rate(element_s=1e-9))
    cut = pieces[0].slice(3, 8)
    assert (cut.start, cut.stop, cut.header["attempt"]) == (3, 8, 1)
    decode(cut.header, memoryview(b"".join(cut.buffers))).verify()


def test_of_runs_that_begin_together_one_measures_for_all() -> None:
    rate = Rate()
    assert rate.batch_size(4) == rate.batch_size(4) == 8  # whoever measures does not wait
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(rate.batch_size, 4) for _ in range(3)]
        rate.learn(8, 32, 8, 8 * 1e-6)
        assert [other.result() for other in others] == [ELEMENTS_MAX] * 3


def test_a_run_does_not_wait_long_for_one_that_is_slow() -> None:
    rate = Rate()
    assert rate.batch_size(4) == 8
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(rate.batch_size, 4).result(timeout=30) == 8


def test_the_first_measurement_is_told_as_soon_as_it_is_there() -> None:
    rate = Rate()
    meter = Meter(rate)
    meter.add(8, 32)
    assert not meter.full  # the first batch says nothing of those that follow
    meter.add(8, 32)
    assert meter.full
    meter.flush()
    meter.restart()
    meter.add(8, 32)
    meter.add(8, 32)
    assert not meter.full


def test_the_rate_forgets_slowly_and_stays_within_bounds() -> None:
    rate = Rate()
    assert rate.batch_size(None) == rate.batch_size(4) == 8
    rate.learn(100, 100 * 4000, 0, 0.0)
    assert rate.batch_size(None) == 8  # nothing was timed yet
    rate.learn(100, 100 * 4000, 100, 100 * 1e-6)
    assert rate.batch_size(None) == 1024  # of 4 MiB, the power of two below
    assert rate.batch_size(1) == ELEMENTS_MAX
    assert rate.batch_size(0) == ELEMENTS_MAX
    assert rate.batch_size(64 << 20) == 1
    rate.learn(1, 1000, 1, 1000.0)
    assert rate.batch_size(1) == 1


@pytest.mark.parametrize(
    ("element_bytes", "element_s", "size"),
    [(8, 1e-3, 16), (1 << 20, 1e-6, 4), (8, 1e-9, 4096), (8, 10.0, 1)],
)
def test_a_batch_is_a_piece_by_its_bytes_and_an_eighth_of_one_by_its_time(
    element_bytes: int, element_s: float, size: int
) -> None:
    rate = Rate()
    rate.learn(100, 100 * element_bytes, 100, 100 * element_s)
    assert rate.batch_size(None) == size
