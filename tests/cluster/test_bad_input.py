"""What users get wrong: a clear error that names the thing, the right class, and nothing lost."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster, Timing, errors

from .conftest import ClusterMaker
from .pipelines import numbers, write_lines


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def failure_of(dataset: tf.data.Dataset) -> Exception:
    """The error that ends one iteration."""
    with pytest.raises(errors.JobFailedError) as caught:
        for _ in dataset:
            pass
    return caught.value


def test_nobody_at_the_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    impatient = Timing(connect_deadline_s=1.0)
    with pytest.raises(errors.UnavailableError, match=address):
        list(numbers(10).apply(penstock.distribute(address, timing=impatient)))


@pytest.mark.parametrize("address", ["nowhere", "host:", ":5050", "host:port", ""])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(errors.UsageError, match="service"):
        numbers(10).apply(penstock.distribute(address))


def test_something_that_is_no_dataset(shared_cluster: LocalCluster) -> None:
    with pytest.raises(errors.UsageError, match=r"tf\.data\.Dataset"):
        penstock.distribute(shared_cluster.address)([1, 2, 3])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lanes", 0),
        ("lanes", "many"),
        ("block", -1),
        ("seed", -1),
        ("seed", 2**64),
        ("attempts_max", 0),
        ("job_name", 7),
    ],
)
def test_an_option_of_a_wrong_value_is_named(
    shared_cluster: LocalCluster, name: str, value: object
) -> None:
    with pytest.raises(errors.UsageError, match=name):
        numbers(10).apply(penstock.distribute(shared_cluster.address, **{name: value}))


def test_a_python_function_cannot_be_shipped_and_the_error_says_what_to_do(
    shared_cluster: LocalCluster,
) -> None:
    local = tf.data.Dataset.range(3).map(lambda i: tf.py_function(lambda x: x, [i], tf.int64))
    with pytest.raises(errors.NotShippableError, match="after"):
        local.apply(penstock.distribute(shared_cluster.address))


def test_a_generator_cannot_be_shipped(shared_cluster: LocalCluster) -> None:
    local = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec([]))
    with pytest.raises(errors.NotShippableError, match="from_generator"):
        local.apply(penstock.distribute(shared_cluster.address))


def test_a_missing_file_is_named_with_split_and_worker(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    paths = write_lines(tmp_path, files=3, lines=10)
    missing = str(tmp_path / "not-there.txt")
    served = tf.data.TextLineDataset([*paths, missing]).apply(
        penstock.distribute(shared_cluster.address)
    )
    text = str(failure_of(served))
    assert "not-there.txt" in text
    assert "split 3" in text
    assert "worker w" in text


def test_a_corrupt_record_is_named_after_bounded_attempts(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    path = tmp_path / "records.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(20):
            writer.write(b"%06d" % number * 10)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    served = tf.data.TFRecordDataset([str(path)]).apply(
        penstock.distribute(shared_cluster.address, attempts_max=2)
    )
    text = str(failure_of(served))
    assert "records.tfrecord" in text
    assert "2 attempts" in text


def test_a_failed_job_leaves_the_cluster_to_others(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    broken = tf.data.TextLineDataset([str(tmp_path / "none")])
    failure_of(broken.apply(penstock.distribute(shared_cluster.address)))
    served = numbers(500).apply(penstock.distribute(shared_cluster.address))
    assert sum(1 for _ in served) == 500


def test_the_same_job_name_with_another_dataset_is_refused(shared_cluster: LocalCluster) -> None:
    name = "taken-with-another-dataset"
    first = numbers(10).apply(penstock.distribute(shared_cluster.address, job_name=name))
    assert sum(1 for _ in first) == 10
    second = tf.data.Dataset.range(77).apply(
        penstock.distribute(shared_cluster.address, job_name=name)
    )
    with pytest.raises(errors.RefusedError, match=name):
        list(second)


def test_a_client_with_another_element_spec_is_refused(shared_cluster: LocalCluster) -> None:
    expected = tf.TensorSpec([3], tf.float32)
    with pytest.raises(errors.SpecMismatchError, match="float32"):
        numbers(10).apply(penstock.distribute(shared_cluster.address, element_spec=expected))


def test_an_unknown_dataset_id_is_refused(shared_cluster: LocalCluster) -> None:
    with pytest.raises(errors.NotFoundError, match="feedbeef"):
        list(penstock.Reader("feedbeef" * 8, shared_cluster.address))


def test_a_client_may_start_before_the_dispatcher_and_the_workers(
    make_cluster: ClusterMaker,
) -> None:
    port = free_port()
    seen: list[int] = []

    def consume() -> None:
        late = numbers(200).apply(penstock.distribute(f"127.0.0.1:{port}"))
        seen.extend(int(element[0]) for element in late)

    trainer = threading.Thread(target=consume, name="trainer")
    trainer.start()
    cluster = make_cluster(workers=0, dispatcher_arguments=[f"--port={port}"])
    cluster.add_worker()
    trainer.join(60.0)
    assert not trainer.is_alive()
    assert sorted(seen) == list(range(200))


def test_a_mismatched_protocol_version_is_refused_with_both_versions(
    shared_cluster: LocalCluster,
) -> None:
    import grpc

    from penstock.proto import control_pb2, control_pb2_grpc

    with grpc.insecure_channel(shared_cluster.address) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        request = control_pb2.OpenJobRequest(protocol_version=99, client="c", lanes=1, block=1)
        with pytest.raises(grpc.RpcError) as caught:
            stub.OpenJob(request, timeout=5.0)
    assert "99" in caught.value.details()
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
