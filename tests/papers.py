"""Certificates for tests, right ones and wrong ones in every way."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import AuthenticationError
from penstock.security.access import Access
from penstock.security.settings import Security
from penstock.security.tls_socket import TlsSocket
from penstock.testing.certificates import Authority

DEADLINE_S = 30.0
Pair = tuple[TlsSocket, TlsSocket]


@dataclass(frozen=True)
class Papers:
    """What may be shown to a server that has `good`, and how it is wrong.

    Attributes:
        good: of 127.0.0.1 and localhost.
        anonymous: trusts the same authority, and has no certificate.
        stranger: of another authority, but trusts the right one.
        distrusting: has the right certificate, but trusts another authority.
        expired: has expired.
        elsewhere: of another host.
    """

    good: Security
    anonymous: Security
    stranger: Security
    distrusting: Security
    expired: Security
    elsewhere: Security


def issue(directory: Path) -> Papers:
    """Makes all of them."""
    right, other = Authority(directory), Authority(directory, "other-ca")
    good = right.issue("good", "127.0.0.1", "localhost")
    strange = other.issue("stranger", "127.0.0.1")
    return Papers(
        good=good,
        anonymous=Security(right.ca),
        stranger=Security(right.ca, strange.tls_cert, strange.tls_key),
        distrusting=Security(other.ca, good.tls_cert, good.tls_key),
        expired=right.issue("expired", "127.0.0.1", days=-1),
        elsewhere=right.issue("elsewhere", "elsewhere.example", "127.0.0.2"),
    )


def tls_pair(server: Security, client: Security, host: str = "127.0.0.1") -> Pair:
    """A server's and a client's end, whose handshakes are done; raises what the client's does."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.settimeout(DEADLINE_S)
    context = Access.load(server, serving=True).server
    assert context is not None
    serving = TlsSocket(ours, context, server_side=True)
    failed: list[Exception] = []

    def serve() -> None:
        try:
            serving.handshake(DEADLINE_S)
        except (OSError, AuthenticationError) as error:
            failed.append(error)
            ours.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    shown = Access.load(client).client
    assert shown is not None
    calling = TlsSocket(theirs, shown, server_hostname=host)
    try:
        calling.handshake(DEADLINE_S)
        thread.join()
        if failed:
            calling.recv_into(memoryview(bytearray(1)))  # brings what the server objects to
            raise AssertionError(f"the server alone failed: {failed[0]}")
    except BaseException:
        theirs.close()
        thread.join()
        ours.close()
        raise
    return serving, calling
