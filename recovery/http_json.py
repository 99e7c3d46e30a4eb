"""One JSON request over HTTP(S) with the standard library: a hard deadline, and bounded sizes.

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

REPLY_BYTES_MAX = 1 << 20
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
        retry_after_s: how long it asks to wait; 0 if it does not say.
    """

    def __init__(self, message: str, status: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


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
        raise UsageError(
            f"{name} must be a URL https://HOST/… or http://127.0.0.1:PORT/…"
        ) from None
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


def post_json(
    endpoint: Endpoint, document: Any, *, deadline_s: float, headers: dict[str, str] | None = None
) -> bytes:
    """Sends a document; returns the body of the answer.

    Args:
        endpoint: where to.
        document: what `json.dumps` takes.
        deadline_s: for all of it, name look-up aside: past it the connection is cut.
        headers: more of them.

    Raises:
        StatusError: the status is not 2xx.
        UnavailableError: no answer came in time, or one larger than `REPLY_BYTES_MAX`.
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
        every = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", endpoint.path, body, every)
        return _answer(endpoint, connection)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, UnavailableError):
            raise
        why = f"no whole answer within {deadline_s:g} s" if late.is_set() else str(error)
        raise UnavailableError(f"{endpoint!r}: {why or type(error).__name__}") from error
    finally:
        timer.cancel()
        connection.close()


def _answer(endpoint: Endpoint, connection: http.client.HTTPConnection) -> bytes:
    # Closed at the end of the request in any case; so the response has the socket for itself.
    response = connection.getresponse()
    if not 200 <= response.status < 300:
        after = response.headers.get("Retry-After", "")
        wait_s = float(after) if after.isdecimal() and len(after) < 6 else 0.0
        raise StatusError(f"{endpoint!r} answered {response.status}", response.status, wait_s)
    content = response.read(REPLY_BYTES_MAX + 1)
    if len(content) > REPLY_BYTES_MAX:
        raise UnavailableError(f"{endpoint!r} answered with more than {REPLY_BYTES_MAX} bytes")
    return content
