"""Connecting to a worker: its Unix socket where that is within reach, else TCP."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..security.access import OPEN, Access
from ..security.tls_socket import TlsSocket

if TYPE_CHECKING:
    from ..security.tls_socket import Stream
    from ..timing import Timing


def connect(address: str, unix_path: str, timing: Timing, access: Access = OPEN) -> Stream:
    """Connects, with `rpc_deadline_s` as the time limit of this and of what follows.

    Whether a path that exists here is the worker's, and not that of another machine or container
    with the same name, shows when the worker says who it is; TCP is tried if nobody listens. A
    Unix socket is never encrypted: its directory is this user's alone, and nothing leaves memory.

    Raises:
        AuthenticationError: the worker's certificate is not trusted, or only one side has TLS.
        OSError: neither worked.
    """
    if unix_path and _is_own_socket(unix_path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timing.rpc_deadline_s)
            sock.connect(unix_path)
        except OSError:
            sock.close()
        else:
            _bound_sends(sock, timing)
            return sock
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timing.rpc_deadline_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock, timing)
    _bound_sends(sock, timing)
    if access.client is None:
        return sock
    tls = TlsSocket(sock, access.client, server_hostname=host.strip("[]"))
    try:
        tls.handshake(timing.rpc_deadline_s)
    except BaseException:
        sock.close()
        raise
    return tls


def _is_own_socket(path: str) -> bool:
    # On a machine where the worker is not, anybody may have made one of that name, for our token.
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()


def _bound_sends(sock: socket.socket, timing: Timing) -> None:
    """Bounds sends alone: receiving may take as long as the worker needs."""
    seconds = int(timing.rpc_deadline_s)
    micros = int((timing.rpc_deadline_s - seconds) * 1e6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, micros))


def _keep_alive(sock: socket.socket, timing: Timing) -> None:
    """Has the kernel find out about a machine that is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        period_s = max(1, int(timing.worker_timeout_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, period_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
