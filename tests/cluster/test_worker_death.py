"""G1, G3, G5, G6: kill -9 of a worker loses, repeats, reorders and hangs nothing."""

from __future__ import annotations

import logging
import random

import pytest
import tensorflow as tf

import penstock

from .conftest import ClusterMaker
from .pipelines import numbers, sequence_of, shuffled_numbers


def kill_after(dataset: tf.data.Dataset, elements: int, kill) -> list[int]:
    """Consumes one epoch and calls `kill` once, after `elements` of them."""
    seen = []
    for element in dataset:
        seen.append(int(element[0]))
        if len(seen) == elements:
            kill()
    return seen


@pytest.mark.parametrize("group", range(4))
def test_exactly_once_in_random_single_kill_runs(make_cluster: ClusterMaker, group: int) -> None:
    cluster = make_cluster(workers=2)
    for seed in range(group * 5, group * 5 + 5):
        choice = random.Random(seed)
        count = choice.randrange(500, 3000)
        served = shuffled_numbers(count, work=choice.randrange(20)).apply(
            penstock.distribute(cluster.address, seed=seed, lanes=choice.choice([1, 4, 16]))
        )
        victim = choice.choice([worker for worker in cluster.workers if worker.alive])
        seen = kill_after(served, choice.randrange(1, count), victim.kill)
        assert sorted(seen) == list(range(count)), f"seed {seed}"
        cluster.add_worker()


def test_the_sequence_is_the_same_with_and_without_a_kill(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=2)
    build = shuffled_numbers(4000, work=20)
    calm = build.apply(penstock.distribute(cluster.address, seed=5, job_name="calm"))
    reference = [int(element[0]) for element in calm]
    stormy = build.apply(penstock.distribute(cluster.address, seed=5, job_name="stormy"))
    assert kill_after(stormy, 1000, cluster.workers[0].kill) == reference


def test_a_standby_takes_over_when_the_only_worker_dies(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1, standbys=1)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address))
    seen = kill_after(served, 500, cluster.workers[0].kill)
    assert sorted(seen) == list(range(3000))


def test_with_no_worker_left_the_epoch_waits_says_so_and_goes_on(
    make_cluster: ClusterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster(workers=1)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address))

    def kill_and_bring_another_once_it_was_said() -> None:
        cluster.workers[0].kill()
        with caplog.at_level(logging.WARNING, "penstock"):
            said.wait_for("no worker")
        cluster.add_worker()

    said = _Listener()
    logging.getLogger("penstock").addHandler(said)
    try:
        seen = kill_after(served, 500, kill_and_bring_another_once_it_was_said)
    finally:
        logging.getLogger("penstock").removeHandler(said)
    assert sorted(seen) == list(range(3000))


def test_a_worker_that_restarts_at_its_address_is_used_again(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1, worker_timeout_s=30.0)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address))

    def kill_and_restart() -> None:
        cluster.workers[0].kill()
        cluster.restart_worker(cluster.workers[0])

    # The timeout is far away: what makes the epoch go on is the new incarnation's registration.
    seen = kill_after(served, 500, kill_and_restart)
    assert sorted(seen) == list(range(3000))


def test_a_worker_that_is_stopped_hands_its_work_over_at_once(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=2, worker_timeout_s=120.0)
    served = numbers(3000, work=20).apply(penstock.distribute(cluster.address))
    # With this timeout the test would not end in time if silence had to be noticed.
    seen = kill_after(served, 500, cluster.workers[0].stop)
    assert sorted(seen) == list(range(3000))


def test_the_dispatcher_may_be_killed_and_restarted_on_its_journal(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=2)
    served = numbers(4000, work=20).apply(penstock.distribute(cluster.address, seed=2))

    def kill_and_restart() -> None:
        cluster.dispatcher.kill()
        cluster.restart_dispatcher()

    reference = sequence_of(served)
    assert len(reference) == 4000
    seen = kill_after(served, 700, kill_and_restart)
    assert sorted(seen) == list(range(4000))


class _Listener(logging.Handler):
    """Waits for a log line."""

    def __init__(self) -> None:
        super().__init__()
        import threading

        self._changed = threading.Condition()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self._lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(text in line for line in self._lines), timeout_s
            )
        assert found, f"nobody said {text!r}; the log: {self._lines}"
