"""`distribute` and `Reader` with TensorFlow, against fakes: a normal tf.data.Dataset comes out."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from penstock.client.dataset import distribute
from penstock.client.direct import DistributedDataset
from penstock.client.groundtruth import digest_of
from penstock.client.reader import Reader
from penstock.errors import JobFailedError, SpecMismatchError, UsageError
from penstock.graph import analyse
from penstock.proto.chunk import Chunk

from .conftest import client_threads, eventually
from .fakes import FakeDispatcher, FakeWorker


def serve(make_dispatcher, dataset: tf.data.Dataset, workers: int = 2, **plan) -> FakeDispatcher:
    """A fake service that can produce the splits of this one-stream dataset."""
    from penstock.graph import load_stream

    (stream,) = analyse(dataset, **plan).streams
    loaded = load_stream(stream.blob)

    def data(split: int, epoch: int) -> list[np.ndarray]:
        elements = list(loaded.split_dataset(split, seed=1, epoch=epoch))
        columns = list(zip(*elements, strict=True))
        return [
            np.array([part.numpy() for part in column], part_dtype(spec.dtype))
            for column, spec in zip(columns, stream.components, strict=True)
        ]

    return make_dispatcher([FakeWorker(f"w{number}", data) for number in range(workers)])


def part_dtype(name: str) -> object:
    return object if name == "string" else name


@pytest.fixture
def pairs() -> tf.data.Dataset:
    return tf.data.Dataset.range(500).map(lambda i: {"a": i, "b": (i * 2, tf.as_string(i))})


def close(dispatcher: FakeDispatcher) -> None:
    for worker in dispatcher.workers:
        worker.close()


def test_elements_are_nested_as_in_the_original(make_dispatcher, pairs, timing) -> None:
    dispatcher = serve(make_dispatcher, pairs)
    served = pairs.apply(distribute(dispatcher.address, timing=timing))
    assert served.element_spec == pairs.element_spec
    assert served.cardinality() == pairs.cardinality()
    for epoch in range(2):
        seen = sorted(served.as_numpy_iterator(), key=lambda element: element["a"])
        assert [element["a"] for element in seen] == list(range(500))
        assert all(element["b"] == (2 * i, b"%d" % i) for i, element in enumerate(seen))
        assert served.penstock.digests[epoch].total == digest_of(pairs).total
    assert served.penstock.epochs == 2
    served.penstock.close()
    close(dispatcher)


def test_large_elements_go_into_a_graph_one_by_one(make_dispatcher, timing) -> None:
    local = tf.data.Dataset.range(10).map(lambda i: (tf.fill([512, 513], i), i))
    dispatcher = serve(make_dispatcher, local)
    served = local.apply(distribute(dispatcher.address, timing=timing))
    seen = list(served.map(lambda image, i: (tf.shape(image), image[7, 9], i)).as_numpy_iterator())
    assert sorted((value, i) for _, value, i in seen) == [(i, i) for i in range(10)]
    assert all(shape.tolist() == [512, 513] for shape, _, _ in seen)
    assert served.penstock.digests[0].total == digest_of(local).total
    served.penstock.close()
    close(dispatcher)


def test_the_rest_of_the_pipeline_runs_here_on_whole_chunks(make_dispatcher, timing) -> None:
    local = tf.data.Dataset.range(1000).filter(lambda i: i % 7 > 0).batch(64)
    dispatcher = serve(make_dispatcher, local)
    served = local.apply(distribute(dispatcher.address, timing=timing))
    assert served.element_spec == local.element_spec
    batches = list(served.as_numpy_iterator())
    assert [len(batch) for batch in batches] == [len(batch) for batch in local]
    assert sorted(np.concatenate(batches)) == [i for i in range(1000) if i % 7]
    served.penstock.close()
    close(dispatcher)


def test_elements_without_bytes_and_of_varying_rank_arrive(make_dispatcher, timing) -> None:
    local = tf.data.Dataset.range(60).map(lambda i: (tf.zeros([3, 0]), i)).repeat(1)
    dispatcher = serve(make_dispatcher, local)
    served = local.apply(distribute(dispatcher.address, timing=timing))
    assert sorted(int(i) for empty, i in served if empty.shape == (3, 0)) == list(range(60))
    served.penstock.close()
    close(dispatcher)


def test_a_reader_of_a_dataset_gives_numpy_in_the_same_nesting(
    make_dispatcher, pairs, timing
) -> None:
    dispatcher = serve(make_dispatcher, pairs)
    with Reader(pairs, dispatcher.address, timing=timing) as reader:
        first = next(iter(reader))
        assert set(first) == {"a", "b"}
        assert sum(1 for _ in reader) == 500
    close(dispatcher)


def test_a_loop_is_direct_where_nothing_is_left_for_the_client(make_dispatcher, pairs) -> None:
    address = make_dispatcher([]).address
    assert isinstance(pairs.apply(distribute(address)), DistributedDataset)
    some = pairs.filter(lambda pair: pair["a"] > 1).take(5)
    for other in (pairs.batch(3), some, pairs.map(lambda pair: tf.range(pair["a"]))):
        assert not isinstance(other.apply(distribute(address)), DistributedDataset)


def test_errors_reach_the_trainer_with_class_and_text(make_dispatcher, pairs, timing) -> None:
    dispatcher = make_dispatcher([])
    served = pairs.apply(distribute(dispatcher.address, timing=timing))

    def fail() -> None:
        dispatcher.failure = "split 3 failed: no such file"
        dispatcher.news()

    threading.Timer(0.2, fail).start()
    with pytest.raises(JobFailedError, match="split 3 failed: no such file"):
        list(served)
    assert isinstance(served.penstock.error, JobFailedError)
    # What is read by a graph fails with an error of TensorFlow's.
    with pytest.raises(tf.errors.OpError, match="JobFailedError: split 3 failed: no such file"):
        list(served.prefetch(1))
    served.penstock.close()


def test_dropping_an_iterator_that_waits_gives_the_epoch_up(make_dispatcher, pairs, timing) -> None:
    dispatcher = make_dispatcher([])
    served = pairs.apply(distribute(dispatcher.address, timing=timing)).prefetch(1)
    iterator = iter(served)
    thread = threading.Thread(target=_next, args=(iterator,), daemon=True, name="trainer")
    thread.start()
    assert eventually(lambda: bool(dispatcher.open))
    dispatcher.failure = "enough"
    dispatcher.news()
    thread.join(10.0)
    del iterator
    gc.collect()
    assert eventually(lambda: not dispatcher.open)
    del served
    gc.collect()
    assert eventually(lambda: not client_threads())


def _next(iterator: object) -> None:
    with pytest.raises(tf.errors.OpError):
        next(iterator)  # type: ignore[call-overload]


def test_a_dropped_dataset_closes_its_client(make_dispatcher, pairs, timing) -> None:
    dispatcher = serve(make_dispatcher, pairs)
    served = pairs.apply(distribute(dispatcher.address, timing=timing)).batch(10)
    iterator = iter(served)
    next(iterator)
    assert client_threads()
    del served
    assert sum(1 for _ in iterator) == 49
    del iterator
    gc.collect()
    assert eventually(lambda: not client_threads())
    close(dispatcher)


def test_a_waiting_iterator_can_be_dropped_at_once(make_dispatcher, pairs, timing) -> None:
    dispatcher = serve(make_dispatcher, pairs)
    for worker in dispatcher.workers:
        worker.pause_after = 3
    served = pairs.apply(distribute(dispatcher.address, lanes=1, timing=timing))
    iterator = iter(served)
    next(iterator)
    started = time.monotonic()
    del iterator
    gc.collect()
    assert eventually(lambda: not dispatcher.open)
    assert time.monotonic() - started < 5.0
    served.penstock.close()
    close(dispatcher)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lanes", 0),
        ("lanes", "many"),
        ("lanes", 2.0),
        ("lanes", True),
        ("block", -1),
        ("seed", -1),
        ("seed", 2**64),
        ("attempts_max", 0),
        ("on_bad_element", "drop"),
        ("on_bad_element", None),
        ("max_bad", -1),
        ("max_bad", 1 << 20),
        ("failover_extension", 3),
        ("failover_extension", "module.Class"),
        ("failover_extension", "no_such_module::Class"),
        ("attempts_max", None),
        ("job_name", 7),
        ("job_name", ""),
        ("deterministic", 1),
        ("exact", None),
        ("strict", "yes"),
        ("ledger", 3),
        ("memory_limit", 0),
        ("timing", 1.0),
        ("service", "nowhere"),
        ("service", "host:0x1"),
        ("service", ":5050"),
        ("service", "a:1,,b:2"),
        ("service", 5050),
    ],
)
def test_an_argument_that_is_not_accepted_is_named(name: str, value: object) -> None:
    arguments = {"service": "127.0.0.1:5050", name: value}
    with pytest.raises(UsageError, match=name):
        tf.data.Dataset.range(3).apply(distribute(**arguments))  # type: ignore[arg-type]


def test_something_that_is_no_dataset_is_both_a_usage_and_a_type_error() -> None:
    with pytest.raises(UsageError, match=r"tf\.data\.Dataset.*list") as caught:
        distribute("127.0.0.1:5050")([1, 2, 3])  # type: ignore[arg-type]
    assert isinstance(caught.value, TypeError)


def test_another_element_spec_than_expected_is_named() -> None:
    expected = tf.TensorSpec([3], tf.float32)
    with pytest.raises(SpecMismatchError, match="float32"):
        tf.data.Dataset.range(3).apply(distribute("127.0.0.1:1", element_spec=expected))


def test_the_digest_of_a_local_dataset_is_the_chunks_own() -> None:
    local = tf.data.Dataset.range(600)
    chunk = Chunk.from_stacked(0, [np.arange(600)])
    assert digest_of(local).total == int(chunk.hashes.sum(dtype=np.uint64))
    ragged = local.map(lambda i: (tf.fill([i % 3], tf.as_string(i)), tf.as_string(i)))
    assert digest_of(ragged).count == 600
    assert digest_of(ragged) == digest_of(ragged.map(lambda a, b: (a, b)))
    assert digest_of(local.map(lambda i: {"x": i})) == digest_of(local)


def test_reading_by_fingerprint_needs_no_tensorflow() -> None:
    script = (
        "import sys, penstock.client.reader as r; r.Reader('ab', '127.0.0.1:1').close();"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
