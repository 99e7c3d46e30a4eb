"""G10: no call of a dispatcher with a token is answered without it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.client.control import Control
from penstock.client.status import fetch_status
from penstock.dispatcher.server import Dispatcher, DispatcherOptions
from penstock.errors import AuthenticationError
from penstock.proto import control_pb2 as pb
from penstock.proto import control_pb2_grpc
from penstock.security.access import OPEN, Access
from penstock.security.channels import AUTHORIZATION, open_channel
from penstock.security.settings import Security
from penstock.timing import Timing

SERVICE = pb.DESCRIPTOR.services_by_name["Control"]
METHODS = [method.name for method in SERVICE.methods]


@pytest.fixture
def security(tmp_path: Path) -> Security:
    path = tmp_path / "token"
    path.write_text("the-token-of-this-cluster\nand-the-one-before-it\n")
    path.chmod(0o600)
    return Security(token_file=path)


def in_thread(security: Security, test: Callable[[str], None]) -> None:
    """Runs a test, which may block, beside a dispatcher."""

    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        dispatcher = Dispatcher(DispatcherOptions(port=0, security=security))
        await dispatcher.start()
        try:
            yield dispatcher.address
        finally:
            await dispatcher.stop()

    async def run() -> None:
        async with serving() as address:
            await asyncio.to_thread(test, address)

    asyncio.run(asyncio.wait_for(run(), 60))


def call(channel: grpc.Channel, name: str, metadata: Any) -> Any:
    """Calls any method of the service with an empty request."""
    method = SERVICE.methods_by_name[name]
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    made = kinds[method.client_streaming, method.server_streaming](f"/{SERVICE.full_name}/{name}")
    request = iter([b""]) if method.client_streaming else b""
    answer = made(request, metadata=metadata, timeout=20)
    return list(answer) if method.server_streaming else answer


def test_no_method_answers_without_the_token(security: Security) -> None:
    assert len(METHODS) > 15

    def test(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            for name in METHODS:
                for metadata in (
                    (),
                    ((AUTHORIZATION, "Bearer of-something-else-entirely"),),
                    ((AUTHORIZATION, "Bearer "),),
                ):
                    with pytest.raises(grpc.RpcError) as caught:
                        call(channel, name, metadata)
                    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
                    assert "PENSTOCK_TOKEN_FILE" in caught.value.details()
                    assert "the-token" not in caught.value.details()

    in_thread(security, test)


def test_reflection_is_a_call_like_others_and_health_is_not(security: Security) -> None:
    def test(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            with pytest.raises(grpc.RpcError) as caught:
                list(
                    reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                        iter([request]), timeout=20
                    )
                )
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    in_thread(security, test)


def test_each_of_the_tokens_is_accepted_in_every_kind_of_call(
    security: Security, tmp_path: Path
) -> None:
    former = tmp_path / "former"
    former.write_text("and-the-one-before-it")
    former.chmod(0o600)

    def test(address: str) -> None:
        for file in (security.token_file, former):
            access = Access.load(Security(token_file=file))
            with open_channel(address, access) as channel:
                stub = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
                info = pb.DatasetInfo(fingerprint="f" * 32, num_splits=1, graph_bytes=3)
                parts = [pb.PutDatasetRequest(info=info), pb.PutDatasetRequest(part=b"abc")]
                stub.PutDataset(iter(parts), timeout=20)
                request = pb.GetDatasetRequest(fingerprint="f" * 32)
                replies = stub.GetDataset(request, timeout=20)
                assert b"".join(reply.part for reply in replies) == b"abc"
                held = stub.GetStatus.future(pb.GetStatusRequest(), timeout=20)
                assert held.result().json
            assert fetch_status(address, 20.0, Security(token_file=file))["workers"] == []

    in_thread(security, test)


def test_a_client_without_the_token_is_told_at_once(security: Security) -> None:
    def test(address: str) -> None:
        control = Control([address], Timing(), OPEN)
        with contextlib.closing(control), pytest.raises(AuthenticationError, match="shows none"):
            control.committed("train")
        with pytest.raises(AuthenticationError, match="shows none"):
            fetch_status(address, 20.0, Security())

    in_thread(security, test)


def test_a_command_takes_the_token_from_the_environment(
    security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", str(security.token_file))

    def test(address: str) -> None:
        assert fetch_status(address, 20.0)["jobs"] == []
        control = Control([address], Timing())
        with contextlib.closing(control):
            assert control.committed("train") == ""

    in_thread(security, test)


def test_a_held_call_with_a_token_can_be_abandoned(security: Security) -> None:
    def test(address: str) -> None:
        with open_channel(address, Access.load(security)) as channel:
            stub = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
            request = pb.RuleStepRequest(
                group="g", ranks=2, step=1, action="retry", vote_ms=60_000, hold_ms=60_000
            )
            held = stub.RuleStep.future(request, timeout=60)
            woken = threading.Event()
            held.add_done_callback(lambda _: woken.set())
            with pytest.raises(grpc.FutureTimeoutError):
                held.result(timeout=0.2)
            assert not held.done()
            held.cancel()
            assert woken.wait(20)
            assert held.cancelled()

    in_thread(security, test)
