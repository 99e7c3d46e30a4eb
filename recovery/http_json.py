"""One JSON document posted over HTTP(S) with the standard library, with a hard deadline.

No redirect is followed and no proxy is used, so what is sent goes where the operator said. Plain
http is for this machine only.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import UnavailableError, UsageError

_URLS = "a URL https://HOST/… or http://127.0.0.1:PORT/…"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        secure: whether by https.
        host, port: the server.
        path: with the query, as it is sent; it may hold a secret, as webhooks do.
    """

    secure: bool
    host: str
    port: int
    path: str

    def __repr__(self) -> str:  # a webhook's path is its password
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}/…"


class StatusError(UnavailableError):
    """The server answered with a status that is no success.

    Attributes:
        status: the number.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def parse_endpoint(url: str, name: str) -> Endpoint:
    """What a URL says: https to anywhere, or http to this machine.

    Args:
        url: the URL.
        name: what it is called in an error, such as "--alert-url".

    Raises:
        UsageError: it is neither.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UsageError(f"{name} must be {_URLS}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host or parts.username is not None:
        raise UsageError(f"{name} must be {_URLS}")
    if any(ord(char) <= 32 or ord(char) > 126 for char in url.strip()):
        raise UsageError(f"{name} must have neither blanks nor characters beyond ASCII")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(f"{name} must be https, since {host} is not this machine")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    secure = parts.scheme == "https"
    return Endpoint(secure, host, port or (443 if secure else 80), path)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def post_json(endpoint: Endpoint, document: Any, *, deadline_s: float) -> None:
    """Sends a document; what is answered beside the status does not matter.

    Args:
        endpoint: where to.
        document: what `json.dumps` takes.
        deadline_s: for all of it, name look-up aside: past it the connection is cut.

    Raises:
        StatusError: the status is not 2xx.
        UnavailableError: no answer came in time.
    """
    body = json.dumps(document).encode()
    timeout_s = max(deadline_s, 0.001)
    if endpoint.secure:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    late = threading.Event()

    def cut() -> None:
        late.set()
        if (sock := connection.sock) is not None:
            with contextlib.suppress(OSError):  # it may have been closed just now
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        connection.request("POST", endpoint.path, body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        why = f"no whole answer within {deadline_s:g} s" if late.is_set() else str(error)
        raise UnavailableError(f"{endpoint!r}: {why or type(error).__name__}") from error
    finally:
        timer.cancel()
        connection.close()
    if not 200 <= status < 300:
        raise StatusError(f"{endpoint!r} answered {status}", status)
