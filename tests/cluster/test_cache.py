"""The cache on real clusters: every epoch is a local run's, whatever becomes of worker or file."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster
from penstock.client.status import fetch_status
from penstock.errors import UsageError

from .conftest import ClusterMaker
from .pipelines import fingerprint_of, multiset_of, numbers, sequence_of, write_lines
from .waiting import wait_until

FILES, LINES = 8, 150
COUNT = FILES * LINES


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Text files: one split each."""
    return write_lines(tmp_path, FILES, LINES)


@pytest.fixture
def make_patient_cluster(make_cluster: ClusterMaker) -> ClusterMaker:
    """Makes clusters in which no worker that is only late is taken for dead.

    What such a one has made is delivered, and what it has not written yet is not written.
    """
    return functools.partial(make_cluster, worker_timeout_s=60.0)


def lengths(paths: list[str], work: int = 0) -> Any:
    """Each line and its length, which takes `work` rounds of a loop to find out."""

    def of(line: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = (tf.constant(0), tf.strings.length(line))
        return line, tf.while_loop(lambda i, _: i < work, lambda i, n: (i + 1, n), start)[1]

    return tf.data.TextLineDataset(paths).map(of)


def augmented(paths: list[str], work: int = 0) -> Any:
    """Lines that are cached, then shuffled and changed."""
    return lengths(paths, work).cache().shuffle(64).map(lambda line, n: (line + "!", n + 1))


def cached_jobs(cluster: LocalCluster) -> int:
    """How many attempts have read a segment."""
    return int(fetch_status(cluster.address, 30)["cached_attempts"])


def segments(cluster: LocalCluster) -> list[Path]:
    return sorted(cluster.directory.glob("**/*.seg"))


def epochs(served: Any, count: int) -> list[Counter[str]]:
    return [multiset_of(served) for _ in range(count)]


def test_later_epochs_come_from_the_cache(
    make_patient_cluster: ClusterMaker, paths: list[str]
) -> None:
    cluster = make_patient_cluster()
    truth = multiset_of(lengths(paths))
    served = lengths(paths).cache().apply(penstock.distribute(cluster.address, seed=3))
    assert epochs(served, 1) == [truth]
    wait_until(cluster.address, lambda now: segments_told(now) == FILES, "all written")
    assert epochs(served, 2) == [truth] * 2
    assert len(segments(cluster)) == FILES
    wait_until(cluster.address, lambda now: now["cached_attempts"] == 2 * FILES, "all cached")
    picture = fetch_status(cluster.address, 30)
    (store,) = picture["cache"]["stores"]
    assert len(store["workers"]) == 2
    assert list(store["segments"].values()) == [FILES]


def test_what_follows_the_cache_point_is_done_in_every_epoch(
    make_patient_cluster: ClusterMaker, paths: list[str]
) -> None:
    cluster = make_patient_cluster()
    truth = multiset_of(augmented(paths))
    served = augmented(paths).apply(penstock.distribute(cluster.address, seed=3))
    orders = [sequence_of(served)]
    wait_until(cluster.address, lambda now: segments_told(now) == FILES, "all written")
    orders += [sequence_of(served) for _ in range(2)]
    assert [Counter(order) for order in orders] == [truth] * 3
    assert orders[0] != orders[1] != orders[2]
    wait_until(cluster.address, lambda now: now["cached_attempts"] == 2 * FILES, "all cached")
    again = augmented(paths).apply(penstock.distribute(cluster.address, seed=3, cache="off"))
    assert [sequence_of(again) for _ in range(3)] == orders  # the order knows nothing of caches


def test_jobs_share_segments_and_a_new_cluster_finds_them(
    make_patient_cluster: ClusterMaker, paths: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    truth = multiset_of(lengths(paths))
    first = make_patient_cluster(cache_dir=place)
    put = lengths(paths).cache().apply(penstock.distribute(first.address, seed=1, cache="put"))
    assert epochs(put, 1) == [truth]
    first.close()
    second = make_patient_cluster(cache_dir=place)
    got = lengths(paths).cache().apply(penstock.distribute(second.address, seed=2))
    assert epochs(got, 1) == [truth]
    other = augmented(paths).apply(penstock.distribute(second.address, seed=2))
    assert epochs(other, 1) == [multiset_of(augmented(paths))]
    wait_until(second.address, lambda now: now["cached_attempts"] == 2 * FILES, "all cached")


@pytest.mark.parametrize("kind", ["whole", "tail"])
def test_workers_with_a_disk_each_are_given_what_they_have(
    make_cluster: ClusterMaker, paths: list[str], tmp_path: Path, kind: str
) -> None:
    cluster = make_cluster(workers=0)
    for number in range(2):
        cluster.add_worker(arguments=[f"--cache-dir={tmp_path / str(number)}", "--no-unix"])
    pipeline = lengths(paths).cache() if kind == "whole" else augmented(paths)
    served = pipeline.apply(penstock.distribute(cluster.address, seed=3))
    truth = multiset_of(pipeline)
    assert epochs(served, 3) == [truth] * 3
    held = [len(list((tmp_path / str(number)).glob("**/*.seg"))) for number in range(2)]
    assert sum(held) >= FILES
    assert min(held) > 0
    assert cached_jobs(cluster) >= FILES
    # One loses its disk: what it had is made again, and cached again.
    victim = cluster.workers[0]
    victim.kill()
    for path in (tmp_path / "0").glob("**/*.seg"):
        path.unlink()
    cluster.restart_worker(victim)
    assert epochs(served, 2) == [truth] * 2


def kill_and_restart_all(cluster: LocalCluster) -> None:
    workers = list(cluster.workers)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    for worker in workers:
        worker.kill()
        cluster.restart_worker(worker, wait=False)


@pytest.mark.parametrize("kind", ["whole", "tail"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_killed_workers_lose_and_repeat_nothing(
    make_cluster: ClusterMaker, paths: list[str], kind: str, epoch: int
) -> None:
    cluster = make_cluster(worker_arguments=["--memory-limit=1MiB"])
    pipeline = lengths(paths, 100).cache() if kind == "whole" else augmented(paths, 100)
    calm = pipeline.apply(
        penstock.distribute(cluster.address, seed=9, cache="off", memory_limit=1 << 16)
    )
    orders = [sequence_of(calm) for _ in range(3)]
    served = pipeline.apply(penstock.distribute(cluster.address, seed=9, memory_limit=1 << 16))
    for number in range(3):
        seen = []
        for element in served:
            seen.append(fingerprint_of(element))
            if number == epoch and len(seen) in (COUNT // 4, COUNT // 2):
                kill_and_restart_all(cluster)
        assert seen == orders[number]
    assert cached_jobs(cluster) > 0


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed", "foreign"])
def test_damaged_segments_are_never_served(
    make_patient_cluster: ClusterMaker, paths: list[str], damage: str
) -> None:
    cluster = make_patient_cluster()
    truth = multiset_of(lengths(paths))
    served = lengths(paths).cache().apply(penstock.distribute(cluster.address, seed=3))
    assert epochs(served, 1) == [truth]
    wait_until(cluster.address, lambda now: segments_told(now) == FILES, "all written")
    victims = segments(cluster)[1:]
    content = [path.read_bytes() for path in segments(cluster)]
    for number, path in enumerate(victims, 1):
        if damage == "flipped":
            flipped = bytearray(content[number])
            flipped[len(flipped) * number // FILES] ^= 0x10
            path.write_bytes(flipped)
        elif damage == "truncated":
            os.truncate(path, len(content[number]) // 2)
        elif damage == "removed":
            path.unlink()
        else:
            path.write_bytes(content[0])
    assert epochs(served, 2) == [truth] * 2
    logs = "".join(p.read_text() for p in (cluster.directory / "logs").glob("worker-*.log"))
    named = [path for path in victims if f"segment {path} is set aside" in logs]
    assert named == ([] if damage == "removed" else victims)


def segments_told(picture: Any) -> int:
    """How many segments the dispatcher knows of."""
    stores = picture["cache"]["stores"]
    return sum(sum(store["segments"].values()) for store in stores)


def test_auto_caches_what_pays(make_patient_cluster: ClusterMaker, paths: list[str]) -> None:
    cluster = make_patient_cluster()
    served = (
        lengths(paths, 300)
        .cache()
        .apply(penstock.distribute(cluster.address, seed=3, cache="auto"))
    )
    assert epochs(served, 3) == [multiset_of(lengths(paths))] * 3
    (decision,) = fetch_status(cluster.address, 30)["cache"]["decisions"]
    assert decision["on"]
    assert decision["splits"] >= 3
    assert "s to make" in decision["reason"]
    assert cached_jobs(cluster) > 0


def test_auto_caches_nothing_that_does_not_fit(make_patient_cluster: ClusterMaker) -> None:
    cluster = make_patient_cluster(worker_arguments=["--cache-limit=4MiB"])
    large = tf.data.Dataset.range(320).map(lambda i: tf.fill([1 << 13], i))
    served = large.cache().apply(penstock.distribute(cluster.address, seed=3, cache="auto"))
    truth = multiset_of(large)
    assert epochs(served, 2) == [truth] * 2
    (decision,) = fetch_status(cluster.address, 30)["cache"]["decisions"]
    assert not decision["on"]
    assert "do not fit" in decision["reason"]


def test_the_dispatcher_keeps_in_mind_what_is_cached(
    make_patient_cluster: ClusterMaker, paths: list[str]
) -> None:
    cluster = make_patient_cluster()
    options = {"seed": 3, "job_name": "j"}
    served = lengths(paths).cache().apply(penstock.distribute(cluster.address, **options))
    truth = multiset_of(lengths(paths))
    assert epochs(served, 1) == [truth]
    wait_until(cluster.address, lambda now: segments_told(now) == FILES, "all written")
    before = fetch_status(cluster.address, 30)["cache"]
    cluster.dispatcher.kill()
    cluster.restart_dispatcher()
    assert fetch_status(cluster.address, 30)["cache"]["stores"] == before["stores"]
    assert epochs(served, 1) == [truth]
    wait_until(cluster.address, lambda now: now["cached_attempts"] == FILES, "all cached")


def test_wrong_arguments_are_named(shared_cluster: LocalCluster) -> None:
    with pytest.raises(UsageError, match="cache must be one of off, put, on, auto, or None"):
        numbers(10).apply(penstock.distribute(shared_cluster.address, cache="yes"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give the workers of a service --cache-dir"):
        numbers(10).apply(penstock.distribute(shared_cluster.address, cache_dir="/tmp/x"))
