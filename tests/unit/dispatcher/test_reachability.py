"""Workers that a client cannot reach: asked by the dispatcher, lost, or avoided."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.proto import control_pb2 as pb
from penstock.proto.wire import PROTOCOL_VERSION, FrameType, encode_frame, parse_prefix

from .cluster import (
    HOLD_MS,
    PATIENT,
    QUICK,
    Worker,
    opened,
    placed,
    progress,
    run,
    serving,
    status_of,
    workers_of,
)

#: Silence counts for nothing, but probes and what stands for long do.
WATCHFUL = dataclasses.replace(PATIENT, retry_min_s=0.01, retry_max_s=0.05)


class Stream:
    """A worker's stream server, of which only the greeting matters."""

    def __init__(self, worker: str = "") -> None:
        self.worker = worker
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.put_nowait(None)
        prefix = parse_prefix(await reader.readexactly(32))
        await reader.readexactly(prefix.header_bytes)
        await self.gate.wait()
        welcome = {"version": PROTOCOL_VERSION, "worker": self.worker}
        writer.writelines(encode_frame(FrameType.WELCOME, welcome))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def stream(worker: str = "") -> AsyncIterator[tuple[Stream, str]]:
    """A stream server and its address."""
    made = Stream(worker)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    async with server:
        try:
            yield made, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            made.gate.set()


def nobody() -> str:
    """An address that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def away(*attempts: int) -> list[pb.Problem]:
    return [pb.Problem(attempt=at, code="UNREACHABLE", detail="no way") for at in attempts]


@pytest.mark.parametrize("there", ["nobody", "stranger"])
def test_a_worker_that_is_not_at_its_address_is_lost_at_once(tmp_path: Path, there: str) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=WATCHFUL) as (_, stub), stream("w77") as (_, taken):
            client = await opened(stub)
            worker = Worker(stub, address=nobody() if there == "nobody" else taken)
            other = Worker(stub, "other", "127.0.0.1:7002")
            await worker.register()
            before = await client.sync(progress())
            assert set(workers_of(before).values()) == {worker.name}
            await worker.sync()
            await other.register()
            problems = away(*placed(before).values())
            view = await client.sync(progress(), problems=problems)
            while worker.name in workers_of(view).values():
                view = await client.sync(progress(), problems=problems, hold_ms=HOLD_MS)
            assert set(workers_of(view).values()) == {other.name}
            (lost,) = [w for w in (await status_of(stub))["workers"] if w["state"] == "lost"]
            said = "refuses connections" if there == "nobody" else "there is worker 'w77' now"
            assert said in lost["reason"]
            assert "a client cannot reach it" in lost["reason"]

    run(test())


def test_a_worker_that_may_not_know_its_id_yet_is_no_stranger(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            serving(tmp_path, timing=WATCHFUL) as (dispatcher, stub),
            stream("") as (server, address),
        ):
            client = await opened(stub)
            worker = Worker(stub, address=address)
            await worker.register()
            problems = away(*placed(await client.sync(progress())).values())
            await client.sync(progress(), problems=problems)
            for _ in range(3):
                await server.arrivals.get()
            assert worker.name in dispatcher.engine.state.workers
            await worker.sync()  # now it knows
            news, lost = dispatcher.engine.news, dispatcher.engine.state.lost
            while worker.name not in lost:
                await news.hold(client.job, news.version(client.job), 0.05)
            assert "was not registered yet" in lost[worker.name].reason

    run(test())


def test_an_old_probe_does_not_judge_a_worker_that_registered_anew(tmp_path: Path) -> None:
    async def test() -> None:
        timing = dataclasses.replace(WATCHFUL, probe_deadline_s=30.0)
        async with (
            serving(tmp_path, timing=timing) as (dispatcher, stub),
            stream("stranger") as (server, address),
        ):
            client = await opened(stub)
            old, new = Worker(stub, address=address), Worker(stub, "worker-new", address)
            await old.register()
            await old.sync()
            server.gate.clear()
            problems = away(*placed(await client.sync(progress())).values())
            await client.sync(progress(), problems=problems)
            await server.arrivals.get()
            await new.register()
            await new.sync()
            (probing,) = [t for t in asyncio.all_tasks() if t.get_name() == f"probe-{old.name}"]
            server.gate.set()
            await probing
            assert list(dispatcher.engine.state.workers) == [new.name]

    run(test())


def test_a_worker_that_proves_that_it_lives_is_not_judged_by_its_address_again(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=WATCHFUL) as (dispatcher, stub):
            client = await opened(stub)
            worker = Worker(stub, address=nobody())
            await worker.register()
            view = await client.sync(progress())
            while placed(view):
                problems = away(*placed(view).values())
                view = await client.sync(progress(), problems=problems, hold_ms=HOLD_MS)
            assert not (await worker.sync()).registered
            await worker.register()
            assert not dispatcher.engine.state.workers[worker.name].standby
            problems = away(*placed(await client.sync(progress())).values())
            for _ in range(3):
                view = await client.sync(progress(), problems=problems)
            assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("probe-")]
            assert set(workers_of(view).values()) == {worker.name}

    run(test())


def test_a_worker_that_is_alive_but_out_of_reach_is_avoided_after_a_while(tmp_path: Path) -> None:
    async def test() -> None:
        timing = dataclasses.replace(QUICK, client_timeout_s=60.0, retry_min_s=0.01)
        async with serving(tmp_path, timing=timing) as (_, stub), stream("w1") as (server, address):
            client = await opened(stub)
            worker = Worker(stub, address=address)
            other = Worker(stub, "other", "127.0.0.1:7002")
            await worker.register()
            view = await client.sync(progress())
            await other.register()
            problems = away(*placed(view).values())
            while worker.name in workers_of(view).values():
                await worker.sync()
                await other.sync()
                view = await client.sync(progress(), problems=problems, hold_ms=20)
            assert set(workers_of(view).values()) == {other.name}
            assert not server.arrivals.empty()
            status = await status_of(stub)
            assert {w["id"]: w["state"] for w in status["workers"]} == {
                worker.name: "live",
                other.name: "live",
            }
            assert status["jobs"][0]["avoided_workers"] == [worker.name]

    run(test())
