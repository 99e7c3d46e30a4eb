"""`TlsSocket`: TLS for a data stream, which is read and written by two threads at the same time.

Theory of operation. Two threads may not be inside one OpenSSL connection at once, and those of a
data stream would be with Python's `ssl.SSLSocket`. So the connection stands between two buffers
in memory, and is only entered under a lock, where nothing waits. All waiting is done by the plain
socket outside of it; its timeouts therefore mean what they always do. Sealed bytes leave in the
order in which they were made, because whoever makes them holds the lock of sending until they are
gone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from .tls_errors import named_error

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes that are sealed at a time. For more than 100 KiB or so, memory is asked of the kernel anew.
_SEAL_BYTES = 64 << 10
#: Sealed bytes that are received at a time.
_RECEIVE_BYTES = 256 << 10
#: The first byte of a client's first record; a frame begins with a letter.
_HANDSHAKE = b"\x16"


class TlsSocket:
    """A blocking socket with TLS; one thread may receive while others send.

    Args:
        sock: connected and blocking; closed with this one.
        context: of a client or a server.
        server_side: whether this is the server.
        server_hostname: whose certificate a client expects.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # Any: what the type stubs say of a buffer to read into is narrower than what it takes.
        self._tls: Any = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._inside = threading.Lock()
        self._sending = threading.Lock()
        self._received = memoryview(bytearray(_RECEIVE_BYTES))

    def handshake(self, deadline_s: float) -> None:
        """Agrees on keys and verifies certificates; leaves the socket's timeout at `deadline_s`.

        Args:
            deadline_s: how long all of it may take, in seconds.

        Raises:
            AuthenticationError: one side does not accept the other's certificate, or has no TLS.
            OSError: the connection broke, or it took too long (`TimeoutError`).
        """
        end_s = time.monotonic() + deadline_s
        done = False
        while not done:
            try:
                with self._inside:
                    self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._flush()  # says why, as an alert
                raise named_error(error) or error from None
            self._sock.settimeout(max(0.001, end_s - time.monotonic()))
            self._flush()
            if not done:
                self._fill()
        self._sock.settimeout(deadline_s)

    def recv_into(self, buffer: memoryview) -> int:
        """Fills a buffer at least in part; returns how much, 0 at the end of the stream.

        Raises:
            AuthenticationError: the server does not accept this side's certificate.
            OSError: from the socket.
        """
        while True:
            try:
                with self._inside:
                    return int(self._tls.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0  # the frames within say whether anything is missing
            except ssl.SSLError as error:
                raise named_error(error) or error from None
            self._flush()
            self._fill()

    def sendall(self, data: bytes | memoryview) -> None:
        """Sends all bytes.

        Raises:
            OSError: from the socket; the stream is then of no more use.
        """
        view = memoryview(data)
        with self._sending:
            for at in range(0, len(view), _SEAL_BYTES):
                with self._inside:
                    self._tls.write(view[at : at + _SEAL_BYTES])
                    sealed = self._outgoing.read()
                self._sock.sendall(sealed)

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> NoReturn:
        """Cannot be done, which tells `proto.sending` to join small buffers and send one a time."""
        raise NotImplementedError  # as `ssl.SSLSocket` does

    def settimeout(self, seconds: float | None) -> None:
        """Bounds how long the plain socket waits."""
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        """Ends the plain socket in one or both directions, which wakes whoever waits for it."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Closes the plain socket."""
        self._sock.close()

    def __enter__(self) -> TlsSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self) -> None:
        """Waits for sealed bytes."""
        got = self._sock.recv_into(self._received)
        with self._inside:
            if got:
                self._incoming.write(self._received[:got])
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        """Sends what TLS itself has to say."""
        with self._inside:  # else it might be what a sender is sealing: its receiver would wait
            pending = self._outgoing.pending
        if pending:
            with self._sending:
                with self._inside:
                    sealed = self._outgoing.read()
                self._sock.sendall(sealed)


#: What a data stream runs over.
Stream = socket.socket | TlsSocket


def begins_with_tls(sock: socket.socket, deadline_s: float) -> bool:
    """Whether the first byte that a client sends, or its end, is not something else than TLS.

    Raises:
        OSError: the connection broke, or nothing came in time (`TimeoutError`).
    """
    sock.settimeout(deadline_s)
    return sock.recv(1, socket.MSG_PEEK) in (_HANDSHAKE, b"")
