"""The long polls of a simulated client, by the rules of `client/sync.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.client.control import Backoff, error_of, is_transient

from .dispatcher import HOST
from .net import Call, SimRpcError

if TYPE_CHECKING:
    from penstock.client.engine import Engine

    from .client import SimTrainer


class SimSync:
    """The long polls of a client; see `SyncLoop`."""

    def __init__(self, trainer: SimTrainer, engine: Engine) -> None:
        self._trainer = trainer
        self._engine = engine
        self._world = trainer.world
        self._timing = trainer.world.setup.timing
        self._backoff = Backoff(self._timing)
        self._call: Call | None = None
        self._urgent = False
        self._stopped = False

    def start(self) -> None:
        self._trainer.process.after(0, self._next)

    def poke(self) -> None:
        if self._call is not None and not self._urgent:
            self._call.cancel()
            self._call = None
            self._trainer.process.after(0, self._next)

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            if self._call is not None:
                self._call.cancel()
            self._trainer.process.after(0, self._engine.sync_stopped)

    def join(self, timeout_s: float) -> bool:
        return True

    def _next(self) -> None:
        if self._stopped or self._call is not None:
            return
        sent = self._engine.sync_request()
        self._urgent = sent.urgent
        timeout_s = sent.request.hold_ms / 1000 + self._timing.rpc_deadline_s

        def done(reply: Any, error: SimRpcError | None) -> None:
            if self._call is call:
                self._call = None
                self._answered(sent, reply, error)

        call = self._call = self._world.net.call(
            self._trainer.process, HOST, "SyncClient", sent.request, timeout_s, done
        )

    def _answered(self, sent: Any, reply: Any, error: SimRpcError | None) -> None:
        if error is None:
            self._backoff.reset()
            self._engine.sync_reply(sent, reply)
            self._trainer.process.after(0, self._next)
        elif is_transient(error):
            self._trainer.process.after(self._backoff.next_s(), self._next)
        else:
            self._engine.sync_failed(error_of(error, HOST))
            self.stop()
        self._trainer.look()
