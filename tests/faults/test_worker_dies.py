"""Workers die at each of their failpoints, and the epoch is exact."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from penstock import LocalCluster
from penstock.client.daemon import Daemon
from penstock.errors import UnavailableError
from penstock.failpoints import VARIABLE

from .conftest import SEED, FreshDataset, Truth, read_calmly
from .points import CHECKPOINTS, WORKER, Visit
from .trainer import elements

_DEADLINE_S = 120.0
#: Two at once: most of a visit is the start of the process.
_PAIRS = tuple(zip(WORKER[::2], WORKER[1::2], strict=True))

StartVictim = Callable[[Visit, int], Daemon]


def environment_for(visit: Visit) -> dict[str, str]:
    """What kills a process at a point, and does not take the last one's end for one of memory."""
    return {VARIABLE: f"{visit.name}=kill@{visit.at}", "PENSTOCK_LAST_EXIT": "0"}


@pytest.fixture(scope="module")
def start_victim(cluster: LocalCluster) -> StartVictim:
    """Starts a worker with a failpoint set, at the address of the one that died before it."""
    victims: dict[int, Daemon] = {}

    def start(visit: Visit, number: int) -> Daemon:
        environment = environment_for(visit)
        if number in victims and victims[number].address:
            victim = cluster.restart_worker(victims[number], environment=environment, wait=False)
        else:
            victim = cluster.add_worker(environment=environment, wait=False)
        victims[number] = victim
        return victim

    return start


@pytest.mark.parametrize("visits", _PAIRS, ids=lambda pair: f"{pair[0]},{pair[1]}")
def test_an_epoch_is_exact_though_workers_are_killed_at(
    cluster: LocalCluster,
    start_victim: StartVictim,
    visits: tuple[Visit, Visit],
    known: Truth,
    calm_order: list[str],
) -> None:
    victims = [start_victim(visit, number) for number, visit in enumerate(visits)]
    for visit, victim in zip(visits, victims, strict=True):
        if not visit.name.startswith("worker.register."):
            victim.wait_ready()
    seen = []
    for element in elements(cluster, known.stream, seed=SEED):
        seen.append(element)
        if len(seen) == 1:
            for visit, victim in zip(visits, victims, strict=True):
                if visit.during == "leave":
                    victim.send_signal(signal.SIGTERM)
    for visit, victim in zip(visits, victims, strict=True):
        assert victim.wait_ended(_DEADLINE_S) == -signal.SIGKILL, victim.log_tail()
        assert f"failpoint {visit.name}: kill" in victim.log_path.read_text()
    assert sorted(seen) == known.content
    assert seen == calm_order


class Chain(threading.Thread):
    """Starts a worker again and again at its address, each time with the next failpoint set.

    Attributes:
        exit_codes: of the processes that ended by themselves.
    """

    def __init__(self, cluster: LocalCluster, visits: Sequence[Visit]) -> None:
        super().__init__(name="chain")
        self.exit_codes: list[int] = []
        self._cluster = cluster
        self._visits = visits

    def run(self) -> None:
        """Goes on until a process does not end, or runs without a failpoint."""
        for following in [*self._visits[1:], None]:
            worker = self._cluster.workers[0]
            try:
                self.exit_codes.append(worker.wait_ended(_DEADLINE_S))
            except UnavailableError:
                return
            self._cluster.restart_worker(
                worker, environment=following and environment_for(following), wait=False
            )


def test_an_epoch_is_exact_though_its_only_worker_is_killed_at_every_point_of_its_checkpoints(
    cluster: LocalCluster, fresh_dataset: FreshDataset, tmp_path: Path
) -> None:
    # Splits that are long and come little by little: whatever life of the worker ends, the client
    # is past a checkpoint of it, and the next one begins there.
    truth = fresh_dataset(lines=500, buffer=4)
    reference = read_calmly(cluster, truth)
    with LocalCluster(
        workers=0,
        directory=tmp_path / "cluster",
        worker_timeout_s=1.0,
        worker_arguments=[
            "--time-scale=0.3",
            f"--checkpoint-dir={tmp_path / 'checkpoints'}",
            "--checkpoint-interval=0.02",
        ],
    ) as alone:
        worker = alone.add_worker(environment=environment_for(CHECKPOINTS[0]))
        chain = Chain(alone, CHECKPOINTS)
        chain.start()
        seen = list(elements(alone, truth.stream, seed=SEED))
        chain.join()
    log = worker.log_path.read_text()
    fired = [line for line in log.splitlines() if line.startswith("failpoint ")]
    assert fired == [f"failpoint {visit.name}: kill" for visit in CHECKPOINTS]
    assert chain.exit_codes == [-signal.SIGKILL] * len(CHECKPOINTS)
    assert seen == reference
