"""Workers and trainers that speak the control protocol and do nothing else.

Theory of operation. Each simulated peer has a gRPC connection of its own, and does what
`worker/agent.py` and `client/sync.py` do with theirs: one call at a time, held by the dispatcher
until there is news, given up when there is news to tell. Only the data is missing: a worker makes
its splits one after the other, each in the time that the load says, and a trainer has a split as
soon as it is made and the dispatcher has said where it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from ..proto import control_pb2, control_pb2_grpc
from ..proto.wire import PROTOCOL_VERSION
from ..worker.tidings import Tidings

if TYPE_CHECKING:
    from collections.abc import Callable

#: The one dataset that is read.
FINGERPRINT = "5eed" * 8
_GRAPH = b"nobody looks at it"
_ELEMENTS = 100  # of each split
_RUNNING, _PRODUCED = control_pb2.HeldAttempt.RUNNING, control_pb2.HeldAttempt.PRODUCED
_MASK = (1 << 64) - 1


@dataclass(slots=True)
class Tally:
    """What was seen since the last look at it.

    Attributes:
        assigned: attempts that workers were given.
        heartbeats: calls of workers.
        latencies_s: of the attempts for which a place was free: since when it was, or since the
            epoch was opened, until the worker had the attempt.
        opened_s: when the newest epoch was opened; stays.
    """

    assigned: int = 0
    heartbeats: int = 0
    latencies_s: list[float] = field(default_factory=list)
    opened_s: float = 0.0


class Peer:
    """A peer's calls to the dispatcher: one at a time, and those that are held are given up.

    Args:
        address: of the dispatcher.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            address,
            options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)),
        )
        make: Any = control_pb2_grpc.ControlStub  # the generated stubs have no annotations
        self.stub = make(self._channel)
        self._news = True  # the first call asks for an answer at once
        self._held: Any = None
        self._stopped = False

    def stop(self) -> None:
        """It may be cancelled from now on."""
        self._stopped = True

    def tell(self) -> None:
        """There is news for the dispatcher."""
        self._news = True
        if self._held is not None:
            self._held.cancel()
            self._held = None

    async def call(self, method: Any, make_request: Callable[[int], Any], hold_ms: int) -> Any:
        """One call; None if it was given up for news."""
        news, self._news = self._news, False
        call = method(make_request(0 if news else hold_ms))
        self._held = None if news else call
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise
        except asyncio.CancelledError:
            if self._stopped or not (self._news and call.cancelled()):
                raise
        finally:
            self._held = None
        self._news = True  # whatever this one was to say
        return None

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


class Worker(Peer):
    """A worker that makes its splits one after the other.

    Args:
        address: of the dispatcher.
        number: which one it is.
        slots: how many attempts it would hold ahead of need.
        split_s: how long it takes to make a split.
        heartbeat_s: how long its calls are held.
        tally: what is counted.
        made: is told of each split that is made.
    """

    def __init__(
        self,
        address: str,
        number: int,
        *,
        slots: int,
        split_s: float,
        heartbeat_s: float,
        tally: Tally,
        made: Callable[[int, int], None],
    ) -> None:
        super().__init__(address)
        self._me = f"simulated-{number}"
        self._port = number + 1
        self._slots = slots
        self._split_s = split_s
        self._hold_ms = int(1000 * heartbeat_s)
        self._tally = tally
        self._made = made
        self._tidings = Tidings()
        self._produced: dict[int, bool] = {}  # of the attempts that it holds
        self._splits: dict[int, int] = {}
        self._waiting: deque[int] = deque()
        self._making: asyncio.TimerHandle | None = None
        self._free_s: deque[float] = deque()
        self._term = self._version = 0
        self._worker = ""

    async def register(self) -> None:
        """Introduces itself."""
        reply = await self.stub.RegisterWorker(
            control_pb2.RegisterWorkerRequest(
                protocol_version=PROTOCOL_VERSION,
                incarnation=self._me,
                address=f"127.0.0.1:{self._port}",
                host_id="simulated",
                slots=self._slots,
                tensorflow_version="none",
                pid=self._port,
            )
        )
        self._term, self._worker = reply.term, reply.worker

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            self._tally.heartbeats += 1
            reply = await self.call(self.stub.SyncWorker, self._request, self._hold_ms)
            if reply is not None:
                self._version = reply.version
                self._hold(reply.attempts)

    def _request(self, hold_ms: int) -> control_pb2.SyncWorkerRequest:
        self._tidings.told()
        return control_pb2.SyncWorkerRequest(
            worker=self._worker,
            incarnation=self._me,
            term=self._term,
            seen_version=self._version,
            hold_ms=hold_ms,
            held=[
                control_pb2.HeldAttempt(
                    attempt=attempt,
                    state=_PRODUCED if produced else _RUNNING,
                    elements=_ELEMENTS if produced else 0,
                )
                for attempt, produced in self._produced.items()
            ],
        )

    def _hold(self, specs: Any) -> None:
        listed = {spec.attempt: spec.split for spec in specs}
        self._produced = {at: made for at, made in self._produced.items() if at in listed}
        now_s = time.monotonic()
        for attempt, split in listed.items():
            if attempt in self._produced:
                continue
            self._produced[attempt] = False
            self._splits[attempt] = split
            self._waiting.append(attempt)
            self._tally.assigned += 1
            if self._free_s:
                since_s = max(self._free_s.popleft(), self._tally.opened_s)
                self._tally.latencies_s.append(now_s - since_s)
        self._splits = {at: split for at, split in self._splits.items() if at in listed}
        self._make_next()

    def _make_next(self) -> None:
        while self._waiting and self._making is None:
            if self._split_s > 0:
                loop = asyncio.get_running_loop()
                self._making = loop.call_later(self._split_s, self._finish)
            else:
                self._finish()

    def _finish(self) -> None:
        self._making = None
        attempt = self._waiting.popleft()
        if attempt in self._produced:
            self._produced[attempt] = True
            self._free_s.append(time.monotonic())
            self._made(attempt, self._splits[attempt])
            self._tidings.produced()
            if self._tidings.is_due(len(self._produced) - sum(self._produced.values())):
                self.tell()
        if self._split_s > 0:
            self._make_next()


class Trainer(Peer):
    """A trainer that reads one epoch after the other.

    Args:
        address: of the dispatcher.
        splits: of an epoch.
        heartbeat_s: how long its calls are held.
        tally: is told when an epoch is opened.
        finished: is told of each epoch that is over.
    """

    def __init__(
        self,
        address: str,
        *,
        splits: int,
        heartbeat_s: float,
        tally: Tally,
        finished: Callable[[int], None],
    ) -> None:
        super().__init__(address)
        self._num_splits = splits
        self._hold_ms = int(1000 * heartbeat_s)
        self._tally = tally
        self._finished = finished
        self._me = "simulated-trainer"
        self._term = self._version = self._sequence = 0
        self._job = ""
        self._epoch = 0
        self._placed: set[int] = set()
        self._made: dict[int, int] = {}  # by attempt: what is made and not placed, as far as known
        self._done: dict[int, None] = {}  # not acknowledged
        self._have = 0

    def made(self, attempt: int, split: int) -> None:
        """A worker has made a split."""
        if attempt in self._placed:
            self._take(split)
        else:
            self._made[attempt] = split

    async def open(self) -> None:
        """Registers the dataset and opens the job."""
        info = control_pb2.DatasetInfo(
            fingerprint=FINGERPRINT,
            num_splits=self._num_splits,
            replayable=True,
            graph_bytes=len(_GRAPH),
        )
        requests = [
            control_pb2.PutDatasetRequest(info=info),
            control_pb2.PutDatasetRequest(part=_GRAPH),
        ]
        await self.stub.PutDataset(iter(requests))
        announced = await self.stub.AnnounceClient(control_pb2.AnnounceClientRequest())
        opened = await self.stub.OpenJob(
            control_pb2.OpenJobRequest(
                protocol_version=PROTOCOL_VERSION,
                job_name="simulated",
                client=self._me,
                streams=[FINGERPRINT],
                seed=1,
                lanes=16,
                block=1,
                attempts_max=3,
                term=announced.term,
                arrival=announced.arrival,
            )
        )
        self._term, self._job, self._epoch = opened.term, opened.job, opened.next_epoch[0]
        self._tally.opened_s = time.monotonic()

    async def run(self) -> None:
        """Reads until it is cancelled."""
        while True:
            sent, whole = list(self._done), self._have == self._num_splits
            reply = await self.call(self.stub.SyncClient, self._request, self._hold_ms)
            if reply is None:
                continue
            self._version = reply.version
            if whole:
                self._next_epoch()
                continue
            for split in sent:
                del self._done[split]
            self._place(reply)

    def _request(self, hold_ms: int) -> control_pb2.SyncClientRequest:
        self._sequence += 1
        whole = self._have == self._num_splits
        total = self._num_splits * (self._num_splits - 1) // 2
        digest = control_pb2.Digest(count=_ELEMENTS * self._num_splits, total=total & _MASK)
        return control_pb2.SyncClientRequest(
            job=self._job,
            client=self._me,
            term=self._term,
            seen_version=self._version,
            hold_ms=hold_ms,
            sequence=self._sequence,
            epochs=[
                control_pb2.EpochProgress(
                    stream=0,
                    epoch=self._epoch,
                    done=[
                        control_pb2.SplitDone(
                            split=split,
                            digest=control_pb2.Digest(count=_ELEMENTS, total=split, chain=split),
                        )
                        for split in self._done
                    ],
                    finished=whole,
                    digest=digest if whole else None,
                )
            ],
        )

    def _place(self, reply: control_pb2.SyncClientReply) -> None:
        placed = {place.attempt for view in reply.epochs for place in view.placements}
        for attempt in placed - self._placed:
            split = self._made.pop(attempt, None)
            if split is not None:
                self._take(split)
        self._placed = placed

    def _take(self, split: int) -> None:
        self._done[split] = None
        self._have += 1
        self.tell()

    def _next_epoch(self) -> None:
        self._finished(self._epoch)
        self._epoch += 1
        self._have = 0
        self._done.clear()
        self._placed.clear()
        self._made.clear()
        self._tally.opened_s = time.monotonic()
        self.tell()
