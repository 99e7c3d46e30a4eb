"""Case `recovery`: how long a consumer waits when something is killed with SIGKILL.

One consumer reads an epoch as fast as it can, with a small buffer. In its middle processes are
killed, and started again where the scenario says so. `timeline` defines the outage; the metrics
below say what it is made of. Every run checks that the epoch is what a plain local run gives.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.embedded import LocalCluster
from ..client.reader import Reader
from ..client.status import fetch_status
from ..errors import PenstockError, UnavailableError
from .consume import Strike, read_struck_epoch
from .harness import Case, Contestant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client.daemon import Daemon
    from .harness import Metrics, Settings, Show
    from .timeline import Timeline
    from .workloads import Workload

_CHECKPOINT_INTERVAL_S = 1
_SMALL_BUFFER_BYTES = 8 << 20
_LOOKAHEAD_BYTES = 256 << 20
_LOOK_S = 0.05
_LOOK_DEADLINE_S = 60.0

PIPELINES = ("jpeg", "cheap")

METRICS = {
    "outage_s": "longest time between two deliveries, the second of them after the kill",
    "stall_s": "longest time that the consumer waited for one delivery after the kill",
    "calm_gap_s": "longest time between two deliveries before the kill, to compare with",
    "detection_s": "from the kill until the dispatcher counts the worker as lost",
    "rest_s": "from then until the first element after the outage",
    "up_s": "from the kill until the last process started after it serves",
    "up_to_first_s": "from then until the first element after the outage, if it was up in it",
    "recomputed": "elements made again that the consumer had already",
    "restored": "attempts that went on from a checkpoint",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What there is, what is killed, and what is started again.

    Attributes:
        name: for people.
        victims: worker, dispatcher or all.
        restart: start what was killed again at once, at the same address.
        workers, standbys, standby_dispatcher: the cluster.
        checkpoints: workers write checkpoints every second.
        paced: the consumer is slower than the workers, and reads ahead (`Strike.paced`).
    """

    name: str
    victims: str
    restart: bool = False
    workers: int = 1
    standbys: int = 0
    standby_dispatcher: bool = False
    checkpoints: bool = False
    paced: bool = False


SCENARIOS = (
    Scenario("same-address", "worker", restart=True),
    Scenario("same-address-checkpoints", "worker", restart=True, checkpoints=True),
    Scenario("standby", "worker", standbys=1),
    Scenario("live-worker", "worker", workers=2),
    Scenario("dispatcher", "dispatcher", restart=True),
    Scenario("dispatcher-lookahead", "dispatcher", restart=True, paced=True),
    Scenario("dispatcher-standby", "dispatcher", standby_dispatcher=True),
    Scenario("whole-cluster", "all", restart=True),
    Scenario("whole-cluster-checkpoints", "all", restart=True, checkpoints=True),
)


@dataclass(frozen=True, slots=True)
class Marks:
    """When what happened, on the monotonic clock."""

    killed_s: float
    lost_s: float | None = None
    up_s: float | None = None


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every scenario with every pipeline; what no wanted one needs is not made."""
    names = {name: [f"{name}/{one.name}" for one in SCENARIOS] for name in PIPELINES}
    needed = {name for name in names if any(map(settings.wants, names[name]))}
    workloads = {workload.name: workload for workload in _workloads(settings, show, needed)}

    def measure(pipeline: str, scenario: Scenario) -> Metrics:
        return measure_scenario(scenario, workloads[pipeline], settings, show)

    yield [
        Contestant(f"{pipeline}/{scenario.name}", partial(measure, pipeline, scenario))
        for pipeline in PIPELINES
        for scenario in SCENARIOS
    ]


CASE = Case(
    "recovery",
    "how long a consumer waits after kill -9 of a worker, the dispatcher, or everything",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
)


def measure_scenario(
    scenario: Scenario, workload: Workload, settings: Settings, show: Show
) -> Metrics:
    """One epoch of a fresh cluster, with the scenario's kill in it.

    Raises:
        PenstockError: it could not be measured, or what came was wrong.
    """
    strike = Strike(at=0.4, paced=scenario.paced)
    memory = _LOOKAHEAD_BYTES if scenario.paced else _SMALL_BUFFER_BYTES
    with (
        tempfile.TemporaryDirectory(dir=settings.directory) as directory,
        _cluster(scenario, Path(directory), settings) as cluster,
        Reader(workload.dataset, cluster, seed=1, memory_limit=memory) as reader,
    ):
        act = partial(_strike, cluster, scenario, show)
        timeline, marks = read_struck_epoch(reader, workload, show, strike, act)
        assert marks is not None
        picture = _status(cluster)
    return figures(timeline, marks, picture)


def figures(timeline: Timeline, marks: Marks, picture: dict[str, Any]) -> Metrics:
    """The metrics of one epoch.

    Args:
        timeline: what the consumer saw.
        marks: what happened.
        picture: the dispatcher's status after the epoch.

    Raises:
        PenstockError: nothing was delivered after the kill, so that nothing can be said.
    """
    outage = timeline.longest_gap(after_s=marks.killed_s)
    stall = timeline.longest_wait(after_s=marks.killed_s)
    calm = timeline.longest_gap(until_s=marks.killed_s)
    if outage is None or stall is None:
        raise PenstockError("the epoch was over before anything was killed: it is too short")
    first_s = outage.end_s
    # Where data flowed while nothing was up yet, the longest gap has nothing to do with that.
    up_s = marks.up_s if outage.begin_s < (marks.up_s or 0.0) < outage.end_s else None
    return {
        "outage_s": outage.length_s,
        "stall_s": stall.length_s,
        "calm_gap_s": None if calm is None else calm.length_s,
        "detection_s": _later(marks.killed_s, marks.lost_s),
        "rest_s": _later(marks.lost_s, first_s),
        "up_s": _later(marks.killed_s, marks.up_s),
        "up_to_first_s": _later(up_s, first_s),
        "recomputed": picture.get("recomputed_elements"),
        "restored": picture.get("restored_attempts"),
    }


def _later(begin_s: float | None, end_s: float | None) -> float | None:
    """How much later the end is; None if one of them is not known, or the end was not later."""
    if begin_s is None or end_s is None or end_s <= begin_s:
        return None
    return end_s - begin_s


def _workloads(settings: Settings, show: Show, wanted: set[str]) -> Iterator[Workload]:
    from .workloads import cheap, jpeg, write_pictures

    if "jpeg" in wanted:
        records = 600 if settings.quick else 3000
        yield from jpeg(write_pictures(settings.directory, show, files=16, records=records), show)
    if "cheap" in wanted:
        yield cheap(100_000 if settings.quick else 500_000, show)


def _cluster(scenario: Scenario, directory: Path, settings: Settings) -> LocalCluster:
    checkpoints = (
        f"--checkpoint-dir={directory / 'checkpoints'}",
        f"--checkpoint-interval={_CHECKPOINT_INTERVAL_S}",
    )
    return LocalCluster(
        scenario.workers,
        scenario.standbys,
        directory=directory,
        standby_dispatcher=scenario.standby_dispatcher,
        worker_timeout_s=settings.worker_timeout_s,
        worker_arguments=checkpoints if scenario.checkpoints else (),
    )


def _strike(cluster: LocalCluster, scenario: Scenario, show: Show) -> Marks:
    """Kills, restarts, and watches until everything that was started serves."""
    victims: dict[str, list[Daemon]] = {
        "worker": cluster.workers[:1],
        "dispatcher": [cluster.dispatcher],
        "all": [cluster.dispatcher, *cluster.workers],
    }
    killed = victims[scenario.victims]
    killed_s = time.monotonic()
    for daemon in killed:
        daemon.send_signal(signal.SIGKILL)
    for daemon in killed:
        daemon.kill()  # is dead already: reaps it
    show.said(f"kill -9 {', '.join(daemon.name for daemon in killed)}")
    if scenario.restart:
        for daemon in killed:
            if daemon is cluster.dispatcher:
                cluster.restart_dispatcher(wait=False)
            else:
                cluster.restart_worker(daemon, wait=False)
    with ThreadPoolExecutor(1) as pool:
        up = pool.submit(_wait_up, cluster, {daemon.name for daemon in killed}, scenario)
        lost_s = _lost_s(cluster, killed[0].worker_id) if scenario.victims == "worker" else None
        return Marks(killed_s, lost_s, up.result())


def _wait_up(cluster: LocalCluster, killed: set[str], scenario: Scenario) -> float | None:
    """Waits until what takes the place of the killed serves; since when it does, if known."""
    if scenario.restart:
        for daemon in [cluster.dispatcher, *cluster.workers]:
            if daemon.name in killed:
                daemon.wait_ready()
    elif cluster.standby_dispatcher is not None:
        fetch_status(cluster.standby_dispatcher.address, _LOOK_DEADLINE_S)
    else:
        return None
    return time.monotonic()


def _lost_s(cluster: LocalCluster, worker: str) -> float:
    """Looks until the dispatcher counts the worker as lost; when it did."""
    deadline = time.monotonic() + _LOOK_DEADLINE_S
    pause = threading.Event()
    while time.monotonic() < deadline:
        picture = _status(cluster)
        now_s = time.monotonic()
        for one in picture["workers"]:
            if one["id"] == worker and one["state"] == "lost":
                return now_s - float(one.get("lost_s") or 0.0)
        pause.wait(_LOOK_S)
    raise UnavailableError(f"worker {worker} is not lost {_LOOK_DEADLINE_S:.0f} s after its death")


def _status(cluster: LocalCluster) -> dict[str, Any]:
    """The status of the dispatcher that serves."""
    standby = cluster.standby_dispatcher
    serving = cluster.dispatcher if standby is None or cluster.dispatcher.alive else standby
    return fetch_status(serving.address, _LOOK_DEADLINE_S)
