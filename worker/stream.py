"""The listeners that clients connect to: TCP, and a Unix socket for those on this machine."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AddressInUseError, UnavailableError
from ..proto.budget import Budget
from ..security.access import OPEN, Access
from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Desk

logger = logging.getLogger(__name__)

_BACKLOG = 256
_RETRY_S = 0.1
_PREFIX = "worker-"


def host_id() -> str:
    """Names this machine and its network name, alike for all processes that share its sockets."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{boot}/{socket.gethostname()}"


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        AddressInUseError: the address is taken.
        UnavailableError: the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}:{port}: {error}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        # A restarted worker gets its port back while old connections linger; a live listener
        # still excludes us.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"{host}:{port} is taken by another process; --port 0 picks a free port"
            ) from error
        raise UnavailableError(f"cannot listen on {host}:{port}: {error}") from error
    return sock


def listen_unix() -> socket.socket | None:
    """A listening Unix socket in a directory that only this user can enter; None if none can be.

    What processes that died left there is removed.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    directory = Path(base) / f"penstock-{os.getuid()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{directory} is not a directory of this user alone")
        _sweep(directory)
        sock.bind(str(directory / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}.sock"))
        sock.listen(_BACKLOG)
    except OSError as error:  # a path that is too long is one, too
        sock.close()
        logger.warning("no Unix socket: %s; clients on this machine use TCP", error)
        return None
    return sock


def _sweep(directory: Path) -> None:
    """Removes sockets that nobody listens on. Their pid is no proof: it may be of a container."""
    for path in directory.glob(f"{_PREFIX}*.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue


class StreamServer:
    """Accepts clients and gives each connection its two threads.

    Args:
        desk: who decides what is sent: the exchange.
        worker: this worker's id at the moment, for WELCOME.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
        unix: also listen on a Unix socket.
        access: what is demanded of clients.
        hello_deadline_s: how long a client may take to introduce itself.
        slots: bytes that the slots of all clients on this machine may have together.

    Attributes:
        port: the TCP port.
        unix_path: the Unix socket; empty if there is none.

    Raises:
        AddressInUseError: the address is taken.
        UnavailableError: the address cannot be listened on.
    """

    def __init__(
        self,
        desk: Desk,
        worker: Callable[[], str],
        host: str,
        port: int,
        *,
        unix: bool,
        hello_deadline_s: float,
        slots: int = 0,
        access: Access = OPEN,
    ) -> None:
        self._budget = Budget(slots, desk.lent)
        self._desk = desk
        self._worker = worker
        self._hello_deadline_s = hello_deadline_s
        self._access = access
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._accepted = 0
        self._connections: set[Connection] = set()
        tcp = listen_tcp(host, port)
        local = listen_unix() if unix else None
        self.port: int = tcp.getsockname()[1]
        self.unix_path: str = local.getsockname() if local is not None else ""
        self._listeners = [("tcp", tcp)] + ([("unix", local)] if local is not None else [])
        self._threads = [
            threading.Thread(
                target=self._accept_main,
                args=(kind, sock),
                name=f"penstock-accept-{kind}",
                daemon=True,
            )
            for kind, sock in self._listeners
        ]

    def start(self) -> None:
        """Begins to accept."""
        for thread in self._threads:
            thread.start()

    def close(self, deadline_s: float) -> None:
        """Stops listening, ends all connections and waits for their threads, but not for long."""
        end = time.monotonic() + deadline_s
        with self._lock:
            self._closing.set()
            connections = list(self._connections)
        for _, sock in self._listeners:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            sock.close()
        if self.unix_path:
            Path(self.unix_path).unlink(missing_ok=True)
        for connection in connections:
            connection.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        if not all([connection.join(end) for connection in connections]):
            logger.warning("connections did not end within %.1f s", deadline_s)

    def _accept_main(self, kind: str, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if self._closing.is_set():
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    logger.warning("cannot accept a connection: %s", error)
                    # Nothing tells when descriptors are free again; that we end is told.
                    self._closing.wait(_RETRY_S)
                    continue
                logger.exception("the %s listener is broken", kind)
                return
            self._add(sock, f"{kind}-{self._name(address)}")

    def _name(self, address: object) -> str:
        self._accepted += 1
        if isinstance(address, tuple):
            return f"{address[0]}:{address[1]}"
        return str(self._accepted)

    def _add(self, sock: socket.socket, name: str) -> None:
        connection = Connection(
            sock,
            name,
            self._desk,
            self._worker,
            self._access,
            self._hello_deadline_s,
            self._forget,
            self._budget,
        )
        with self._lock:
            if self._closing.is_set():
                sock.close()
                return
            self._connections.add(connection)
        connection.start()

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
