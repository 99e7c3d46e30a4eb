"""Why a dispatcher cannot be talked to, where gRPC says only "unavailable".

gRPC tries a handshake that fails for ever, and tells nobody the reason. So whoever gets no answer
at its start has `Suspicion` make one connection by hand and look.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from ..errors import AuthenticationError
from .settings import VARIABLES
from .tls_errors import NoTlsError
from .tls_socket import TlsSocket

if TYPE_CHECKING:
    from .access import Access

_CA, _CERT, _KEY = VARIABLES[:3]
#: A server that does not answer in this time is slow or paused, which is another story.
_DEADLINE_S = 2.0
#: A server that ends while it is asked closes a connection once.
_TRIES = 2


class Suspicion:
    """Whether it is for want of a certificate that none of a service's addresses answers.

    Args:
        access: what this process shows, and whom it trusts.
        addresses: how many addresses of dispatchers there are: only one of them need answer.
    """

    def __init__(self, access: Access, addresses: int) -> None:
        self._access = access
        self._addresses = addresses
        self._found: dict[str, AuthenticationError | None] = {}

    def find(self, address: str) -> AuthenticationError | None:
        """An address has not answered.

        Returns:
            The error to end with, once every address has been tried and one would never answer.
        """
        self._found[address] = find_fault(address, self._access)
        if len(self._found) < self._addresses:
            return None
        return next((fault for fault in self._found.values() if fault is not None), None)

    def check(self, address: str) -> None:
        """The same, and raises that error."""
        fault = self.find(address)
        if fault is not None:
            raise fault


def find_fault(address: str, access: Access) -> AuthenticationError | None:
    """What is wrong between this process and a dispatcher that would not go away by waiting.

    Args:
        address: `host:port` of the dispatcher.
        access: what this process shows, and whom it trusts.

    Returns:
        An error that says what to do; None if nothing is wrong, or nobody answers at all.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    fault: AuthenticationError | None = None
    for _ in range(_TRIES):
        fault = None
        with (
            contextlib.suppress(OSError, OverflowError),
            socket.create_connection((host, int(port)), _DEADLINE_S) as sock,
        ):
            fault = _look(sock, host, access)
        if fault is None:
            return None
    return AuthenticationError(f"dispatcher {address}: {fault}")


def _look(sock: socket.socket, host: str, access: Access) -> AuthenticationError | None:
    if access.client is None:
        if not _speaks_tls(sock, host):
            return None
        return AuthenticationError(
            f"it speaks TLS only: give the file of its authority by {_CA} or penstock.Security"
        )
    assert access.control is not None
    tls = TlsSocket(sock, access.control, server_hostname=host)
    try:
        tls.handshake(_DEADLINE_S)
        came = tls.recv_into(memoryview(bytearray(16)))
    except AuthenticationError as error:
        return error
    if came:
        return None
    return AuthenticationError(
        f"TLS: it hangs up on this side, as a server does that demands another certificate"
        f" than this side shows ({_CERT}, {_KEY}); its log says more"
    )


def _speaks_tls(sock: socket.socket, host: str) -> bool:
    """Whether a server answers a handshake, whatever it says to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        TlsSocket(sock, context, server_hostname=host).handshake(_DEADLINE_S)
    except NoTlsError:
        return False
    except AuthenticationError:  # it may object to what it is shown; TLS it is
        return True
    return True
