"""The thread that keeps a client and its dispatcher in agreement by long polls.

A request says everything the client has; its reply says everything it should have. Without news
the dispatcher holds the request for up to `heartbeat_s`; if the client gets news of its own
meanwhile, it abandons the held call and sends another. A request that carries news is answered at
once and is never abandoned, so a stream of news cannot starve the replies: whatever happens until
the reply goes into the next request together.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from .. import errors
from ..failpoints import failpoint
from ..security.faults import find_fault
from .control import Backoff, error_of, is_transient

if TYPE_CHECKING:
    from ..proto import control_pb2
    from ..timing import Timing
    from .control import Control

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, whether it carries news, and which generation of news that is."""

    request: control_pb2.SyncClientRequest
    urgent: bool
    generation: int


class Peer(Protocol):
    """Whose state is kept in agreement; called on the sync thread only."""

    def sync_request(self) -> Outgoing: ...
    def sync_reply(self, sent: Outgoing, reply: control_pb2.SyncClientReply) -> None: ...
    def sync_failed(self, error: errors.PenstockError) -> None: ...
    def sync_stopped(self) -> None: ...


class SyncLoop:
    """Runs the long polls of one client.

    Args:
        control: whom to call.
        peer: whose state it is.
        timing: intervals and deadlines.
        name: the thread's name.
    """

    def __init__(self, control: Control, peer: Peer, timing: Timing, name: str) -> None:
        self._control = control
        self._peer = peer
        self._timing = timing
        # Re-entrant, because the garbage collector may give an epoch up at any point.
        self._changed = threading.Condition(threading.RLock())
        self._poked = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def poke(self) -> None:
        """There is news for the dispatcher. May be called from anywhere, a finaliser too."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the thread soon; it then calls `sync_stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Waits until the thread has ended; False if it has not in time."""
        if self._thread.ident is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop()
        except errors.PenstockError as error:
            self._peer.sync_failed(error)
        except Exception as error:
            logger.exception("the client's control thread failed")
            self._peer.sync_failed(errors.JobFailedError(f"internal error: {error!r}"))
        finally:
            self._peer.sync_stopped()

    def _loop(self) -> None:
        backoff = Backoff(self._timing)
        answered_at = warned_at = time.monotonic()
        while not self._stopped:
            with self._changed:
                self._poked = False
            sent = self._peer.sync_request()
            address = self._control.address
            try:
                reply = self._exchange(sent)
            except grpc.RpcError as error:
                if not is_transient(error):
                    raise error_of(error, address) from None
                now = time.monotonic()
                if now - max(answered_at, warned_at) > self._timing.warn_after_s:
                    warned_at = now
                    logger.warning(
                        "the dispatcher at %s has not answered for %.0f s (%s); "
                        "what the workers hold goes on to be delivered",
                        address,
                        now - answered_at,
                        find_fault(address, self._control.access) or error.code().name,
                    )
                self._control.rotate()
                self._sleep(backoff.next_s())
                continue
            if reply is not None:
                answered_at = time.monotonic()
                backoff.reset()
                failpoint("client.sync.after_reply")
                self._peer.sync_reply(sent, reply)

    def _exchange(self, sent: Outgoing) -> Any:
        """The reply to a request; None if it was abandoned for a newer one, or the loop ends."""
        timeout_s = sent.request.hold_ms / 1000 + self._control.call_deadline_s
        failpoint("client.sync.before_send")
        future = self._control.stub().SyncClient.future(sent.request, timeout=timeout_s)
        future.add_done_callback(self._wake)
        with self._changed:
            self._changed.wait_for(
                lambda: future.done() or self._stopped or (self._poked and not sent.urgent)
            )
        if not future.done():
            future.cancel()
        return None if future.cancelled() else future.result()

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def _wake(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()
