"""One element that ends every process that makes it, on a real cluster with a supervisor."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tensorflow as tf

import penstock
from penstock import errors
from penstock.client.status import fetch_status

from .conftest import ClusterMaker

COUNT, KILLER = 60, 37


def deadly(directory: Path) -> tf.data.Dataset:
    """Numbers. Whoever makes one of them says which process it is, and then never ends."""
    told, never = str(directory / "told"), directory / "never"
    os.mkfifo(never)  # nobody ever writes to it, so opening it takes for ever

    def make(number: tf.Tensor) -> tf.Tensor:
        def die() -> tf.Tensor:
            nothing = tf.strings.substr(tf.strings.as_string(number), 0, 0)
            path = tf.strings.join([str(never), nothing])  # a constant one would be read beforehand
            stat = tf.data.TextLineDataset("/proc/self/stat").reduce("", lambda _, line: line)
            with tf.control_dependencies([tf.io.write_file(told, stat)]):
                return tf.io.read_file(path)

        text = tf.cond(tf.equal(number, KILLER), die, lambda: "")
        return number + tf.cast(tf.strings.length(text), tf.int64)

    return tf.data.Dataset.range(COUNT).map(make)


@contextmanager
def supervised(cluster: penstock.LocalCluster, directory: Path) -> Iterator[list[int]]:
    """Does what the kernel and a supervisor do: kills who makes the element, and starts another
    process in its place. Gives the pids of those who were killed."""
    killed: list[int] = []
    ended = threading.Event()
    told = directory / "told"

    def supervise() -> None:
        while not ended.wait(0.02):  # the kernel tells nobody either
            if not told.exists() or not told.read_text():
                continue
            pid = int(told.read_text().split()[0])
            told.unlink()
            (worker,) = (one for one in cluster.workers if one.pid == pid)
            os.kill(pid, signal.SIGKILL)
            worker.wait_ended(30)
            killed.append(pid)
            cluster.restart_worker(worker)

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def test_an_element_that_kills_four_workers_fails_the_job_by_name(
    make_cluster: ClusterMaker, tmp_path: Path
) -> None:
    cluster = make_cluster(workers=0)
    for number in range(2):
        words = f"--last-words={tmp_path / f'words-{number}'}"
        cluster.add_worker(arguments=[words])
    # Leaving elements out is for those that raise: what kills processes is nothing to go on with.
    distributed = penstock.distribute(
        cluster.address, job_name="deadly", seed=1, lanes=2, on_bad_element="quarantine"
    )
    with supervised(cluster, tmp_path) as killed, pytest.raises(errors.JobFailedError) as failed:
        list(deadly(tmp_path).apply(distributed))
    # The last one may be taken by somebody else before its successor tells of it.
    assert 4 <= len(set(killed)) <= 5
    said = r"element 0 of split 37 of epoch 0.* when each of 4 workers died of memory"
    assert re.search(said, str(failed.value))
    picture = fetch_status(cluster.address)
    decisions = picture["failover"]["decisions"]
    assert sum("(SIGKILL)" in made["text"] for made in decisions) >= 3, decisions
    assert any(worker["limited"] for worker in picture["workers"])
