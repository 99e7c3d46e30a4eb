"""What the service refuses, and how it says so; graphs, health and reflection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.proto import control_pb2 as pb
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.timing import Timing

from .cluster import (
    FINGERPRINT,
    HOLD_MS,
    Client,
    Worker,
    announced,
    epoch_digest,
    job_request,
    progress,
    put_dataset,
    refusal,
    run,
    serving,
)


def test_an_older_client_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            old, new = Client(stub), Client(stub, "client-b")
            await old.open()
            await old.sync(progress())
            held = asyncio.ensure_future(refusal(old.sync(progress(), hold_ms=HOLD_MS)))
            await asyncio.sleep(0)
            await new.open()
            assert new.job == old.job
            code, text, named = await held
            assert (code, named) == (grpc.StatusCode.FAILED_PRECONDITION, "RefusedError")
            assert "client-b" in text
            await stub.CloseClient(pb.CloseClientRequest(job=old.job, client=old.name))
            assert (await new.sync(progress())).epochs

    run(test())


def test_the_late_request_of_a_killed_client_takes_no_job_from_its_successor(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            under_way = await announced(stub, job_request("killed"))
            client = Client(stub, "successor")
            await client.open()
            code, text, _ = await refusal(stub.OpenJob(under_way))
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert "taken over by client successor" in text
            assert (await client.sync(progress())).epochs
        async with serving(tmp_path) as (_, stub):  # numbers are of one term
            code, text, _ = await refusal(stub.OpenJob(under_way))
            assert code == grpc.StatusCode.ABORTED
            client.stub = stub
            assert (await client.sync(progress())).epochs

    run(test())


def test_a_client_that_shows_no_number_is_asked_to_announce_itself(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            for arrival in (0, 1, 1 << 63):
                request = job_request(term=1, arrival=arrival)
                code, text, _ = await refusal(stub.OpenJob(request))
                assert code == grpc.StatusCode.ABORTED
                assert "announced itself" in text
            assert await stub.OpenJob(await announced(stub, job_request()))

    run(test())


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        ({"protocol_version": 99}, "FAILED_PRECONDITION", (f"version {PROTOCOL_VERSION}", "99")),
        ({"lanes": 0}, "INVALID_ARGUMENT", ("lanes", "1 to 65536", "not 0")),
        ({"block": 0}, "INVALID_ARGUMENT", ("block", "not 0")),
        ({"attempts_max": 0}, "INVALID_ARGUMENT", ("attempts_max",)),
        ({"streams": []}, "INVALID_ARGUMENT", ("streams",)),
        ({"streams": ["../../etc/passwd"]}, "INVALID_ARGUMENT", ("hexadecimal",)),
        ({"streams": ["ab" * 16]}, "NOT_FOUND", ("ab" * 16,)),
        ({"client": ""}, "INVALID_ARGUMENT", ("client",)),
        ({"lanes": 3}, "FAILED_PRECONDITION", ("lanes=2, not 3",)),
        ({"seed": 5}, "FAILED_PRECONDITION", ("not 5",)),
        ({"ordered": True}, "FAILED_PRECONDITION", ("ordered=False, not True",)),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(
    change: dict[str, object], code: str, parts: tuple[str, ...]
) -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            await put_dataset(stub)
            await Client(stub).open(seed=1)
            request = await announced(stub, job_request("client-b"))
            for name, value in change.items():
                request.ClearField(name)
                getattr(request, name).extend(value) if isinstance(value, list) else setattr(
                    request, name, value
                )
            got, text, _ = await refusal(stub.OpenJob(request))
            assert got.name == code
            for part in parts:
                assert part in text

    run(test())


def test_an_epoch_that_does_not_add_up_is_not_finished(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            client = Client(stub)
            await client.open()
            early = progress(done=[0, 1, 2], finished=True, digest=epoch_digest(4))
            _, text, _ = await refusal(client.sync(early))
            assert "1 of its 4 splits" in text
            wrong = epoch_digest(4)
            wrong.total += 1
            failed = await client.sync(progress(done=[0, 1, 2, 3], finished=True, digest=wrong))
            assert "does not add up" in failed.failure

    run(test())


def test_a_graph_comes_back_as_it_was_put(tmp_path: Path) -> None:
    async def test() -> None:
        graph = bytes(range(256)) * 10_000  # parts of 1 MiB, the last one short
        async with serving(tmp_path) as (_, stub):
            missing = pb.GetDatasetRequest(fingerprint=FINGERPRINT)
            assert (await refusal(stub.DescribeDataset(missing)))[0].name == "NOT_FOUND"
            await put_dataset(stub, graph=graph)
            known = await stub.DescribeDataset(missing)
            assert (known.num_splits, known.graph_bytes) == (4, len(graph))
            parts = [reply.part async for reply in stub.GetDataset(missing)]
            assert b"".join(parts) == graph
            assert max(map(len, parts)) == 1 << 20
            info = pb.DatasetInfo(fingerprint="ff" * 16, graph_bytes=10)
            only_asks = iter([pb.PutDatasetRequest(info=info)])
            assert (await refusal(stub.PutDataset(only_asks)))[0].name == "NOT_FOUND"
            for bad in ("../etc", "A" * 32, "", "ab/cd" * 8):
                code, _, _ = await refusal(
                    stub.DescribeDataset(pb.GetDatasetRequest(fingerprint=bad))
                )
                assert code is grpc.StatusCode.INVALID_ARGUMENT

    run(test())


def test_health_and_reflection_are_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            serving(tmp_path) as (dispatcher, _),
            grpc.aio.insecure_channel(dispatcher.address) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "penstock.v1.Control"):
                reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            async for answer in stub.ServerReflectionInfo(iter([ask])):
                names = {s.name for s in answer.list_services_response.service}
                assert "penstock.v1.Control" in names

    run(test())


def test_timing_of_heartbeats_follows_the_timeout() -> None:
    async def test() -> None:
        async with serving(timing=Timing(worker_timeout_s=0.4)) as (_, stub):
            assert (await Worker(stub).register()).heartbeat_ms == 100

    run(test())
