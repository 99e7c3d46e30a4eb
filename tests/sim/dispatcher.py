"""A simulated dispatcher process: the real service, engine, committer and journal, on virtual time,
on a disk that forgets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from penstock.dispatcher.commit import Committer
from penstock.dispatcher.datasets import MemoryBlobs
from penstock.dispatcher.engine import Engine
from penstock.dispatcher.recover import replay
from penstock.dispatcher.seats import Seats
from penstock.dispatcher.service import ControlService
from penstock.dispatcher.snapshot import to_snapshot
from penstock.dispatcher.validate import validate
from penstock.journal import Log
from penstock.testing.disk import Crash, Operation, SimDisk

from .checks import Ledger
from .clock import Process, ProcessLoop
from .failover import SimAskers
from .net import Done, SimRpcError

if TYPE_CHECKING:
    from .world import World

HOST = "dispatcher"
_JOURNAL = Path("/journal")
_CRASH_STATES_MAX = 64


class SimAbortError(grpc.aio.AbortError):
    """A method has ended its call with a status."""

    def __init__(self, error: SimRpcError) -> None:
        super().__init__()
        self.error = error


class SimContext:
    """What a method sees of a call."""

    def peer(self) -> str:
        return "sim"

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any = ()) -> None:
        named = dict(metadata).get("penstock-error", "")
        raise SimAbortError(SimRpcError(code, details, named))


class CheckedEngine(Engine):
    """The engine, whose state is checked after every change."""

    def _apply(self, events: Any) -> None:
        super()._apply(events)
        if events:
            validate(self.state)

    def _current_seats(self, touched: Any) -> Seats:
        seats = super()._current_seats(touched)
        fresh = Seats(self.state, self._facts)
        assert (seats.loads(), seats.free) == (fresh.loads(), fresh.free), "seats are out of date"
        return seats


class SeenLog(Log):
    """The journal, with somebody who writes down what is appended and what is durable."""

    ledger: Ledger

    def append(self, payload: bytes) -> int:
        seq = super().append(payload)
        self.ledger.appended(payload, seq)
        return seq

    def sync(self) -> int:
        durable_seq = super().sync()
        self.ledger.synced(self.durable_seq)
        return durable_seq


class SimDispatcher:
    """One life of the dispatcher.

    Args:
        world: where it lives.
        disk: what the life before left.
        crash_after: the number of changes to the disk after which the process ends; None for never.
    """

    def __init__(self, world: World, disk: SimDisk, crash_after: int | None = None) -> None:
        self.world = world
        self.disk = disk
        self.process = Process(world.clock, HOST)
        self.engine: CheckedEngine | None = None
        self._service: ControlService | None = None
        if crash_after is not None:
            disk.before = _crash_at(len(disk.operations) + crash_after)
        self._loop = ProcessLoop(
            self.process,
            world.rng,
            turn_s=world.setup.turn_s,
            disk_s=world.setup.disk_s,
            on_error=world.broken,
            on_crash=self._crashed,
        )
        self.process.after(world.rng.uniform(0.01, 0.3), self._start)

    def serve(self, method: str, request: Any, reply: Done) -> Callable[[], None]:
        """Begins to answer a call."""
        if self._service is None:
            unavailable = SimRpcError(grpc.StatusCode.UNAVAILABLE, "it does not serve yet")
            reply(None, unavailable)
            return lambda: None
        task = self._loop.create_task(self._serve(method, request, reply))

        def stop() -> None:
            task.cancel()

        return stop

    async def _serve(self, method: str, request: Any, reply: Done) -> None:
        try:
            handle = getattr(self._service, method)
            given = _parts(request) if method == "PutDataset" else request
            answer = await handle(given, SimContext())
        except SimAbortError as abort:
            self.world.trace("dispatcher refuses", method, abort.error)
            reply(None, abort.error)
        except Exception as error:
            self.world.broken(f"the dispatcher's {method} raised {error!r}")
        else:
            self.world.check(self.world.ledger.check_reply, method, request, answer)
            reply(answer, None)

    def crash_disk(self, rng: random.Random, *, power: bool) -> SimDisk:
        """The disk after this life: all that was written, or what a power loss leaves."""
        if not power:
            return self.disk.restarted()
        states = self.disk.crash_states(step_bytes=rng.choice((1, 7, 50, 1000)), zeros=True)
        return rng.choice(list(itertools.islice(states, _CRASH_STATES_MAX)))

    def _start(self) -> None:
        world = self.world
        try:
            log, recovered = SeenLog.open(
                _JOURNAL, disk=self.disk, segment_bytes=world.setup.segment
            )
        except Crash:
            self._crashed()
            return
        state = replay(recovered.snapshot, recovered.records)
        world.check(
            world.ledger.recovered,
            recovered.last_seq,
            recovered.snapshot_seq,
            list(recovered.records),
            state,
        )
        assert isinstance(log, SeenLog)
        log.ledger = world.ledger
        committer = Committer(
            log, self._journal_failed, lambda: to_snapshot(state), world.setup.snapshot_records
        )
        askers = SimAskers(world, self.process)
        self.engine = CheckedEngine(state, committer, world.setup.timing, askers)
        self._loop.create_task(self._open())

    async def _open(self) -> None:
        assert self.engine is not None
        self.engine.start()
        await self.engine.durable()
        self._service = ControlService(self.engine, self.world.blobs)
        self.world.net.server_up()
        self.world.trace("dispatcher serves, term", self.engine.state.term)

    def _journal_failed(self, error: BaseException) -> None:
        self.world.broken(f"the journal failed: {error!r}")

    def _crashed(self) -> None:
        self.world.trace("dispatcher crashed at the disk")
        self.world.dispatcher_crashed(self)


async def _parts(requests: list[Any]) -> Any:
    for request in requests:
        yield request


def _crash_at(index: int) -> Callable[[Operation], None]:
    def before(operation: Operation) -> None:
        if operation.index >= index:
            raise Crash(str(operation))

    return before


def fresh_blobs() -> MemoryBlobs:
    """Where graphs are kept: durable at once."""
    return MemoryBlobs()
