"""G1, G3, G5, G6, G7, G8: whatever dies, pauses or hangs, the epoch is exact or fails by name."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster
from penstock.client.status import fetch_status
from penstock.errors import RefusedError

from .conftest import ClusterMaker
from .pipelines import numbers
from .waiting import wait_until, worker_of

TRAINER = Path(__file__).with_name("trainer.py")
_RESTORED = re.compile(r"restored at element (\d+), wanted from (\d+) on")
_STARTED = re.compile(r"epoch (\d+), split (\d+), attempt \d+: started")


def consume(
    dataset: tf.data.Dataset, at: dict[int, Callable[[], None]], into: list[int] | None = None
) -> list[int]:
    """One epoch's first components; `at` says what happens after so many elements."""
    seen = [] if into is None else into
    for element in dataset:
        seen.append(int(element[0]))
        if len(seen) in at:
            at[len(seen)]()
    return seen


def productions(cluster: LocalCluster) -> list[tuple[str, ...]]:
    """(epoch, split) of every production that a worker's log tells of."""
    logs = (cluster.directory / "logs").glob("worker-*.log")
    return [match for log in logs for match in _STARTED.findall(log.read_text())]


def calm_order(address: str, count: int, seed: int) -> list[int]:
    """The order of an undisturbed epoch; its content is checked against the source."""
    served = numbers(count, work=20).apply(penstock.distribute(address, seed=seed))
    order = consume(served, {})
    assert sorted(order) == list(range(count))
    return order


@pytest.fixture
def start_trainer(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `trainer.py`; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, count: int, seed: int, out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(TRAINER), address, str(count), str(seed), str(out)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines_of(out: Path) -> list[str]:
    """The whole lines that a trainer has written."""
    return out.read_text().split("\n")[:-1] if out.exists() else []


def wait_for_lines(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until a trainer has consumed `count` elements."""
    deadline = threading.Event()
    timer = threading.Timer(120, deadline.set)
    timer.start()
    try:
        while len(lines_of(out)) < count:
            assert process.poll() is None, process.communicate()[1]
            assert not deadline.wait(0.02), f"{len(lines_of(out))} elements after 120 s"
    finally:
        timer.cancel()


# The whole cluster.


@pytest.mark.parametrize("seed", [1, 2])
def test_dispatcher_and_all_workers_die_together_and_return_in_any_order(
    make_cluster: ClusterMaker, seed: int
) -> None:
    cluster = make_cluster(workers=2)
    reference = calm_order(cluster.address, 3000, seed)
    choice = random.Random(seed)

    def kill_all_and_restart() -> None:
        daemons = [cluster.dispatcher, *cluster.workers]
        for daemon in daemons:
            daemon.send_signal(signal.SIGKILL)
        for daemon in daemons:
            daemon.kill()
        choice.shuffle(daemons)
        for daemon in daemons:
            if daemon is cluster.dispatcher:
                cluster.restart_dispatcher(wait=False)
            else:
                cluster.restart_worker(daemon, wait=False)

    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address, seed=seed))
    at = {moment: kill_all_and_restart for moment in (300, 1200, 2100)}
    assert consume(served, at) == reference


# The dispatcher.


def test_a_dispatcher_restart_recomputes_no_element_and_starts_no_split_again(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=2, worker_timeout_s=20.0)  # a busy machine is no fault
    served = numbers(4000, work=20).apply(penstock.distribute(cluster.address, seed=4))

    def kill_and_restart() -> None:
        cluster.dispatcher.kill()
        cluster.restart_dispatcher()

    seen = consume(served, {500: kill_and_restart, 2000: kill_and_restart})
    assert sorted(seen) == list(range(4000))
    made = productions(cluster)
    assert len(made) == len(set(made)) > 0


def test_data_keeps_flowing_while_the_dispatcher_is_away(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=2)
    count = 64_000
    # Splits so large that those which are placed already last beyond the outage.
    served = tf.data.Dataset.range(count).apply(penstock.distribute(cluster.address, seed=4))
    iterator = iter(served)
    seen = [int(next(iterator)) for _ in range(1000)]
    cluster.dispatcher.kill()
    seen += [int(next(iterator)) for _ in range(5000)]
    cluster.restart_dispatcher()
    seen += [int(element) for element in iterator]
    assert sorted(seen) == list(range(count))


def test_a_dispatcher_that_forgot_everything_is_refused_not_obeyed(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=1, journal=False)
    # A kilobyte each, and room for few: at the kill the client still wants most of them.
    large = numbers(6000, work=20).map(lambda i, square: (i, square, tf.zeros([256])))
    served = large.apply(penstock.distribute(cluster.address, seed=1, memory_limit=1 << 16))
    seen: list[int] = []

    def kill_and_restart() -> None:
        cluster.dispatcher.kill()
        cluster.restart_dispatcher()
        engine = served.penstock.session.start()
        with engine.changed:
            assert engine.changed.wait_for(lambda: engine.error is not None, 60)

    with pytest.raises(RefusedError, match="journal"):
        consume(served, {500: kill_and_restart}, seen)
    assert isinstance(served.penstock.error, RefusedError)
    assert len(seen) == len(set(seen)) < 6000


# Workers.


def test_a_broken_connection_makes_a_death_known_long_before_the_timeout(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=2, worker_timeout_s=250.0)  # silence would be noticed too late
    # A kilobyte each, and room for few: at the kill the client still wants most of both workers.
    large = numbers(3000, work=20).map(lambda i, square: (i, square, tf.zeros([256])))
    served = large.apply(penstock.distribute(cluster.address, memory_limit=1 << 16))
    victim = cluster.workers[0]
    seen = consume(served, {500: victim.kill})
    assert sorted(seen) == list(range(3000))
    lost = worker_of(fetch_status(cluster.address), victim.worker_id)
    assert lost["state"] == "lost"
    assert "no heartbeat" not in lost["reason"]


def test_a_worker_that_comes_back_late_is_fenced_and_stands_by(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1, standbys=1)
    reference = calm_order(cluster.address, 3000, 7)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address, seed=7))
    late = cluster.workers[0]

    def pause() -> None:
        late.send_signal(signal.SIGSTOP)
        wait_until(
            cluster.address,
            lambda picture: worker_of(picture, late.worker_id)["state"] == "lost",
            "lost",
        )

    def go_on() -> None:
        late.send_signal(signal.SIGCONT)
        wait_until(
            cluster.address,
            lambda picture: worker_of(picture, late.worker_id)["state"] == "standby",
            "a standby",
        )

    assert consume(served, {500: pause, 1500: go_on}) == reference


def test_an_only_worker_that_comes_back_late_is_put_to_work_again(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=1)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address))
    late = cluster.workers[0]

    def pause_until_lost() -> None:
        late.send_signal(signal.SIGSTOP)
        wait_until(
            cluster.address,
            lambda picture: worker_of(picture, late.worker_id)["state"] == "lost",
            "lost",
        )
        late.send_signal(signal.SIGCONT)

    assert sorted(consume(served, {500: pause_until_lost})) == list(range(3000))


def test_a_restarted_worker_goes_on_from_its_checkpoint(
    make_cluster: ClusterMaker, tmp_path: Path
) -> None:
    checkpoints = tmp_path / "checkpoints"
    arguments = [f"--checkpoint-dir={checkpoints}", "--checkpoint-interval=0.1"]
    # With so little memory the worker cannot be far ahead of the trainer.
    cluster = make_cluster(workers=1, worker_arguments=[*arguments, "--memory-limit=1MiB"])
    lines = tmp_path / "lines.txt"  # one file is one split
    lines.write_text("".join(f"{line}\n" for line in range(60_000)))
    build = tf.data.TextLineDataset(str(lines)).map(
        lambda line: (tf.strings.to_number(line, tf.int64), tf.fill([64], line))
    )
    served = build.apply(penstock.distribute(cluster.address, memory_limit=1 << 16))

    def kill_and_restart() -> None:
        assert list(checkpoints.rglob("*.checkpoint"))
        cluster.workers[0].kill()
        cluster.restart_worker(cluster.workers[0])

    seen = consume(served, {30_000: kill_and_restart})
    assert seen == list(range(60_000))
    log = (cluster.directory / "logs" / "worker-1.log").read_text()
    restored, wanted = map(int, _RESTORED.findall(log)[0])
    assert 0 < restored <= wanted
    assert wanted >= 30_000
    picture = fetch_status(cluster.address)
    assert picture["restored_attempts"] == 1
    assert picture["recomputed_elements"] == wanted - restored


# Hangs.


def test_a_split_that_is_stuck_on_a_file_is_attempted_again(
    make_cluster: ClusterMaker, tmp_path: Path
) -> None:
    cluster = make_cluster(workers=2, dispatcher_arguments=["--progress-timeout=4"])
    paths = [tmp_path / f"lines-{number}.txt" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{number}:{line}\n" for line in range(50)))
    text = paths[2].read_text()
    paths[2].unlink()
    os.mkfifo(paths[2])  # whoever opens it for reading waits for a writer
    served = tf.data.TextLineDataset([str(path) for path in paths]).apply(
        penstock.distribute(cluster.address, attempts_max=20)
    )

    def replace_once_it_hung() -> None:
        wait_until(
            cluster.address,
            lambda picture: any(
                attempt["trial"] > 1
                for job in picture["jobs"]
                for stream in job["streams"]
                for attempt in stream["attempts"]
            ),
            "attempted again",
        )
        beside = tmp_path / "whole"
        beside.write_text(text)
        beside.replace(paths[2])

    thread = threading.Thread(target=replace_once_it_hung)
    thread.start()  # the split that hangs may be the first that is wanted
    seen = [line.numpy() for line in served]
    thread.join()
    expected = [f"{n}:{line}".encode() for n in range(4) for line in range(50)]
    assert sorted(seen) == sorted(expected)


def test_a_long_wait_says_for_which_split_of_which_worker(
    make_cluster: ClusterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster(workers=1, worker_timeout_s=100.0)
    timing = penstock.Timing(warn_after_s=0.3)
    reader = penstock.Reader(numbers(3000, work=20), cluster.address, seed=1, timing=timing)
    worker = cluster.workers[0]
    waited = re.compile(rf"waited .* split \d+ \(attempt \d+ on worker {worker.worker_id}\)")

    class Resume(threading.Thread):
        def run(self) -> None:
            while not waited.search(caplog.text):
                if stopped.wait(0.05):
                    return
            worker.send_signal(signal.SIGCONT)

    stopped = threading.Event()
    threads: list[Resume] = []
    seen = []
    for element in reader:
        seen.append(int(element[0]))
        if len(seen) == 100:
            worker.send_signal(signal.SIGSTOP)
            threads.append(Resume())
            threads[0].start()
    stopped.set()
    threads[0].join()
    reader.close()
    assert waited.search(caplog.text)
    assert sorted(seen) == list(range(3000))


# The trainer.


def test_a_trainer_that_dies_frees_what_it_held(
    make_cluster: ClusterMaker, start_trainer: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    cluster = make_cluster(workers=1, dispatcher_arguments=["--client-timeout=1"])
    out = tmp_path / "consumed"
    trainer = start_trainer(cluster.address, 20_000, 3, out)
    wait_for_lines(out, 100, trainer)
    trainer.kill()
    freed = wait_until(
        cluster.address,
        lambda picture: not picture["jobs"],
        "freed",
    )
    assert [worker["attempts"] for worker in freed["workers"]] == [0]


def test_a_trainer_that_was_paused_beyond_its_timeout_gets_an_error_and_never_a_gap(
    make_cluster: ClusterMaker, start_trainer: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    cluster = make_cluster(workers=1, dispatcher_arguments=["--client-timeout=1"])
    reference = calm_order(cluster.address, 8000, 3)
    out = tmp_path / "consumed"
    trainer = start_trainer(cluster.address, 8000, 3, out)
    wait_for_lines(out, 500, trainer)
    trainer.send_signal(signal.SIGSTOP)
    wait_until(cluster.address, lambda picture: not picture["jobs"], "given up")
    trainer.send_signal(signal.SIGCONT)
    _, error = trainer.communicate(timeout=120)
    consumed = lines_of(out)
    assert trainer.returncode == 9
    assert "silent" in error
    assert "end" not in consumed
    assert [int(line) for line in consumed] == reference[: len(consumed)]


def test_a_trainer_that_was_paused_for_less_continues_exactly(
    make_cluster: ClusterMaker, start_trainer: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    cluster = make_cluster(workers=1)
    reference = calm_order(cluster.address, 4000, 3)
    out = tmp_path / "consumed"
    trainer = start_trainer(cluster.address, 4000, 3, out)
    wait_for_lines(out, 500, trainer)
    trainer.send_signal(signal.SIGSTOP)
    wait_until(
        cluster.address, lambda picture: "silent" in str(picture["waiting"]), "noticed as silent"
    )
    trainer.send_signal(signal.SIGCONT)
    _, error = trainer.communicate(timeout=120)
    assert trainer.returncode == 0, error
    assert [int(line) for line in lines_of(out)[:-1]] == reference
