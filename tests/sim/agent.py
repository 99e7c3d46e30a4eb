"""A simulated worker's agent: registers it and keeps the long poll going, by the rules of
`worker/agent.py`, as events instead of a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import FollowedError
from penstock.proto import control_pb2
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.worker.agent import INCARNATIONS_MAX
from penstock.worker.link import Backoff, final_error
from penstock.worker.messages import Key
from penstock.worker.requests import assignment_of, held_message

from .dispatcher import HOST
from .gossip import Gossip, key_of
from .net import Call, SimRpcError

if TYPE_CHECKING:
    from .worker import SimWorker


class SimAgent:
    """Registers the worker and keeps the long poll going; see `worker/agent.py`."""

    def __init__(self, worker: SimWorker) -> None:
        self._worker = worker
        self._world = worker.world
        self._timing = worker.world.setup.timing
        self._backoff = Backoff(self._timing, lambda: worker.world.clock.now_s)
        self._registered = False
        self._incarnations = 1
        self._version = 0
        self._term = 0
        self._hold_ms = int(self._timing.heartbeat_s * 1000)
        self._news = False
        self._call: Call | None = None
        self._held_call = False
        self._offered: list[tuple[Key, int]] = []
        keys = [key_of(pipeline.fingerprint) for pipeline in worker.world.setup.pipelines]
        self._gossip = Gossip(worker.incarnation, keys)

    def report(self) -> None:
        """There is news: a held call is given up for it."""
        self._news = True
        if self._call is not None and self._held_call:
            self._call.cancel()
            self._call = None
            self._worker.process.after(0, self.step)

    def leave(self) -> None:
        """Says good-bye; the process ends at the answer, or when there is none in time."""
        if self._call is not None:
            self._call.cancel()
        request = control_pb2.SyncWorkerRequest(
            worker=self._worker.worker,
            incarnation=self._worker.incarnation,
            term=self._term,
            leaving=True,
        )
        process = self._worker.process
        self._world.net.call(
            process, HOST, "SyncWorker", request, 1.0, lambda reply, error: process.kill()
        )

    def step(self) -> None:
        """One call; what follows from it begins the next."""
        if self._call is not None:
            return
        if self._registered:
            self._sync()
        else:
            self._register()

    def _register(self) -> None:
        self._offered = self._worker.checkpoints.offered()
        request = control_pb2.RegisterWorkerRequest(
            protocol_version=PROTOCOL_VERSION,
            incarnation=self._worker.incarnation,
            address=self._worker.host,
            slots=self._worker.slots,
            standby=self._worker.standby,
            checkpoints=[
                control_pb2.Checkpoint(
                    dataset=key.dataset,
                    seed=key.seed,
                    epoch=key.epoch,
                    split=key.split,
                    elements=elements,
                )
                for key, elements in self._offered
            ],
        )
        self._gossip.introduce(request)
        self._send("RegisterWorker", request, self._timing.rpc_deadline_s, held=False)

    def _sync(self) -> None:
        news, self._news = self._news, False
        hold_ms = 0 if news else self._hold_ms
        request = control_pb2.SyncWorkerRequest(
            worker=self._worker.worker,
            incarnation=self._worker.incarnation,
            term=self._term,
            seen_version=self._version,
            hold_ms=hold_ms,
            held=map(held_message, self._worker.held()),
            probed=self._worker.probes.results(),
        )
        self._gossip.tell(request)
        timeout_s = hold_ms / 1000 + self._timing.rpc_deadline_s
        self._send("SyncWorker", request, timeout_s, held=hold_ms > 0)

    def _send(self, method: str, request: Any, timeout_s: float, *, held: bool) -> None:
        self._held_call = held

        def done(reply: Any, error: SimRpcError | None) -> None:
            if self._call is call:
                self._call = None
                self._answered(method, request, reply, error)

        call = self._call = self._world.net.call(
            self._worker.process, HOST, method, request, timeout_s, done
        )

    def _answered(self, method: str, request: Any, reply: Any, error: SimRpcError | None) -> None:
        if error is not None or reply.term < self._term:
            if method == "SyncWorker":
                self._news = self._news or request.hold_ms == 0  # it may not have arrived
            refused = final_error(error) if error is not None else None
            if isinstance(refused, FollowedError) and self._incarnations < INCARNATIONS_MAX:
                self._incarnations += 1
                self._worker.be_reborn()
                refused = None
            if refused is not None and not self._registered:
                self._worker.refused = refused
                self._worker.process.kill()
                return
            pause_s, _ = self._backoff.failed()
            self._worker.process.after(pause_s, self.step)
            return
        self._term = reply.term
        self._backoff.reset()
        if method == "RegisterWorker":
            self._worker.worker = reply.worker
            self._registered, self._version = True, 0
            for place, (key, _) in enumerate(self._offered):
                if place not in reply.wanted:
                    self._worker.checkpoints.forget(key)
            self._hold_ms = reply.heartbeat_ms or self._hold_ms
        else:
            self._apply(reply)
        self._worker.process.after(0, self.step)

    def _apply(self, reply: Any) -> None:
        self._version = reply.version
        if not reply.registered:
            self._registered = False
            self._worker.drop_all()
            self._worker.probes.set_wanted(())
            return
        self._worker.set_desired(list(map(assignment_of, reply.attempts)))
        self._worker.probes.set_wanted(map(assignment_of, reply.probes))
