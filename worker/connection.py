"""One client's connection: a thread that reads its wishes and one that sends what it is due."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AuthenticationError, ProtocolError
from ..failpoints import failpoint
from ..proto.slots import AVAILABLE, SLOTS_MAX, is_unix
from ..proto.wire import (
    PROTOCOL_VERSION,
    UNAUTHENTICATED,
    Frame,
    FrameLimits,
    FrameType,
    encode_head,
    read_frame,
    send_frame,
)
from ..security.tls_socket import TlsSocket, begins_with_tls
from .lending import Lender
from .messages import Send, SendChunk, SendEnd, SendFail, SendHashes, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..proto.budget import Budget
    from ..security.access import Access
    from ..security.tls_socket import Stream

logger = logging.getLogger(__name__)

#: A client only says short things; more is refused before it is allocated.
CLIENT_LIMITS = FrameLimits(
    header_bytes_max=1 << 14, payload_bytes_max=0, text_bytes_max=1 << 12, items_max=SLOTS_MAX
)
_U63_MAX = (1 << 63) - 1
_BUFFER_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_SHORTER = "a segment became shorter while it was sent"
_TLS_ONLY = (
    "this worker speaks TLS only: give the file of its authority by PENSTOCK_TLS_CA or"
    " penstock.Security"
)


class Desk(Protocol):
    """What a connection needs of the exchange."""

    def open(self) -> int:
        """A number for a new connection."""

    def close(self, connection: int) -> None:
        """The connection is gone."""

    def fetch(self, connection: int, attempt: int, first: int, credit: int, verify: bool) -> None:
        """FETCH."""

    def credit(self, connection: int, attempt: int, received: int, credit: int) -> None:
        """CREDIT."""

    def release(self, connection: int, attempt: int) -> None:
        """RELEASE."""

    def lent(self, nbytes: int) -> None:
        """Clients share so much more memory, less if negative."""

    def next_send(self, connection: int) -> Send | None:
        """Waits for the next frame to send; None once the connection is closed."""


class Connection:
    """A connection from its acceptance to its end.

    Args:
        sock: blocking; closed in the end.
        desk: who decides what is sent.
        worker: this worker's id, for WELCOME.
        access: what is demanded of the client.
        hello_deadline_s: how long the client may take for its HELLO, and a farewell to be sent.
        on_end: called once when the connection is over.
        budget: of slots, for a client on this machine that can do with them.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        desk: Desk,
        worker: Callable[[], str],
        access: Access,
        hello_deadline_s: float,
        on_end: Callable[[Connection], None],
        budget: Budget,
    ) -> None:
        self._sock: Stream = sock
        self._name = name
        self._desk = desk
        self._worker = worker
        self._access = access
        self._hello_deadline_s = hello_deadline_s
        self._on_end = on_end
        self._budget = budget
        self._lender: Lender | None = None
        self._bare = False
        self._number = 0
        self._reader = threading.Thread(
            target=self._read_main, name=f"penstock-read-{name}", daemon=True
        )
        self._sender = threading.Thread(
            target=self._send_main, name=f"penstock-send-{name}", daemon=True
        )

    def start(self) -> None:
        """Begins to serve."""
        self._reader.start()

    def close(self) -> None:
        """Ends the connection; both threads end soon, whatever they wait for."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def join(self, end: float) -> bool:
        """Waits for the threads until `end` (monotonic); whether they have ended."""
        self._reader.join(max(0.0, end - time.monotonic()))
        return not self._reader.is_alive()

    def _read_main(self) -> None:
        try:
            with self._sock:
                self._serve()
        except OSError as error:
            logger.info("connection %s: broken: %s", self._name, error)
        except Exception:
            logger.exception("connection %s: closed", self._name)
        finally:
            if self._lender is not None:
                self._lender.close()
            self._on_end(self)

    def _serve(self) -> None:
        if not self._is_secured():
            return
        try:
            self._read_hello()
        except (ProtocolError, AuthenticationError) as error:
            refused = isinstance(error, AuthenticationError)
            self._say_farewell(str(error), UNAUTHENTICATED if refused else "PROTOCOL")
            return
        # Before the client can open another one: a higher number is a newer connection.
        self._number = self._desk.open()
        farewell = ""
        try:
            self._send_welcome()
            self._sender.start()
            while (frame := read_frame(self._sock.recv_into, CLIENT_LIMITS)) is not None:
                self._handle(frame)
        except ProtocolError as error:
            farewell = str(error)
        finally:
            self._desk.close(self._number)
            if not farewell:
                self.close()  # the sender may be blocked in a send
            self._join_sender(self._hello_deadline_s)
        if farewell and not self._sender.is_alive():  # else it is in the middle of a frame
            self._say_farewell(farewell)
        self.close()
        self._join_sender()

    def _is_secured(self) -> bool:
        """Shakes hands for TLS, where that is demanded; whether the client may go on."""
        sock = self._sock
        assert isinstance(sock, socket.socket)
        tune(sock)
        if self._access.server is None or sock.family == socket.AF_UNIX:
            return True
        if not begins_with_tls(sock, self._hello_deadline_s):
            self._say_farewell(_TLS_ONLY, UNAUTHENTICATED)
            return False
        tls = TlsSocket(sock, self._access.server, server_side=True)
        try:
            tls.handshake(self._hello_deadline_s)
        except (AuthenticationError, ssl.SSLError) as error:
            logger.warning("connection %s: refused: %s", self._name, error)
            self._hang_up()
            return False
        self._sock = tls
        return True

    def _join_sender(self, timeout_s: float | None = None) -> None:
        if self._sender.ident is not None:  # else the client was gone before its welcome
            self._sender.join(timeout_s)

    def _read_hello(self) -> None:
        self._sock.settimeout(self._hello_deadline_s)
        try:
            frame = read_frame(self._sock.recv_into, CLIENT_LIMITS)
        except TimeoutError:
            raise ProtocolError(f"no HELLO within {self._hello_deadline_s:g} s") from None
        self._sock.settimeout(None)
        if frame is None:
            raise ProtocolError("the stream ended before its HELLO")
        if frame.type is not FrameType.HELLO:
            raise ProtocolError(f"the first frame is a {frame.type.name}, not a HELLO")
        version = frame.header.get("version")
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"the client speaks version {version!r:.20} of the data protocol, this worker"
                f" {PROTOCOL_VERSION}: run the same release of penstock on both"
            )
        if not self._access.accepts(frame.header.get("token")):
            shown = "the client's is wrong" if "token" in frame.header else "the client shows none"
            raise AuthenticationError(
                f"this worker demands a token, and {shown}: give the file of the cluster's token by"
                " PENSTOCK_TOKEN_FILE or penstock.Security"
            )
        if AVAILABLE and is_unix(self._sock) and frame.header.get("slots") is True:
            self._lender = Lender(self._sock, self._budget)
        self._bare = frame.header.get("bare") is True
        job, client = (str(frame.header.get(key, "?"))[:80] for key in ("job", "client"))
        # One that only asks whether we are there names no job, and may ask every few seconds.
        level = logging.INFO if job else logging.DEBUG
        logger.log(level, "connection %s: client %s of job %s", self._name, client, job)

    def _send_welcome(self) -> None:
        welcome = {"version": PROTOCOL_VERSION, "worker": self._worker()}
        failpoint("worker.stream.before_welcome")
        send_frame(self._sock, FrameType.WELCOME, welcome)

    def _handle(self, frame: Frame) -> None:
        header = frame.header
        if frame.type is FrameType.RETURN:
            self._take_back(header)
            return
        attempt = _natural(header, "attempt", frame.type)
        if frame.type is FrameType.FETCH:
            first = _natural(header, "from", frame.type)
            credit = _natural(header, "credit", frame.type)
            verify = header.get("verify", False)
            if not isinstance(verify, bool):
                raise ProtocolError(f"verify of a FETCH frame is not a bool: {verify!r:.40}")
            self._desk.fetch(self._number, attempt, first, credit, verify)
        elif frame.type is FrameType.CREDIT:
            received = _natural(header, "received", frame.type)
            credit = _natural(header, "credit", frame.type)
            self._desk.credit(self._number, attempt, received, credit)
        elif frame.type is FrameType.RELEASE:
            self._desk.release(self._number, attempt)
        else:
            raise ProtocolError(f"a client does not send {frame.type.name} frames")

    def _take_back(self, header: dict[str, Any]) -> None:
        ids = header.get("slots")
        if not isinstance(ids, list) or self._lender is None:
            raise ProtocolError(f"slots of a RETURN frame are none: {ids!r:.40}")
        if not all(type(number) is int for number in ids) or not self._lender.returned(ids):
            raise ProtocolError(f"a RETURN frame has slots that were not lent: {ids!r:.40}")

    def _send_main(self) -> None:
        try:
            while (send := self._desk.next_send(self._number)) is not None:
                failpoint("worker.stream.before_send")
                self._send(send)
                failpoint("worker.stream.after_send")
        except OSError as error:
            logger.info("connection %s: broken: %s", self._name, error)
            self.close()  # wakes the reader
        except Exception:
            logger.exception("connection %s: closed", self._name)
            self.close()

    def _send(self, send: Send) -> None:
        piece = send.piece if isinstance(send, SendChunk) else None
        if piece is not None and self._lender is not None and self._lender.send(piece):
            return
        if piece is not None and piece.stored is not None:
            send_stored(self._sock, piece.header, piece.stored, bare=self._bare)
            return
        type_, header, buffers = frame_of(send)
        send_frame(self._sock, type_, header, buffers, bare=self._bare and piece is not None)

    def _say_farewell(self, detail: str, code: str = "PROTOCOL") -> None:
        """Tells the client why; it need not listen."""
        logger.warning("connection %s: refused: %s", self._name, detail)
        fail = {"attempt": 0, "code": code, "detail": detail}
        with contextlib.suppress(OSError):
            self._sock.settimeout(self._hello_deadline_s)
            send_frame(self._sock, FrameType.FAIL, fail)
        self._hang_up()

    def _hang_up(self) -> None:
        """Lets the client read what was said last."""
        with contextlib.suppress(OSError, AuthenticationError):
            # Closing with unread bytes would reset the connection and the text be lost.
            self._sock.shutdown(socket.SHUT_WR)
            for _ in self._drain():
                pass

    def _drain(self) -> Iterator[int]:
        """Reads what a refused client still sends, up to a bound."""
        end = time.monotonic() + self._hello_deadline_s
        scratch = memoryview(bytearray(1 << 16))
        left = 1 << 24
        while left > 0 and time.monotonic() < end and (got := self._sock.recv_into(scratch)):
            left -= got
            yield got


def frame_of(send: Send) -> tuple[FrameType, dict[str, Any], Sequence[bytes | memoryview]]:
    """The frame that carries a send: type, header and payload."""
    match send:
        case SendChunk(_, _, piece):
            return FrameType.CHUNK, piece.header, piece.buffers
        case SendHashes(_, attempt, start, hashes):
            header = {"attempt": attempt, "start": start, "count": len(hashes)}
            return FrameType.HASHES, header, [hashes.astype("<u8", copy=False).tobytes()]
        case SendEnd(_, attempt, digest):
            header = {
                "attempt": attempt,
                "count": digest.count,
                "total": digest.total,
                "chain": digest.chain,
            }
            return FrameType.END, header, []
        case SendFail(_, attempt, code, detail):
            return FrameType.FAIL, {"attempt": attempt, "code": code, "detail": detail}, []


def send_stored(
    sock: Stream, header: dict[str, Any], stored: Stored, *, bare: bool = False
) -> None:
    """Sends a CHUNK frame whose payload goes from its file to the socket inside the kernel.

    With TLS the kernel cannot do it, and the payload is read to be encrypted.

    Raises:
        OSError: from the socket or the file; also if the file has become shorter.
    """
    digest = None if bare else stored.digest
    head = encode_head(FrameType.CHUNK, header, stored.nbytes, digest)
    if isinstance(sock, TlsSocket):
        sock.sendall(b"".join(head))
        for piece in _read_stored(stored):
            sock.sendall(piece)
        return
    for part in head:
        sock.sendall(part, socket.MSG_MORE if stored.nbytes else 0)
    at, end = stored.offset, stored.offset + stored.nbytes
    while at < end:
        sent = os.sendfile(sock.fileno(), stored.descriptor, at, end - at)
        if not sent:
            raise OSError(errno.EIO, _SHORTER)
        at += sent


def _read_stored(stored: Stored) -> Iterator[memoryview]:
    """A stored payload, part by part in the same memory."""
    buffer = memoryview(bytearray(min(_READ_BYTES, stored.nbytes)))
    at, end = stored.offset, stored.offset + stored.nbytes
    while at < end:
        got = os.preadv(stored.descriptor, [buffer[: end - at]], at)
        if not got:
            raise OSError(errno.EIO, _SHORTER)
        yield buffer[:got]
        at += got


def tune(sock: socket.socket) -> None:
    """Settings of a data connection: no delay, large buffers, a dead peer is noticed."""
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A machine that vanished sends no reset: give up after about half a minute of silence.
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _natural(header: dict[str, Any], key: str, type_: FrameType) -> int:
    value = header.get(key)
    if type(value) is not int or not 0 <= value <= _U63_MAX:
        raise ProtocolError(f"{key} of a {type_.name} frame is not a number >= 0: {value!r:.40}")
    return value
