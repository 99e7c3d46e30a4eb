"""The control socket of a waiting program: a Unix socket, one line of JSON there, one back.

Theory of operation. The socket lies in the incident's directory, which only its owner can enter; a
connection from a process of another user is refused all the same, and the client refuses a socket
that is not its user's. A line has a limit, and each connection a deadline, so that nobody can make
the program wait or grow. The waiting thread serves the socket itself; there is no other thread.
Sockets are bound and connected to through `/proc/self/fd`, because a path of theirs has at most 107
bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, Any

from ..errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "control.sock"
LINE_BYTES_MAX = 64 << 10
CONNECTION_S = 5.0
_POLL_S_MAX = 3600.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class ControlSocket:
    """Listens in a directory; a context.

    Args:
        directory: of the incident.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._woken, self._waker = socket.socketpair()
        try:
            with _short_path(directory) as short:
                self._listening.bind(f"{short}/{NAME}")
            self._path.chmod(0o600)
            self._listening.listen(4)
        except BaseException:
            self.close()
            raise

    def serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]], deadline_s: float) -> bool:
        """Answers requests until one is accepted for good.

        Args:
            answer: gives the reply to a request; one with a true `done` is the last.
            deadline_s: until when, by the monotonic clock.

        Returns:
            whether one was; False when the time is over or `wake` was called.
        """
        waiting = select.poll()  # `select` knows no descriptor above 1023
        waiting.register(self._listening, select.POLLIN)
        waiting.register(self._woken, select.POLLIN)
        while (left_s := deadline_s - time.monotonic()) > 0:
            # A wait of days is more than some systems accept at once.
            ready = [one for one, _ in waiting.poll(min(left_s, _POLL_S_MAX) * 1000)]
            if self._woken.fileno() in ready:
                return False
            if self._listening.fileno() in ready:
                connection, _ = self._listening.accept()
                with connection:
                    if self._answer(connection, answer):
                        return True
        return False

    def wake(self) -> None:
        """Ends `serve`, from another thread."""
        with contextlib.suppress(OSError):  # the wait is over already
            self._waker.send(b"!")

    def close(self) -> None:
        """Removes the socket. Closing twice is fine."""
        self._path.unlink(missing_ok=True)
        for one in (self._listening, self._woken, self._waker):
            one.close()

    def __enter__(self) -> ControlSocket:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(
        self, connection: socket.socket, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> bool:
        """Answers one connection; what is wrong with it is its own trouble."""
        try:
            if _uid_of(connection) not in (os.getuid(), 0):
                return False
            request = _parsed(_line(connection, time.monotonic() + CONNECTION_S))
            reply = answer(request)
        except RefusedError as error:
            reply = {"error": str(error)}
        except OSError:
            return False
        with contextlib.suppress(OSError):  # who asked has gone; what was accepted stands
            connection.settimeout(CONNECTION_S)
            connection.sendall(json.dumps(reply).encode() + b"\n")
        return bool(reply.get("done"))


def request(
    directory: Path, message: dict[str, Any], timeout_s: float = 2 * CONNECTION_S
) -> dict[str, Any]:
    """Sends a request to the program that waits in an incident; its reply.

    Raises:
        UnavailableError: no program waits there.
        RefusedError: the socket is another user's, or the reply is none.
    """
    path = directory / NAME
    deadline_s = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            seen = path.lstat()
            if seen.st_uid != os.getuid() or not stat.S_ISSOCK(seen.st_mode):
                raise RefusedError(f"{path} is not a socket of yours")
            with _short_path(directory) as short:
                connection.connect(f"{short}/{NAME}")
            connection.sendall(json.dumps(message).encode() + b"\n")
            return _parsed(_line(connection, deadline_s))
        except OSError as error:
            raise UnavailableError(f"no program waits in {directory}: {error}") from error


def is_served(directory: Path) -> bool:
    """Whether a program listens there, now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECTION_S)
        try:
            with _short_path(directory) as short:
                connection.connect(f"{short}/{NAME}")
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _uid_of(connection: socket.socket) -> int:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def _line(connection: socket.socket, deadline_s: float) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no line in time")
        connection.settimeout(left_s)
        part = connection.recv(min(4096, LINE_BYTES_MAX + 1 - len(received)))
        received += part
        if not part:
            raise RefusedError("the connection ended before the line did")
        if len(received) > LINE_BYTES_MAX:
            raise RefusedError(f"a line has at most {LINE_BYTES_MAX} bytes")
    return received


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the line is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError("the line is not a JSON object")
    return value
