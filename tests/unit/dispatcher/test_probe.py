"""Probes against real sockets: what each kind of answer proves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from penstock.dispatcher.probe import Answer, Verdict, probe
from penstock.proto.wire import (
    PROTOCOL_VERSION,
    FrameType,
    encode_frame,
    finish_frame,
    parse_prefix,
)

from .cluster import run

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Somebody at an address who does that with every connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def welcoming(worker: object) -> Handler:
    """A worker that introduces itself by that id."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        prefix = parse_prefix(await reader.readexactly(32))
        header = await reader.readexactly(prefix.header_bytes)
        hello = finish_frame(prefix, header, memoryview(b""))
        assert hello.type is FrameType.HELLO
        assert hello.header["version"] == PROTOCOL_VERSION
        welcome = {"version": PROTOCOL_VERSION, "worker": worker}
        writer.writelines(encode_frame(FrameType.WELCOME, welcome))
        await writer.drain()

    return greet


async def asked(handler: Handler, deadline_s: float = 20.0) -> Answer:
    async with listening(handler) as address:
        return await probe(address, "w1", deadline_s)


def test_the_right_worker_is_alive_and_another_one_is_a_stranger() -> None:
    async def test() -> None:
        assert (await asked(welcoming("w1"))).verdict is Verdict.ALIVE
        other = await asked(welcoming("w2"))
        assert other.verdict is Verdict.STRANGER
        assert "'w2'" in other.detail
        unnamed = await asked(welcoming(""))
        assert unnamed.verdict is Verdict.STRANGER
        assert "not registered yet" in unnamed.detail

    run(test())


def test_an_address_where_nobody_listens_refuses() -> None:
    async def test() -> None:
        port = free_port()
        for host in ("127.0.0.1", "localhost"):  # the latter may have two addresses
            answer = await probe(f"{host}:{port}", "w1", 20.0)
            assert answer.verdict is Verdict.REFUSED
            assert "refuses" in answer.detail

    run(test())


def test_a_connection_that_is_reset_refuses_and_one_that_just_ends_proves_nothing() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(32)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        prefix = parse_prefix(await reader.readexactly(32))
        await reader.readexactly(prefix.header_bytes)

    async def test() -> None:
        assert (await asked(reset)).verdict is Verdict.REFUSED
        assert (await asked(end)).verdict is Verdict.UNKNOWN

    run(test())


def test_silence_proves_nothing() -> None:
    async def test() -> None:
        over = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()

        async with listening(silent) as address:
            answer = await probe(address, "w1", 0.05)
            assert answer.verdict is Verdict.UNKNOWN
            assert "did not answer within 0.05 s" in answer.detail
            over.set()

    run(test())


@pytest.mark.parametrize(
    "bytes_",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"".join(encode_frame(FrameType.FAIL, {"attempt": 0, "code": "PROTOCOL", "detail": "x"})),
        b"".join(encode_frame(FrameType.WELCOME, {"worker": 7})),
        b"".join(encode_frame(FrameType.WELCOME, {"worker": "w1"}))[:-1] + b"\0",
        b"".join(encode_frame(FrameType.WELCOME, {"worker": "w1", "more": "x" * 9000})),
        b"".join(encode_frame(FrameType.WELCOME, {"worker": "w1"}, [b"payload"])),
    ],
)
def test_bytes_that_are_no_greeting_prove_nothing(bytes_: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(32)
        writer.write(bytes_)
        await writer.drain()
        await reader.read()  # until the prober has had enough

    async def test() -> None:
        assert (await asked(talk)).verdict is Verdict.UNKNOWN

    run(test())


@pytest.mark.parametrize("address", ["", "h", ":1", "h:", "h:x", "127.0.0.1:99999999", "::1"])
def test_what_is_no_address_proves_nothing(address: str) -> None:
    async def test() -> None:
        assert (await probe(address, "w1", 20.0)).verdict is Verdict.UNKNOWN

    run(test())
