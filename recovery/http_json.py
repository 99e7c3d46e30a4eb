"""One JSON document posted over HTTP(S) with the standard library, with a hard deadline.

No redirect is followed and no proxy is used, so what is sent goes where the operator said. Plain
http is for this machine only.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        retry_after_s: how long the server asks to wait; None if it says nothing.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
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
        deadline_s: for all of it: past it the connection is cut.

    Raises:
        StatusError: the status is not 2xx.
        UnavailableError: no answer came in time.
    """
    exchange_json(endpoint, document, deadline_s=deadline_s)


def exchange_json(
    endpoint: Endpoint,
    document: Any,
    *,
    deadline_s: float,
    headers: Mapping[str, str] | None = None,
    answer_bytes_max: int = 0,
) -> bytes:
    """Sends a document; returns the body of the answer.

    Args:
        endpoint, document, deadline_s: as for `post_json`.
        headers: more of them, such as Authorization; they are in no error.
        answer_bytes_max: how long an answer may be; 0: it is not read.

    Raises:
        StatusError: the status is not 2xx; a redirect's is not.
        UnavailableError: no whole answer came in time, or it is longer.
    """
    body = json.dumps(document).encode()
    every = {"Content-Type": "application/json", **(headers or {})}
    ends_s = time.monotonic() + max(deadline_s, 0.001)
    kind = http.client.HTTPSConnection if endpoint.secure else http.client.HTTPConnection
    connection = kind(endpoint.host, endpoint.port)
    answer = b""
    try:
        with _cut_at(ends_s) as opened:
            connection.sock = _connected(endpoint, ends_s, opened)
            connection.request("POST", endpoint.path, body, every)
            with contextlib.closing(connection.getresponse()) as response:
                if answer_bytes_max and 200 <= response.status < 300:
                    answer = response.read(answer_bytes_max + 1)
                    if time.monotonic() >= ends_s:  # a body that was cut may look whole
                        raise TimeoutError
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        late = time.monotonic() >= ends_s
        why = f"no whole answer within {deadline_s:g} s" if late else str(error)
        raise UnavailableError(f"{endpoint!r}: {why or type(error).__name__}") from error
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        pause_s = _seconds(response.getheader("Retry-After"))
        raise StatusError(f"{endpoint!r} answered {response.status}", response.status, pause_s)
    if len(answer) > answer_bytes_max:
        raise UnavailableError(f"{endpoint!r} answered more than {answer_bytes_max} bytes")
    return answer


def _seconds(text: str | None) -> float | None:
    """What Retry-After says; None where it is missing or a date."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 8 else None


@contextlib.contextmanager
def _cut_at(ends_s: float) -> Iterator[list[socket.socket]]:
    """Shuts the newest socket of the list at that time: a timeout of its own bounds one read."""
    opened: list[socket.socket] = []

    def cut() -> None:
        for sock in opened[-1:]:
            with contextlib.suppress(OSError):  # it may have been closed just now
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS says no goodbye here

    timer = threading.Timer(max(ends_s - time.monotonic(), 0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield opened
    finally:
        timer.cancel()


def _connected(endpoint: Endpoint, ends_s: float, opened: list[socket.socket]) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, TLS included."""
    failed: OSError = ConnectionError("the host has no address")
    for family, kind, protocol, _, address in _addresses(endpoint, ends_s):
        sock = socket.socket(family, kind, protocol)
        opened.append(sock)
        try:
            sock.settimeout(max(ends_s - time.monotonic(), 0.001))
            sock.connect(address)
            if endpoint.secure:
                secure = ssl.create_default_context().wrap_socket(
                    sock, server_hostname=endpoint.host, do_handshake_on_connect=False
                )
                opened.append(secure)
                sock = secure
                secure.do_handshake()
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    raise failed


def _addresses(endpoint: Endpoint, ends_s: float) -> list[Any]:
    """What `getaddrinfo` says, asked in a thread, since a look-up cannot be interrupted."""
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = found.get(timeout=max(ends_s - time.monotonic(), 0.001))
    except queue.Empty:
        raise TimeoutError("its name was not looked up in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
