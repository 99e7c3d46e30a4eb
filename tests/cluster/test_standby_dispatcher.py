"""A second dispatcher takes the journal over: nobody notices but the log (G1, G7, G8)."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from penstock.client.control import Control
from penstock.client.daemon import Daemon
from penstock.errors import UsageError
from penstock.timing import Timing
from penstock.worker.link import Link

from .conftest import ClusterMaker
from .pipelines import numbers

COUNT = 3000
LEASE_S = 1.0
DEADLINE_S = 120.0


def consume(cluster: penstock.LocalCluster, act: Callable[[], None], *, after: int = 500) -> None:
    """Reads an epoch, acts in its middle, and compares what came with plain tf.data."""
    pipeline = numbers(COUNT, work=20)
    expected = sorted(int(element[0]) for element in pipeline)
    seen = []
    for element in pipeline.apply(penstock.distribute(cluster.address)):
        seen.append(int(element[0]))
        if len(seen) == after:
            act()
    assert sorted(seen) == expected


def wait_serving(daemon: Daemon) -> None:
    """Waits for the second announcement of a standby."""
    assert "standby" not in daemon.wait_ready(DEADLINE_S)


def wait_ended(daemon: Daemon) -> int:
    return daemon.wait_ended(DEADLINE_S)


def test_when_the_dispatcher_is_killed_the_standby_serves_and_the_epoch_goes_on(
    make_cluster: ClusterMaker,
) -> None:
    # With a lease of an hour it can only be the end of the process that is noticed.
    cluster = make_cluster(standby_dispatcher=True, dispatcher_arguments=["--lease=3600"])
    standby = cluster.standby_dispatcher
    assert standby is not None

    def kill() -> None:
        cluster.dispatcher.kill()
        wait_serving(standby)

    consume(cluster, kill)
    assert "taking it over" not in standby.log_tail(1000)


def test_a_killed_dispatcher_comes_back_as_the_standby_of_its_standby(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(standby_dispatcher=True)
    standby = cluster.standby_dispatcher
    assert standby is not None

    def kill_both_in_turn() -> None:
        cluster.dispatcher.kill()
        wait_serving(standby)
        cluster.restart_dispatcher()
        standby.kill()
        wait_serving(cluster.dispatcher)

    consume(cluster, kill_both_in_turn)


def test_a_dispatcher_that_sleeps_longer_than_its_lease_is_replaced_and_ends_when_it_wakes_up(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(
        standby_dispatcher=True,
        worker_timeout_s=30.0,
        dispatcher_arguments=[f"--lease={LEASE_S}"],
    )
    standby, codes = cluster.standby_dispatcher, []
    assert standby is not None

    def pause_and_go_on() -> None:
        cluster.dispatcher.send_signal(signal.SIGSTOP)
        wait_serving(standby)
        cluster.dispatcher.send_signal(signal.SIGCONT)
        codes.append(wait_ended(cluster.dispatcher))

    consume(cluster, pause_and_go_on)
    assert codes == [6]
    assert f"process {standby.pid} on " in cluster.dispatcher.log_tail()
    assert "has taken over the journal" in cluster.dispatcher.log_tail()
    ends = [line for line in cluster.dispatcher.log_tail(1000).splitlines() if "CRITICAL" in line]
    assert len(ends) == 1


def test_the_epoch_goes_on_while_the_old_dispatcher_still_sleeps(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(
        standby_dispatcher=True,
        worker_timeout_s=30.0,
        dispatcher_arguments=[f"--lease={LEASE_S}"],
    )
    consume(cluster, lambda: cluster.dispatcher.send_signal(signal.SIGSTOP))
    standby = cluster.standby_dispatcher
    assert standby is not None
    assert "taking it over" in standby.log_tail(1000)


def test_a_call_to_one_of_two_dispatchers_does_not_wait_longer_than_a_lease() -> None:
    timing = Timing(rpc_deadline_s=10.0, lease_s=3.0)
    for make in (Control, Link):
        assert make(["a:1"], timing).call_deadline_s == 10.0
        assert make(["a:1", "b:1"], timing).call_deadline_s == 3.0


def test_a_standby_dispatcher_needs_a_journal() -> None:
    with pytest.raises(UsageError, match="journal"):
        penstock.LocalCluster(workers=0, journal=False, standby_dispatcher=True)


@contextlib.contextmanager
def dispatcher(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "penstock", "dispatcher", "--announce=-", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def announced(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    said: dict[str, object] = json.loads(process.stdout.readline())
    return said


@pytest.mark.parametrize("arguments", [["--port=0"], ["--port=5051", "--journal=none"]])
def test_a_standby_without_a_port_or_a_journal_is_bad_usage(
    arguments: list[str], tmp_path: Path
) -> None:
    with dispatcher("--standby", f"--journal={tmp_path}", *arguments) as process:
        _, log = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 2
        assert "--standby needs" in log


def test_a_waiting_standby_says_so_refuses_connections_and_stops_cleanly(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=0, standby_dispatcher=True)
    standby = cluster.standby_dispatcher
    assert standby is not None
    assert cluster.address == f"{cluster.dispatcher.address},{standby.address}"
    assert f"held by process {cluster.dispatcher.pid} on " in standby.log_tail()
    with pytest.raises(penstock.errors.UnavailableError):
        _ask(standby.address)
    standby.send_signal(signal.SIGTERM)
    assert wait_ended(standby) == 0


def test_a_second_dispatcher_that_is_no_standby_is_refused_at_once(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(workers=0)
    with dispatcher("--port=0", f"--journal={cluster.directory / 'journal'}") as process:
        _, log = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 6
        assert f"in use by process {cluster.dispatcher.pid} on " in log


def _ask(address: str) -> None:
    """One question to a dispatcher; UnavailableError if nobody listens there."""
    command = [sys.executable, "-m", "penstock", "status", "--json", "--dispatcher", address]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    if done.returncode == penstock.errors.UnavailableError.exit_code:
        raise penstock.errors.UnavailableError(done.stderr.decode())
