"""The connection to one worker: a thread that connects, reads, checks and reports; and an outbox.

`WorkerLink` runs for as long as its worker is wanted. Frames to the worker are queued under the
session's lock (so that their order is the core's) and sent after it is released by whoever queued
them. They are few and short (at most one for each chunk received), so sending hardly ever blocks;
if the worker does not read for long, the connection counts as broken.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import (
    AuthenticationError,
    ChunkError,
    PenstockError,
    ProtocolError,
    RefusedError,
    VerificationError,
)
from ..failpoints import failpoint
from ..proto import chunk as chunk_codec
from ..proto.hashing import Digest
from ..proto.slots import AVAILABLE, SLOT_BYTES_MIN, is_unix
from ..proto.wire import (
    PROTOCOL_VERSION,
    UNAUTHENTICATED,
    Frame,
    FrameType,
    read_frame,
    send_frame,
)
from ..security.access import OPEN, Access
from .borrowing import Borrower
from .buffers import BufferPool
from .control import Backoff
from .sockets import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.budget import Budget
    from ..proto.chunk import Chunk
    from ..proto.hashing import Hashes
    from ..proto.spec import ComponentSpec
    from ..security.tls_socket import Stream
    from ..timing import Timing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a worker is."""

    worker: str
    address: str
    unix_path: str = ""
    host_id: str = ""


class Listener(Protocol):
    """Who is told what a link hears; called on the link's thread, without any lock held."""

    def link_up(self, link: WorkerLink) -> None: ...
    def link_down(
        self, link: WorkerLink, detail: str, refusal: AuthenticationError | None = None
    ) -> bool: ...
    def specs_of(self, attempt: int) -> Sequence[ComponentSpec] | None: ...
    def chunk_came(self, attempt: int, chunk: Chunk, nbytes: int) -> None: ...
    def hashes_came(self, attempt: int, start: int, hashes: Hashes) -> None: ...
    def end_came(self, attempt: int, digest: Digest) -> None: ...
    def fail_came(self, attempt: int, code: str, detail: str) -> None: ...
    def corrupt_came(self, attempt: int, detail: str) -> None: ...


class _Wire:
    """One connected socket and what waits to be sent on it."""

    def __init__(self, sock: Stream) -> None:
        self.sock = sock
        self.outbox: deque[tuple[FrameType, dict[str, Any]]] = deque()
        self.sending = threading.Lock()

    def flush(self) -> None:
        while self.outbox:
            with self.sending:
                try:
                    type_, header = self.outbox.popleft()
                except IndexError:  # another thread was faster
                    return
                try:
                    failpoint("client.fetch.before_send")
                    send_frame(self.sock, type_, header)
                except (OSError, ProtocolError) as error:
                    logger.debug("sending failed: %s", error)
                    self.outbox.clear()
                    self.shut()
                    return

    def shut(self) -> None:
        """Makes the reader see the end at once."""
        _shut(self.sock)


class WorkerLink:
    """Keeps a connection to a worker, again and again, until it is closed or not wanted.

    Args:
        target: where the worker is.
        job: the job's id, for HELLO.
        client: this client's incarnation, for HELLO.
        listener: is told what comes.
        timing: intervals and deadlines.
        pooled: what it may keep, with other links, of memory to receive into.
        access: whom to trust, and what to show.
    """

    def __init__(
        self,
        target: Target,
        *,
        job: str,
        client: str,
        listener: Listener,
        timing: Timing,
        pooled: Budget,
        access: Access = OPEN,
    ) -> None:
        self.target = target
        self._hello = {"version": PROTOCOL_VERSION, "job": job, "client": client}
        # Of chunks the elements' hashes are checked, so nothing else need vouch for their bytes.
        self._hello |= {"bare": True}
        self._hello |= {"token": access.token} if access.token else {}
        self._access = access
        self._listener = listener
        self._timing = timing
        self._pooled = pooled
        self._was_let_in = False
        self._damaged: tuple[int, object] | None = None
        self._sock: Stream | None = None
        self._wire: _Wire | None = None
        self._closed = threading.Event()
        name = f"penstock-stream-{target.worker}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def queue(self, type_: FrameType, header: dict[str, Any]) -> None:
        """Puts a frame in the outbox, if the link is up; call it under the session's lock."""
        wire = self._wire
        if wire is not None:
            wire.outbox.append((type_, header))

    def flush(self) -> None:
        """Sends what is in the outbox; call it without the session's lock."""
        wire = self._wire
        if wire is not None:
            wire.flush()

    def close(self) -> None:
        """Ends the connection and the thread soon."""
        self._closed.set()
        sock = self._sock
        if sock is not None:  # a worker that hangs may not even have greeted
            _shut(sock)

    def join(self, timeout_s: float) -> bool:
        """Waits until the thread has ended; False if it has not in time."""
        if self._thread.ident is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        backoff = Backoff(self._timing)
        wanted, warned = True, False
        while wanted and not self._closed.is_set():
            refusal = None
            try:
                detail = self._converse(backoff)
            except AuthenticationError as error:
                detail = f"worker {self.target.worker} at {self.target.address}: {error}"
                # Whoever let us in before is gone, and its address is somebody else's now.
                refusal = None if self._was_let_in else AuthenticationError(detail)
                if not warned:
                    logger.warning("%s", detail)
                warned = True
            except (OSError, PenstockError) as error:
                detail = str(error) or type(error).__name__
            except Exception as error:
                logger.exception("the stream of worker %s failed", self.target.worker)
                detail = f"internal error: {error!r}"
            self._sock = self._wire = None
            wanted = self._listener.link_down(self, detail, refusal)
            if wanted:
                logger.debug("worker %s: %s", self.target.worker, detail)
                self._closed.wait(backoff.next_s())

    def _converse(self, backoff: Backoff) -> str:
        """Connects and reads until the connection ends; returns how it did."""
        with connect(
            self.target.address, self.target.unix_path, self._timing, self._access
        ) as sock:
            self._sock = sock
            if self._closed.is_set():  # `close` may have seen no socket to shut
                return "closed"
            borrower = self._shake_hands(sock)
            self._was_let_in = True
            backoff.reset()
            self._wire = _Wire(sock)
            self._listener.link_up(self)
            pool = BufferPool(self._pooled)
            try:
                self._read_all(sock, borrower, pool)
            finally:
                pool.close()
                if borrower is not None:
                    borrower.close()
        return "the worker closed the connection"

    def _read_all(self, sock: Stream, borrower: Borrower | None, pool: BufferPool) -> None:
        """Reads and handles frames until the worker sends no more."""
        recv_into = sock.recv_into if borrower is None else borrower.recv_into
        while (frame := read_frame(recv_into, allocate=pool.allocate, bare=True)) is not None:
            if borrower is not None and frame.type is FrameType.SLOT:
                borrower.learn(frame.header)
                continue
            sent = len(frame.payload)
            if borrower is not None and "slot" in frame.header:
                frame = Frame(frame.type, frame.header, borrower.payload(frame.header))
            self._handle(frame)
            del frame  # else its buffer would not be free before the next one is read
            if borrower is None:
                continue
            if slots := borrower.returnable(wanted=sent >= SLOT_BYTES_MIN):
                self.queue(FrameType.RETURN, {"slots": slots})
                self.flush()

    def _shake_hands(self, sock: Stream) -> Borrower | None:
        """Greets the worker; who keeps the slots that it lends, if it can lend some."""
        failpoint("client.stream.before_hello")
        borrower = Borrower(sock) if AVAILABLE and is_unix(sock) else None
        send_frame(sock, FrameType.HELLO, {**self._hello, "slots": borrower is not None})
        frame = read_frame(sock.recv_into)
        if frame is None:
            raise ProtocolError("the worker closed the connection instead of a greeting")
        if frame.type is FrameType.FAIL:
            if frame.header.get("code") == UNAUTHENTICATED:
                raise AuthenticationError(str(frame.header.get("detail")))
            raise RefusedError(f"{frame.header.get('code')}: {frame.header.get('detail')}")
        if frame.type is not FrameType.WELCOME:
            raise ProtocolError(f"a {frame.type.name} came instead of a greeting")
        worker = frame.header.get("worker")
        if worker != self.target.worker:
            raise RefusedError(f"at {self.target.address} there is worker {worker!r} now")
        sock.settimeout(None)
        return borrower

    def _handle(self, frame: Frame) -> None:
        header = frame.header
        attempt = _integer(header, "attempt")
        if frame.type is FrameType.CHUNK:
            self._handle_chunk(attempt, frame)
        elif frame.type is FrameType.HASHES:
            hashes = np.frombuffer(frame.payload, "<u8") if len(frame.payload) % 8 == 0 else None
            if hashes is None or len(hashes) != _integer(header, "count"):
                raise ProtocolError("HASHES has another length than announced")
            self._listener.hashes_came(attempt, _integer(header, "start"), hashes)
        elif frame.type is FrameType.END:
            count, total, chain = (_integer(header, key) for key in ("count", "total", "chain"))
            self._listener.end_came(attempt, Digest(count, total, chain))
        elif frame.type is FrameType.FAIL:
            code, detail = str(header.get("code")), str(header.get("detail"))
            if attempt == 0:
                raise RefusedError(f"{code}: {detail}")
            self._listener.fail_came(attempt, code, detail)
        else:
            raise ProtocolError(f"a worker does not send {frame.type.name}")

    def _handle_chunk(self, attempt: int, frame: Frame) -> None:
        specs = self._listener.specs_of(attempt)
        if specs is None:
            return  # stale: not worth decoding
        try:
            chunk = chunk_codec.decode(frame.header, frame.payload, specs)
            chunk.verify()
        except (ChunkError, VerificationError) as error:
            self._doubt(attempt, frame, error)
            self._listener.corrupt_came(attempt, str(error))
            return
        failpoint("client.chunk.after_receive")
        self._listener.chunk_came(attempt, chunk, len(frame.payload))

    def _doubt(self, attempt: int, frame: Frame, error: PenstockError) -> None:
        """Has a bare chunk sent again that is wrong for the first time: the way may have done it.

        Raises:
            ProtocolError: it is; the connection has to be made anew, as for a wrong checksum.
        """
        which = attempt, frame.header.get("start")
        if not frame.bare or self._damaged == which:
            return
        self._damaged = which
        raise ProtocolError(f"a CHUNK frame was damaged on its way: {error}") from error


def _shut(sock: Stream) -> None:
    with contextlib.suppress(OSError):  # it is broken already
        sock.shutdown(socket.SHUT_RDWR)


def _integer(header: dict[str, Any], key: str) -> int:
    value = header.get(key)
    if type(value) is not int or value < 0:
        raise ProtocolError(f"{key} must be a number, not {value!r}")
    return value
