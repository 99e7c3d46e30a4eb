"""G7: whatever the journal's death or error, what was acknowledged before is there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from penstock import LocalCluster
from penstock.errors import JournalError, UnavailableError
from penstock.failpoints import VARIABLE
from penstock.proto import control_pb2, control_pb2_grpc

from .points import JOURNAL, SNAPSHOT_RECORDS, Visit

_DEADLINE_S = 60.0
#: More than enough records for every point of the journal to be reached.
_DATASETS = 20 * SNAPSHOT_RECORDS
_EXIT_CODES = {"kill": -signal.SIGKILL, "raise": JournalError.exit_code}

MakeStub = Callable[[], Any]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A dispatcher without workers."""
    arguments = [f"--snapshot-records={SNAPSHOT_RECORDS}", "--lease=2"]
    directory = tmp_path_factory.mktemp("alone")
    with LocalCluster(workers=0, directory=directory, dispatcher_arguments=arguments) as cluster:
        yield cluster


@pytest.fixture
def make_stub(alone: LocalCluster) -> Iterator[MakeStub]:
    """Makes stubs for calls to the dispatcher, each with a connection of its own."""
    channels: list[grpc.Channel] = []

    def make() -> Any:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels.append(grpc.insecure_channel(alone.address, options))
        stub: Any = control_pb2_grpc.ControlStub
        return stub(channels[-1])

    yield make
    for channel in channels:
        channel.close()


def register(stub: Any, fingerprint: str) -> bool:
    """Registers a dataset; whether that was acknowledged."""
    graph = fingerprint.encode()
    info = control_pb2.DatasetInfo(fingerprint=fingerprint, num_splits=1, graph_bytes=len(graph))
    parts = [
        control_pb2.PutDatasetRequest(info=info),
        control_pb2.PutDatasetRequest(part=graph),
    ]
    try:
        stub.PutDataset(iter(parts), timeout=_DEADLINE_S)
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise
        return False
    return True


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("visit", JOURNAL, ids=str)
def test_acknowledged_datasets_are_there_after_the_journal_ended_at(
    alone: LocalCluster, make_stub: MakeStub, visit: Visit, action: str
) -> None:
    fresh = [secrets.token_hex(16) for _ in range(_DATASETS)]
    acknowledged = list(itertools.takewhile(partial(register, make_stub()), fresh[:2]))
    assert len(acknowledged) == 2
    fired = alone.dispatcher.log_path.read_text().count(f"failpoint {visit.name}: ")
    alone.dispatcher.kill()
    environment = {VARIABLE: f"{visit.name}={action}@{visit.at}"}
    with contextlib.suppress(UnavailableError):  # some points end it before it serves
        alone.restart_dispatcher(environment=environment)
    acknowledged += itertools.takewhile(partial(register, make_stub()), fresh[2:])
    assert alone.dispatcher.wait_ended(_DEADLINE_S) == _EXIT_CODES[action]
    assert alone.dispatcher.log_path.read_text().count(f"failpoint {visit.name}: ") > fired
    alone.restart_dispatcher()
    stub = make_stub()
    for fingerprint in acknowledged:
        request = control_pb2.GetDatasetRequest(fingerprint=fingerprint)
        parts = stub.GetDataset(request, timeout=_DEADLINE_S)
        assert b"".join(reply.part for reply in parts) == fingerprint.encode()
