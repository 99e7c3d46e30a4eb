"""A user's failover class on a real cluster: each strategy acts, and loses and repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import penstock
from penstock import errors
from penstock.client.status import fetch_status

from .conftest import ClusterMaker
from .waiting import wait_until, worker_of

ANSWERS = "penstock.tests.cluster.failover_answers::ByName"
TELLING = "penstock.tests.cluster.failover_answers::Telling"
COUNT = 400


def missing_a_file(path: Path) -> tf.data.Dataset:
    """Numbers; the one in the middle cannot be made as long as there is no file at `path`."""

    def element(number: tf.Tensor) -> tf.Tensor:
        needed = tf.equal(number, COUNT // 2)
        text = tf.cond(needed, lambda: tf.io.read_file(str(path)), lambda: "here")
        return number + tf.cast(tf.strings.length(text), tf.int64) - 4  # it has to be read

    return tf.data.Dataset.range(COUNT).map(element)


def read(cluster: penstock.LocalCluster, strategy: str, path: Path) -> list[int]:
    """One epoch of a job whose failures are answered with a strategy."""
    served = missing_a_file(path).apply(
        penstock.distribute(cluster.address, job_name=f"{strategy} {path}", seed=3, lanes=4)
    )
    return [int(element) for element in served]


def test_each_strategy_of_a_users_class_acts(make_cluster: ClusterMaker, tmp_path: Path) -> None:
    cluster = make_cluster(
        workers=2,
        standbys=1,
        worker_timeout_s=10.0,  # on a busy machine who is silent for a second would be retired, too
        dispatcher_arguments=(f"--failover-extension={ANSWERS}",),
    )
    orders = [
        read(cluster, strategy, tmp_path / strategy)
        for strategy in ("NORMAL_FAILOVER", "GLOBAL_FAILOVER", "NODE_FAILOVER")
    ]
    assert sorted(orders[0]) == list(range(COUNT))
    assert orders[1] == orders[2] == orders[0]
    with pytest.raises(errors.JobFailedError, match=r"ABORTION_FAILOVER was decided by .*ByName"):
        read(cluster, "ABORTION_FAILOVER", tmp_path / "ABORTION_FAILOVER")
    asked = (tmp_path / "ABORTION_FAILOVER.asked").read_text().splitlines()
    assert asked == ["exception"]  # one attempt was enough

    picture = wait_until(cluster.address, lambda p: len(p["failover"]["retired"]) == 1, "retired")
    made = [decision["strategy"] for decision in picture["failover"]["decisions"]]
    assert made == [f"{name}_FAILOVER" for name in ("NORMAL", "GLOBAL", "NODE", "ABORTION")]
    (retired,) = picture["failover"]["retired"]
    assert worker_of(picture, retired["worker"])["state"] == "retired"
    assert sorted(w["state"] for w in picture["workers"]) == ["live", "live", "retired"]

    # kill -9: the dead worker is retired, and what it had is made by the other one.
    victim = next(
        worker
        for worker in cluster.workers
        if worker_of(picture, worker.worker_id)["state"] == "live"
    )
    path = tmp_path / "killed"
    path.write_text("here")
    served = missing_a_file(path).apply(
        penstock.distribute(cluster.address, job_name=f"NODE_FAILOVER {path}", seed=3, lanes=4)
    )
    seen = []
    for element in served:
        seen.append(int(element))
        if len(seen) == 1:
            victim.kill()
    assert seen == orders[0]
    wait_until(cluster.address, lambda p: len(p["failover"]["retired"]) == 2, "retired")


def test_a_worker_that_died_of_memory_is_taken_back_with_less(
    make_cluster: ClusterMaker, tmp_path: Path
) -> None:
    cluster = make_cluster(workers=0)
    words = f"--last-words={tmp_path / 'words'}"
    worker = cluster.add_worker(arguments=[words, "--slots=8", "--memory-limit=64MiB"])
    worker.kill()
    again = cluster.restart_worker(worker, environment={"PENSTOCK_LAST_EXIT": "137"})
    picture = wait_until(
        cluster.address, lambda p: any(w["id"] == again.worker_id for w in p["workers"]), "there"
    )
    entry = worker_of(picture, again.worker_id)
    assert entry["slots"] == 4
    assert (
        "exit code 137): 4 slots instead of 8, 32 MiB of buffers instead of 64" in entry["limited"]
    )


def read_while_a_file_changes(cluster: penstock.LocalCluster, path: Path, **more: str) -> list[int]:
    """One epoch of one split of numbers that depend on a file, whose content changes before the
    worker that has it is killed: what it has delivered is not made again as it was."""
    path.write_text("here")
    records = path.with_suffix(".tfrecord")
    with tf.io.TFRecordWriter(str(records)) as writer:
        for number in range(COUNT):
            writer.write(str(number))

    def element(record: tf.Tensor) -> tf.Tensor:
        changed = tf.strings.length(tf.io.read_file(str(path))) - 4
        # Several pieces of 4 MiB each.
        return tf.fill([10_000], tf.strings.to_number(record, tf.int32) + changed)

    arguments = {"job_name": f"differs {path}", "seed": 3, "lanes": 1, **more}
    # No more than one piece is received before the worker dies.
    distributed = penstock.distribute(cluster.address, memory_limit=1 << 18, **arguments)
    seen = []
    for one in tf.data.TFRecordDataset([str(records)]).map(element).apply(distributed):
        seen.append(int(one[0]))
        if len(seen) == 1:
            (holder,) = (w for w in fetch_status(cluster.address)["workers"] if w["attempts"])
            victim = next(w for w in cluster.workers if w.worker_id == holder["id"])
            victim.send_signal(signal.SIGSTOP)
            path.write_text("changed")
            victim.kill()
    return seen


def test_bytes_that_differ_are_made_elsewhere_if_the_extension_says_so(
    make_cluster: ClusterMaker, tmp_path: Path
) -> None:
    cluster = make_cluster(workers=3, worker_timeout_s=10.0)
    mending = "penstock.tests.cluster.failover_answers::Mending"
    seen = read_while_a_file_changes(cluster, tmp_path / "mended", failover_extension=mending)
    assert seen == list(range(COUNT))
    picture = fetch_status(cluster.address)
    (made,) = (m for m in picture["failover"]["decisions"] if "hash mismatch" in m["text"])
    assert made["strategy"] == "NODE_FAILOVER"
    assert "is a replay that differs from what was delivered before" in made["text"]
    assert len(picture["failover"]["retired"]) == 1
    # Without an extension of one's own such data ends the job, by the name of what is wrong.
    cluster.add_worker()
    with pytest.raises(errors.ReplayMismatchError, match=r"differs from what .*ABORTION_FAILOVER"):
        read_while_a_file_changes(cluster, tmp_path / "changed")


def broken_where_it_says_so() -> tf.data.Dataset:
    """Numbers that cannot be made by a process with PENSTOCK_TEST_BROKEN in its environment."""

    def broken() -> tf.Tensor:
        environment = tf.data.TextLineDataset("/proc/self/environ").reduce("", lambda _, line: line)
        return tf.strings.regex_full_match(environment, "(?s).*PENSTOCK_TEST_BROKEN.*")

    def element(number: tf.Tensor) -> tf.Tensor:
        # Now and then: looking costs more than anything else here.
        found = tf.cond(tf.equal(number % 5, 0), broken, lambda: False)
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(found), ["broken"])]):
            return tf.identity(number)

    return tf.data.Dataset.range(COUNT).map(element)


def test_a_worker_that_cannot_make_what_others_have_made_is_retired(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=1, worker_timeout_s=5.0)
    bad = cluster.add_worker(environment={"PENSTOCK_TEST_BROKEN": "1"})
    only = "penstock.tests.cluster.failover_answers::OnlyProven"
    served = broken_where_it_says_so().apply(
        penstock.distribute(cluster.address, job_name="train", seed=1, failover_extension=only)
    )
    elements = iter(served)
    seen = [int(next(elements))]  # so the epoch is open until there is a verdict
    picture = wait_until(cluster.address, lambda p: p["failover"]["retired"], "retired")
    assert sorted([*seen, *map(int, elements)]) == list(range(COUNT))
    assert [who["worker"] for who in picture["failover"]["retired"]] == [bad.worker_id]
    (verdict,) = (v for v in picture["failover"]["verdicts"] if v["verdict"] == "worker")
    assert "assertion failed" in verdict["detail"]
    (made,) = (m for m in picture["failover"]["decisions"] if m["text"].startswith("bad worker"))
    assert (made["strategy"], made["source"]) == ("NODE_FAILOVER", only)


_CRASHING = """
import sys, penstock
import tensorflow as tf
served = tf.data.Dataset.range(100).apply(
    penstock.distribute(sys.argv[1], job_name="crash", seed=1, lanes=2, resumable=True))
session = penstock.InSituSession(served, penstock.RecoveryPolicy(()))
for step in session.steps():
    for attempt in step.attempts():
        with attempt:
            if step.number == 7:
                try:
                    {}["loss"]
                except KeyError as error:
                    raise FloatingPointError("loss is NaN") from error
"""


def test_what_a_failure_tells_of_itself(
    make_cluster: ClusterMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_TOLD", str(tmp_path / "told"))
    cluster = make_cluster(workers=1, dispatcher_arguments=(f"--failover-extension={TELLING}",))
    # A trainer that ends by an exception, in its eighth step.
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING, cluster.address],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    wait_until(cluster.address, lambda p: len(p["failover"]["decisions"]) == 1, "decided")
    assert json.loads((tmp_path / "told").read_text()) == {
        "kind": "trainer crash",
        "exceptions": ["FloatingPointError: loss is NaN", "KeyError: 'loss'"],
        "exit_code": 1,
        "signal": None,
        "trainer_step": 7,
    }
    # A worker whose process is ended by somebody, and restarted by its supervisor.
    (worker,) = cluster.workers
    os.kill(worker.pid, signal.SIGSEGV)
    worker.wait_ended(30)
    again = cluster.restart_worker(worker)
    picture = wait_until(
        cluster.address,
        lambda p: any("SIGSEGV" in made["text"] for made in p["failover"]["decisions"]),
        "explained",
    )
    assert worker_of(picture, again.worker_id)["state"] == "live"


def test_a_wrong_class_ends_the_dispatcher_at_its_start(tmp_path: Path) -> None:
    for name, part in (("nothing_here::Class", "nothing_here"), ("json::dumps", "subclass")):
        command = [sys.executable, "-m", "penstock", "dispatcher", "--port=0", "--journal=none"]
        done = subprocess.run(
            [*command, f"--failover-extension={name}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=60,
        )
        assert done.returncode == 2
        assert "--failover-extension" in done.stderr
        assert part in done.stderr
