"""G2: a trainer goes on at every element of an epoch, for every kind of pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster, Position, Reader
from penstock.errors import PositionError, UsageError
from penstock.proto.position import TEXT_CHARS_MAX

from .pipelines import fingerprint_of, numbers, write_lines

Build = Callable[[Path], tf.data.Dataset]


def _records(directory: Path) -> tf.data.Dataset:
    paths = []
    for number in range(3):
        path = str(directory / f"{number}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for i in range(3 + 2 * number):
                writer.write(f"{number}:{i}".encode() * (i + 1))
        paths.append(path)
    return tf.data.TFRecordDataset(paths)


def _interleaved(directory: Path) -> tf.data.Dataset:
    paths = tf.data.Dataset.from_tensor_slices(write_lines(directory, files=4, lines=3))
    return paths.interleave(tf.data.TextLineDataset, cycle_length=2)


def _ragged(i: tf.Tensor) -> tf.RaggedTensor:
    length = tf.cast(i % 4, tf.int32)
    return tf.RaggedTensor.from_row_lengths(tf.range(length), [length, 0])


def _augmented(i: tf.Tensor) -> tf.Tensor:
    image = tf.reshape(tf.cast(tf.range(48) + tf.cast(i, tf.int32), tf.float32), [4, 4, 3])
    return tf.image.random_flip_left_right(tf.image.random_brightness(image, 0.5))


def _zipped(directory: Path) -> tf.data.Dataset:
    lines = tf.data.TextLineDataset(write_lines(directory, files=2, lines=6))
    return tf.data.Dataset.zip((lines, tf.data.Dataset.range(10).map(lambda x: x * 3)))


PIPELINES: dict[str, Build] = {
    "range and map": lambda _: numbers(13),
    "shuffled": lambda _: numbers(13).shuffle(8),
    "records": _records,
    "interleave": _interleaved,
    "batch": lambda _: numbers(22).shuffle(5).batch(4),
    "batch and map": lambda _: numbers(22).batch(3).map(lambda i, s: (i, tf.reduce_sum(s))),
    "drop_remainder": lambda _: tf.data.Dataset.range(23).batch(4, drop_remainder=True),
    "ragged": lambda _: tf.data.Dataset.range(13).map(_ragged),
    "strings": lambda _: tf.data.Dataset.range(13).map(tf.strings.as_string),
    "dict": lambda _: tf.data.Dataset.range(13).map(lambda i: {"a": i, "b": (i * i, [i])}),
    "augmented": lambda _: tf.data.Dataset.range(13).map(_augmented),
    "cached": lambda _: numbers(13).cache().map(lambda i, s: i + s),
    "zip": _zipped,
    "filter": lambda _: tf.data.Dataset.range(22).filter(lambda i: i % 3 == 0),
    "flat_map": lambda _: tf.data.Dataset.range(7).flat_map(tf.data.Dataset.range),
    "replayed at the client": lambda _: numbers(30).batch(4).shuffle(4, seed=3).take(6),
}
#: What these give depends on what is drawn, or on which elements come together: a plain run of them
#: has as many elements.
DRAWN = ("augmented", "batch", "batch and map", "drop_remainder", "replayed at the client")


def sequence(reader: Reader) -> list[str]:
    """The elements of an iteration of a reader, as fingerprints."""
    return [fingerprint_of(element) for element in reader]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_pipeline_goes_on_at_every_element(
    shared_cluster: LocalCluster, tmp_path: Path, name: str
) -> None:
    local = PIPELINES[name](tmp_path)
    plain = Counter(map(fingerprint_of, local.as_numpy_iterator()))
    with Reader(local, shared_cluster, seed=7, lanes=3, block=2) as reader:
        first, second = sequence(reader), sequence(reader)
    assert len(first) == len(second) == plain.total()
    if name not in DRAWN:
        assert Counter(first) == Counter(second) == plain
    with (
        Reader(local, shared_cluster, seed=7, lanes=3, block=2) as former,
        Reader(local, shared_cluster, seed=7, lanes=3, block=2) as later,
    ):
        elements = iter(former)
        for consumed in range(len(first) + 1):
            position = former.position(consumed)
            text = str(position)
            assert len(text) <= TEXT_CHARS_MAX
            later.restore(text)
            rest = sequence(later)
            if consumed < len(first):
                assert rest == first[consumed:], consumed
                assert fingerprint_of(next(elements)) == first[consumed]
            else:
                assert rest == second, "the end of an epoch is the beginning of the next"
        assert (later.error, former.error) == (None, None)


def test_resumes_in_a_row_over_the_edges_of_epochs(shared_cluster: LocalCluster) -> None:
    local = tf.data.Dataset.range(60).shuffle(9).batch(4)  # 15 batches
    with Reader(local, shared_cluster, seed=11) as reader:
        expected = [sequence(reader) for _ in range(4)]
    text: str | None = None
    seen: list[list[str]] = [[]]
    for life, steps in enumerate([0, 4, 1, 7, 9, 15, 3, 11, 10]):
        with Reader(local, shared_cluster, seed=11, restore=text) as reader:
            taken = 0
            while taken < steps:
                for element in reader:
                    if len(seen[-1]) == 15:
                        seen.append([])
                    seen[-1].append(fingerprint_of(element))
                    taken += 1
                    if taken == steps:
                        break
            position = reader.position(steps)
            text = str(position)
            done = sum(map(len, seen))
            assert (position.epoch, position.consumed) == divmod(done, 15), life
    assert seen == expected


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_is_read_ahead_does_not_count(
    shared_cluster: LocalCluster, deterministic: bool
) -> None:
    more: dict[str, Any] = {"seed": 3, "deterministic": deterministic}
    served = tf.data.Dataset.range(3000).apply(penstock.distribute(shared_cluster, **more))
    seen: list[int] = []
    for step, batch in enumerate(served.batch(64).prefetch(8)):
        seen += batch.numpy().tolist()
        if step + 1 == 20:
            break
    position = served.penstock.position(20, batch=64)
    assert position.consumed == len(seen) == 1280
    assert position == served.penstock.position(1280)
    later = tf.data.Dataset.range(3000).apply(
        penstock.distribute(shared_cluster, restore=position, deterministic=deterministic)
    )
    rest = [int(x) for x in later]
    assert sorted(seen + rest) == list(range(3000))
    served.penstock.close()
    later.penstock.close()


def test_any_number_of_workers_goes_on(make_cluster: Callable[..., LocalCluster]) -> None:
    local = numbers(2000).shuffle(50)
    cluster = make_cluster(workers=1)
    with Reader(local, cluster, seed=2) as reader:
        expected = sequence(reader)
    with Reader(local, cluster, seed=2) as reader:
        elements = iter(reader)
        seen = [fingerprint_of(next(elements)) for _ in range(777)]
        position = reader.position(777)
    cluster.add_worker()
    cluster.add_worker()
    with Reader(local, cluster, restore=position) as reader:
        assert seen + sequence(reader) == expected
        assert reader.digests[0].count == 2000
        assert reader.digests[0].total == penstock.digest_of(local).total


def test_what_was_consumed_is_not_sent_and_whole_splits_are_not_made(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(workers=1)
    local = numbers(4000)
    with Reader(local, cluster, seed=2, lanes=4) as reader:
        elements = iter(reader)
        for _ in range(3000):
            next(elements)
        position = reader.position(3000)
    assert sum(cursor.splits for cursor in position.streams[0].cursors) > 0
    with Reader(local, cluster, restore=position) as reader:
        rest = sum(1 for _ in reader)
        (core,) = (visit for visit in reader._session.start().history.visits(0))
        assert (rest, core.base, core.total) == (1000, 3000, 4000)


def test_committed_is_durable_and_found_by_name(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(workers=2)
    local = numbers(500).shuffle(20)
    with Reader(local, cluster, seed=5) as reader:
        expected = [sequence(reader), sequence(reader)]
    named: dict[str, Any] = {"job_name": "train", "seed": 5}
    with Reader(local, cluster, **named, restore="committed") as reader:  # nothing is committed
        elements = iter(reader)
        for _ in range(123):
            next(elements)
        reader.commit(100)
        position = reader.commit(120)
        reader.commit(position)  # again
    cluster.dispatcher.kill()
    cluster.restart_dispatcher()
    with Reader(local, cluster, **named, restore="committed") as reader:
        assert sequence(reader) == expected[0][120:]
        elements = iter(reader)
        for _ in range(5):
            next(elements)
        assert repr(reader.commit(380 + 5)).startswith("<Position epoch 1, 5 elements")
    with Reader(local, cluster, **named, restore=position) as reader:  # back over an epoch's edge
        assert sequence(reader) == expected[0][120:]
        assert sequence(reader) == expected[1]
    with Reader(local, cluster, **named, restore="committed") as reader:
        assert sequence(reader) == expected[1][5:]


def test_what_a_position_is_not_of_is_spelled_out(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    paths = write_lines(tmp_path, files=3, lines=20)
    local = tf.data.TextLineDataset(paths)
    with Reader(local, shared_cluster, seed=5) as reader:
        elements = iter(reader)
        for _ in range(10):
            next(elements)
        position = reader.position(10)
        with pytest.raises(UsageError, match=r"from element 10 .* to \d+ "):
            reader.position(9)
        with pytest.raises(UsageError, match="not 999"):
            reader.position(999)
    with pytest.raises(PositionError, match="seed is 6, it was 5; lanes is 2, it was 16"):
        Reader(local, shared_cluster, seed=6, lanes=2, restore=position)
    with pytest.raises(PositionError, match="deterministic is False, it was True"):
        Reader(local, shared_cluster, deterministic=False, restore=position)
    with pytest.raises(PositionError, match=r"the pipeline is [0-9a-f]{12}, the position is of"):
        Reader(local.map(tf.strings.length), shared_cluster, restore=position)
    with pytest.raises(PositionError, match="check does not fit"):
        Reader(local, shared_cluster, restore=str(position)[:-1] + "_")
    with pytest.raises(UsageError, match="needs the job_name"):
        Reader(local, shared_cluster, restore="committed")
    with pytest.raises(UsageError, match="consumed must be a whole number"):
        reader.position(-1)
    Path(paths[1]).write_text("another\n" * 7)
    with (
        Reader(local, shared_cluster, restore=position) as reader,
        pytest.raises(PositionError, match="files have changed"),
    ):
        reader._session.start()


def test_a_file_that_changed_but_kept_its_size_is_found_by_its_digest(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    paths = write_lines(tmp_path, files=1, lines=200)
    local = tf.data.TextLineDataset(paths)
    with Reader(local, shared_cluster, seed=5, lanes=1) as reader:
        elements = iter(reader)
        for _ in range(50):
            next(elements)
        position = reader.position(50)
    content = Path(paths[0]).read_text()
    Path(paths[0]).write_text(content.replace("0:7:", "0:X:"))
    with Reader(local, shared_cluster, restore=position) as reader:
        with pytest.raises(Exception, match="begins with other elements"):
            sequence(reader)
        assert "files changed" in str(reader.error)


def test_a_dataset_without_tensorflow_objects_is_read_by_fingerprint(
    shared_cluster: LocalCluster,
) -> None:
    with Reader(numbers(100), shared_cluster, seed=5) as reader:
        fingerprint = reader.plan.streams[0].fingerprint
        sum(1 for _ in reader)
    with Reader(fingerprint, shared_cluster, seed=5, block=8) as reader:
        expected = [int(first) for first, _ in reader]
    with Reader(fingerprint, shared_cluster, seed=5, block=8) as reader:
        elements = iter(reader)
        for _ in range(33):
            next(elements)
        position: Position = reader.position(30)
    with Reader(fingerprint, shared_cluster, restore=position) as reader:
        assert [int(first) for first, _ in reader] == expected[30:]
