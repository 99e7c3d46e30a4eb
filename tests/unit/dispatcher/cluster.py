"""A dispatcher served on a free port in the test's own event loop, and peers that talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from penstock.dispatcher.server import Dispatcher, DispatcherOptions
from penstock.proto import control_pb2 as pb
from penstock.proto import control_pb2_grpc
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.timing import Timing

FINGERPRINT = "00112233445566778899aabbccddeeff"
QUICK = Timing(heartbeat_s=0.05, worker_timeout_s=0.3, client_timeout_s=0.5)
PATIENT = Timing(worker_timeout_s=60.0, client_timeout_s=60.0)
HOLD_MS = 20_000  # longer than any test: what comes back earlier came because of news

RUNNING, PRODUCED, FAILED = (
    pb.HeldAttempt.RUNNING,
    pb.HeldAttempt.PRODUCED,
    pb.HeldAttempt.FAILED,
)


def run(test: Coroutine[Any, Any, None], timeout_s: float = 30.0) -> None:
    """Runs a test's coroutine in a loop of its own."""
    asyncio.run(asyncio.wait_for(test, timeout_s))


@contextlib.asynccontextmanager
async def serving(
    journal: Path | None = None, *, timing: Timing = PATIENT, log: Any = None, **options: Any
) -> AsyncIterator[tuple[Dispatcher, Any]]:
    """A dispatcher and a stub that is connected to it."""
    made = DispatcherOptions(port=0, journal=journal, timing=timing, **options)
    dispatcher = Dispatcher(made, log)
    await dispatcher.start()
    async with grpc.aio.insecure_channel(dispatcher.address) as channel:
        try:
            yield dispatcher, control_pb2_grpc.ControlStub(channel)
        finally:
            await dispatcher.stop()


async def put_dataset(
    stub: Any, *, splits: int = 4, fingerprint: str = FINGERPRINT, graph: bytes = b"graph"
) -> None:
    """Registers a dataset."""
    info = pb.DatasetInfo(
        fingerprint=fingerprint, num_splits=splits, replayable=True, graph_bytes=len(graph)
    )
    requests = [pb.PutDatasetRequest(info=info), pb.PutDatasetRequest(part=graph)]
    await stub.PutDataset(iter(requests))


def job_request(client: str = "client-a", name: str = "train", **more: Any) -> pb.OpenJobRequest:
    """A request that opens a job on the dataset of `put_dataset`."""
    settings: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "streams": [FINGERPRINT],
        "lanes": 2,
        "block": 1,
        "attempts_max": 3,
    }
    return pb.OpenJobRequest(client=client, job_name=name, **{**settings, **more})


async def announced(stub: Any, request: pb.OpenJobRequest) -> pb.OpenJobRequest:
    """The request of a client that arrives now."""
    reply = await stub.AnnounceClient(pb.AnnounceClientRequest())
    request.term, request.arrival = reply.term, reply.arrival
    return request


def digest_of(split: int) -> pb.Digest:
    """Some digest of a split."""
    return pb.Digest(count=10 + split, total=(1 << 63) + split, chain=7 * split)


def epoch_digest(splits: int) -> pb.Digest:
    """The digest of an epoch of all those splits."""
    parts = [digest_of(split) for split in range(splits)]
    total = sum(part.total for part in parts) % (1 << 64)
    return pb.Digest(count=sum(part.count for part in parts), total=total, chain=99)


def progress(epoch: int = 0, done: list[int] | None = None, **more: Any) -> pb.EpochProgress:
    """An open epoch in a client's request."""
    splits = [pb.SplitDone(split=split, digest=digest_of(split)) for split in done or []]
    return pb.EpochProgress(epoch=epoch, done=splits, **more)


@dataclass
class Client:
    """A trainer's side, by hand."""

    stub: Any
    name: str = "client-a"
    job: str = ""
    term: int = 0
    version: int = 0
    sequence: Any = field(default_factory=lambda: itertools.count(1))

    async def open(self, **more: Any) -> pb.OpenJobReply:
        """Opens the job."""
        request = await announced(self.stub, job_request(self.name, **more))
        reply = await self.stub.OpenJob(request)
        self.job, self.term = reply.job, reply.term
        return reply

    async def sync(self, *epochs: pb.EpochProgress, hold_ms: int = 0, **more: Any) -> Any:
        """One call; remembers term and version."""
        request = pb.SyncClientRequest(
            job=self.job,
            client=self.name,
            term=self.term,
            seen_version=self.version,
            hold_ms=hold_ms,
            epochs=epochs,
            **{"sequence": next(self.sequence), **more},
        )
        reply = await self.stub.SyncClient(request)
        self.term, self.version = reply.term, reply.version
        return reply


@dataclass
class Worker:
    """A worker's side, by hand."""

    stub: Any
    incarnation: str = "worker-a"
    address: str = "127.0.0.1:7001"
    name: str = ""
    term: int = 0
    version: int = 0

    async def register(self, **more: Any) -> pb.RegisterWorkerReply:
        """Registers."""
        settings = {"protocol_version": PROTOCOL_VERSION, "slots": 2, **more}
        reply = await self.stub.RegisterWorker(
            pb.RegisterWorkerRequest(incarnation=self.incarnation, address=self.address, **settings)
        )
        self.name, self.term = reply.worker, reply.term
        return reply

    async def sync(
        self,
        held: dict[int, Any] | None = None,
        hold_ms: int = 0,
        *,
        leaving: bool = False,
        reports: list[pb.HeldAttempt] | None = None,
    ) -> Any:
        """One call; `held` has the state of each attempt, `reports` everything of each."""
        request = pb.SyncWorkerRequest(
            leaving=leaving,
            worker=self.name,
            incarnation=self.incarnation,
            term=self.term,
            seen_version=self.version,
            hold_ms=hold_ms,
            held=[
                pb.HeldAttempt(attempt=number, state=state, code="PIPELINE", detail="boom")
                for number, state in (held or {}).items()
            ]
            + (reports or []),
        )
        reply = await self.stub.SyncWorker(request)
        self.term, self.version = reply.term, reply.version
        return reply


async def opened(stub: Any, *, splits: int = 4, lanes: int = 2) -> Client:
    """A client with an open job."""
    await put_dataset(stub, splits=splits)
    client = Client(stub)
    await client.open(lanes=lanes, seed=7)
    return client


def placed(reply: pb.SyncClientReply) -> dict[int, int]:
    """split -> attempt of a client's view."""
    return {place.split: place.attempt for view in reply.epochs for place in view.placements}


def workers_of(reply: pb.SyncClientReply) -> dict[int, str]:
    """split -> worker of a client's view."""
    return {place.split: place.worker for view in reply.epochs for place in view.placements}


async def status_of(stub: Any) -> dict[str, Any]:
    """The status document."""
    picture: dict[str, Any] = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
    return picture


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """The status code, text and error class of a call that must be refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        named = dict(error.trailing_metadata() or ()).get("penstock-error", "")
        return error.code(), error.details() or "", named
    raise AssertionError("the call was answered")
