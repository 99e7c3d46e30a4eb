"""The dispatcher dies at each of its failpoints, and the epoch is exact."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from penstock import LocalCluster
from penstock.client.daemon import Daemon
from penstock.errors import JournalError, UnavailableError
from penstock.failpoints import VARIABLE
from penstock.proto import control_pb2, control_pb2_grpc
from penstock.proto.wire import PROTOCOL_VERSION

from .conftest import SEED, FreshDataset, Truth, read_calmly
from .points import DISPATCHER, JOURNAL, Visit
from .trainer import elements

_DEADLINE_S = 60.0
#: Where the disk fails under an epoch; test_acknowledged has it fail at every point.
_FAILING = [
    visit
    for visit in JOURNAL
    if visit.name in ("journal.before_write", "journal.before_fsync", "journal.prune.before_remove")
]


class Supervisor(threading.Thread):
    """Restarts the dispatcher, with a failpoint set, and restarts it again once that has fired.

    Attributes:
        died: set when the dispatcher has died, or has not for too long.
        exit_code: of the dispatcher that died; None if it did not.
        log: what it wrote until it died.
    """

    def __init__(self, cluster: LocalCluster, visit: Visit, action: str = "kill") -> None:
        super().__init__(name="supervisor")
        self.died = threading.Event()
        self.exit_code: int | None = None
        self.log = ""
        self._cluster = cluster
        self._environment = {VARIABLE: f"{visit.name}={action}@{visit.at}"}

    def run(self) -> None:
        """Waits for the death."""
        cluster, path = self._cluster, self._cluster.dispatcher.log_path
        cluster.dispatcher.kill()
        begin = path.stat().st_size
        cluster.restart_dispatcher(environment=self._environment, wait=False)
        try:
            self.exit_code = cluster.dispatcher.wait_ended(_DEADLINE_S)
        except UnavailableError:
            return
        finally:
            self.died.set()
        self.log = path.read_bytes()[begin:].decode()
        cluster.restart_dispatcher(wait=False)


@pytest.fixture
def intact(cluster: LocalCluster, calm_order: list[str]) -> Iterator[LocalCluster]:
    """The cluster, with nothing set before and after the test."""
    yield cluster
    if not cluster.dispatcher.alive:
        cluster.restart_dispatcher()


@pytest.fixture
def paused(intact: LocalCluster, visit: Visit) -> Iterator[Daemon | None]:
    """A worker that pauses itself with the first split in its hands, if the visit wants one."""
    if visit.during != "pause":
        yield None
        return
    worker = intact.add_worker(environment={VARIABLE: "worker.attempt.before_start=stop"})
    yield worker
    worker.kill()


class UnreachableWorker(threading.Thread):
    """Registers as a worker, with an address where nobody listens, until `over` is set."""

    def __init__(self, service: str, over: threading.Event) -> None:
        super().__init__(name="unreachable worker")
        self._service = service
        self._over = over
        with socket.create_server(("127.0.0.1", 0)) as closed_at_once:
            self._request = control_pb2.RegisterWorkerRequest(
                protocol_version=PROTOCOL_VERSION,
                incarnation=secrets.token_hex(8),
                address=f"127.0.0.1:{closed_at_once.getsockname()[1]}",
                host_id="nowhere",
                slots=8,
            )

    def register(self) -> None:
        """Gets on the dispatcher's books."""
        make: Any = control_pb2_grpc.ControlStub
        with grpc.insecure_channel(self._service) as channel:
            make(channel).RegisterWorker(self._request, timeout=30.0, wait_for_ready=True)

    def run(self) -> None:
        """Registers again and again, which counts as a sign of life."""
        while not self._over.wait(0.05):
            with contextlib.suppress(grpc.RpcError):
                self.register()


def read_while_it_dies(
    cluster: LocalCluster, truth: Truth, supervisor: Supervisor, paused: Daemon | None = None
) -> list[str]:
    """The elements of an epoch during which the dispatcher dies and is started again."""
    supervisor.start()
    seen = []
    try:
        for element in elements(cluster, truth.stream, seed=SEED):
            seen.append(element)
            if paused is not None and len(seen) == len(truth.content):
                # Its splits came only when it had been given up, so it has to register again.
                paused.send_signal(signal.SIGCONT)
    finally:
        supervisor.join()  # else it would disturb the next test
    return seen


@pytest.mark.parametrize("visit", [*JOURNAL, *DISPATCHER], ids=str)
def test_an_epoch_is_exact_though_the_dispatcher_is_killed_at(
    intact: LocalCluster,
    visit: Visit,
    paused: Daemon | None,
    known: Truth,
    calm_order: list[str],
    fresh_dataset: FreshDataset,
) -> None:
    truth = fresh_dataset() if visit.during == "fresh" else known
    supervisor = Supervisor(intact, visit)
    if visit.during == "unreachable":
        unreachable = UnreachableWorker(intact.address, supervisor.died)
        unreachable.register()  # before the restart, so that it gets its part from the beginning
        unreachable.start()
    seen = read_while_it_dies(intact, truth, supervisor, paused)
    assert supervisor.exit_code == -signal.SIGKILL
    assert f"failpoint {visit.name}: kill" in supervisor.log
    assert sorted(seen) == truth.content
    assert seen == (calm_order if truth is known else read_calmly(intact, truth))


@pytest.mark.parametrize("visit", _FAILING, ids=str)
def test_an_epoch_is_exact_though_the_disk_fails_at(
    intact: LocalCluster, visit: Visit, known: Truth, calm_order: list[str]
) -> None:
    supervisor = Supervisor(intact, visit, "raise")
    seen = read_while_it_dies(intact, known, supervisor)
    assert supervisor.exit_code == JournalError.exit_code
    assert f"failpoint {visit.name}: raise" in supervisor.log
    assert seen == calm_order
