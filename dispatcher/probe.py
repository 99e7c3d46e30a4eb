"""Asks a worker that a client cannot reach whether it is there: connect, HELLO, WELCOME.

What the answer proves. A refused or reset connection: nobody listens at the address, so the process
that registered there is dead. A WELCOME with another id: another process is there. The right
WELCOME: it is alive, and the way between it and the client is broken. Everything else (no answer in
time, no route, an unknown name, bytes that are not ours, a connection that just ends) proves
nothing, and the heartbeats decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from ..errors import AuthenticationError, ProtocolError, RefusedError
from ..failpoints import failpoint
from ..proto.wire import (
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    UNAUTHENTICATED,
    FrameLimits,
    FrameType,
    encode_frame,
    finish_frame,
    parse_prefix,
)
from ..security.access import OPEN, Access
from ..security.tls_errors import named_error

#: A greeting is short; more is refused before it is allocated.
_LIMITS = FrameLimits(
    header_bytes_max=1 << 13, payload_bytes_max=0, text_bytes_max=1 << 12, items_max=64
)


class Verdict(enum.Enum):
    """What a probe has proven."""

    ALIVE = "alive"
    REFUSED = "refused"
    STRANGER = "stranger"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a probe, and what was seen, for people."""

    verdict: Verdict
    detail: str


async def probe(address: str, worker: str, deadline_s: float, access: Access = OPEN) -> Answer:
    """Asks whether `worker` serves at `address`.

    Args:
        address: `host:port` of its stream server.
        worker: its id.
        deadline_s: how long all of it may take, in seconds.
        access: whom to trust, and what to show.

    Returns:
        What was seen; a failure is an answer, too.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return Answer(Verdict.UNKNOWN, f"{address!r} is not HOST:PORT")
    try:
        failpoint("dispatcher.before_probe")
        asked = greeting(host.strip("[]"), int(port), access=access)
        there = await asyncio.wait_for(asked, deadline_s)
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as error:
        what = "refuses connections" if isinstance(error, ConnectionRefusedError) else "resets them"
        return Answer(Verdict.REFUSED, f"{address} {what}")
    except asyncio.TimeoutError:
        return Answer(Verdict.UNKNOWN, f"{address} did not answer within {deadline_s:g} s")
    except (OSError, OverflowError, EOFError, RefusedError) as error:
        return Answer(Verdict.UNKNOWN, f"{address}: {error}")
    if there == worker:
        return Answer(Verdict.ALIVE, f"{address} answers")
    other = f"worker {there[:80]!r}" if there else "a worker that was not registered yet"
    return Answer(Verdict.STRANGER, f"at {address} there is {other} now")


async def greeting(host: str, port: int, client: str = "dispatcher", access: Access = OPEN) -> str:
    """The id with which the process at the address introduces itself; empty before it has one.

    Args:
        host: name or address, without brackets.
        port: of the stream server.
        client: who asks, for the worker's log.
        access: whom to trust, and what to show.

    Raises:
        AuthenticationError: it does not accept what it was shown, or is not to be trusted.
        OSError: it cannot be reached.
        EOFError: it ended the connection.
        ProtocolError: it does not speak this protocol.
    """
    try:
        reader, writer = await _connect(host, port, access)
    except ssl.SSLError as error:
        raise named_error(error) or error from None
    try:
        hello = {"version": PROTOCOL_VERSION, "job": "", "client": client}
        hello |= {"token": access.token} if access.token else {}
        writer.writelines(encode_frame(FrameType.HELLO, hello))
        await writer.drain()
        prefix = parse_prefix(await reader.readexactly(PREFIX_BYTES), _LIMITS)
        header = await reader.readexactly(prefix.header_bytes)
        frame = finish_frame(prefix, header, memoryview(b""), _LIMITS)
        worker = frame.header.get("worker")
        if frame.type is FrameType.FAIL and frame.header.get("code") == UNAUTHENTICATED:
            raise AuthenticationError(str(frame.header.get("detail")))
        if frame.type is not FrameType.WELCOME or not isinstance(worker, str):
            raise ProtocolError(f"a {frame.type.name} came instead of a greeting")
        return worker
    except ssl.SSLError as error:  # under TLS 1.3 a server's refusal comes after the handshake
        raise named_error(error) or error from None
    finally:
        if access.client is None:
            writer.close()
        else:  # closing would wait for the worker's good-bye
            writer.transport.abort()


async def _connect(
    host: str, port: int, access: Access
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to the first of the host's addresses that does not refuse; raises if all do."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for *_, address in found]
    tls: dict[str, Any] = {}
    if access.client is not None:
        tls = {"ssl": access.client, "server_hostname": host}
    for address in addresses[:-1]:
        with contextlib.suppress(ConnectionRefusedError):
            return await asyncio.open_connection(address, port, **tls)
    return await asyncio.open_connection(addresses[-1], port, **tls)
