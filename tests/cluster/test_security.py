"""G10: a whole cluster that nobody unknown gets into, and that is exact all the same."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import penstock
from penstock import Security
from penstock.client.status import fetch_status
from penstock.errors import AuthenticationError
from penstock.proto import control_pb2
from penstock.proto.wire import PROTOCOL_VERSION, FrameType, read_frame, send_frame
from penstock.security.access import Access
from penstock.security.channels import open_channel
from penstock.security.settings import VARIABLES
from penstock.security.tls_socket import TlsSocket

from ..papers import Papers
from .conftest import ClusterMaker
from .pipelines import numbers

_SERVICE = control_pb2.DESCRIPTOR.services_by_name["Control"]
_KEPT_OUT = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
PENSTOCK = [sys.executable, "-m", "penstock"]


@pytest.fixture
def token(tmp_path: Path) -> Security:
    path = tmp_path / "token"
    path.write_text("a-token-for-this-test-only")
    path.chmod(0o600)
    return Security(token_file=path)


def order(address: object, **more: object) -> list[int]:
    served = numbers(2000, work=5).apply(penstock.distribute(address, seed=3, **more))
    return [int(element[0]) for element in served]


def test_a_token_lets_in_whoever_has_it_and_nobody_else(
    make_cluster: ClusterMaker, token: Security, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("a-token-of-something-else")
    wrong.chmod(0o600)
    cluster = make_cluster(security=token)
    assert sorted(order(cluster)) == list(range(2000))
    with pytest.raises(AuthenticationError, match="shows none"):
        order(cluster.address)
    with pytest.raises(AuthenticationError, match="is wrong"):
        order(cluster.address, security=Security(token_file=wrong))
    for environment in ({}, {"PENSTOCK_TOKEN_FILE": str(wrong)}):
        monkeypatch.delenv("PENSTOCK_TOKEN_FILE", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asked = subprocess.run(
            [*PENSTOCK, "status", "--dispatcher", cluster.address], capture_output=True, text=True
        )
        assert asked.returncode == AuthenticationError.exit_code
        assert "PENSTOCK_TOKEN_FILE" in asked.stderr
        joined = subprocess.run(
            [*PENSTOCK, "worker", "--dispatcher", cluster.address], capture_output=True, text=True
        )
        assert joined.returncode == AuthenticationError.exit_code
        assert "PENSTOCK_TOKEN_FILE" in joined.stderr
    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", str(token.token_file))
    assert sorted(order(cluster.address)) == list(range(2000))
    picture = fetch_status(cluster.address)
    assert len(picture["workers"]) == 2
    secret = Path(token.token_file).read_text()
    for log in (cluster.directory / "logs").iterdir():
        assert secret not in log.read_text()
    assert secret not in str(picture)


def test_a_cluster_of_ones_own_takes_no_notice_of_the_environment(
    make_cluster: ClusterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "/of/another/cluster")
    cluster = make_cluster(workers=1)
    assert sorted(order(cluster)) == list(range(2000))


def pairs(dataset: object, at: dict[int, object] | None = None) -> list[tuple[int, int]]:
    """An epoch's elements; `at` says what is called after so many of them."""
    seen = []
    for first, second in dataset:  # type: ignore[attr-defined]
        seen.append((int(first), int(second)))
        if at and len(seen) in at:
            at[len(seen)]()  # type: ignore[operator]
    return seen


def test_g10_with_tls_and_a_token_all_is_exact_and_nobody_else_gets_in(
    make_cluster: ClusterMaker, token: Security, papers: Papers
) -> None:
    security = dataclasses.replace(papers.good, token_file=token.token_file)
    cluster = make_cluster(
        workers=2, standby_dispatcher=True, security=security, worker_arguments=["--no-unix"]
    )
    plain = pairs(numbers(3000))
    dataset = numbers(3000, work=10).apply(penstock.distribute(cluster, seed=4))
    assert sorted(pairs(dataset)) == plain
    assert sorted(pairs(dataset, {500: cluster.workers[0].kill})) == plain
    assert sorted(pairs(dataset, {500: cluster.dispatcher.kill})) == plain
    logs = "".join(log.read_text() for log in (cluster.directory / "logs").iterdir())
    assert Path(token.token_file).read_text() not in logs

    serving, worker = cluster.standby_dispatcher, cluster.workers[1]
    assert serving is not None
    unknown = {
        "no token": papers.good,
        "no TLS": token,
        "no certificate": dataclasses.replace(papers.anonymous, token_file=token.token_file),
        "of another authority": dataclasses.replace(papers.stranger, token_file=token.token_file),
    }
    for what, shown in unknown.items():
        for method in _SERVICE.methods:
            status = _answer(serving.address, method.name, Access.load(shown))
            assert status in _KEPT_OUT, f"{what}: {method.name}"
        assert _greeting(worker.address, Access.load(shown)) is not FrameType.WELCOME, what
    answer = _answer(serving.address, "GetStatus", Access.load(security))
    assert isinstance(answer, bytes)
    assert answer
    assert _greeting(worker.address, Access.load(security)) is FrameType.WELCOME


def _answer(address: str, method: str, access: Access) -> bytes | grpc.StatusCode:
    """What a method answers to an empty request; without a byte, the status."""
    with open_channel(address, access) as channel:
        call = channel.stream_stream(f"/{_SERVICE.full_name}/{method}")
        try:
            return b"".join(call(iter([b""]), timeout=20))
        except grpc.RpcError as error:
            return error.code()


def _greeting(address: str, access: Access) -> FrameType | None:
    """How a worker answers a HELLO; None: by no frame."""
    host, _, port = address.rpartition(":")
    hello = {"version": PROTOCOL_VERSION, "job": "j", "client": "c", "token": access.token}
    try:
        with socket.create_connection((host, int(port)), 20.0) as sock:
            stream = (
                sock
                if access.client is None
                else TlsSocket(sock, access.client, server_hostname=host)
            )
            if isinstance(stream, TlsSocket):
                stream.handshake(20.0)
            send_frame(stream, FrameType.HELLO, hello)
            frame = read_frame(stream.recv_into)
    except AuthenticationError:
        return None
    return None if frame is None else frame.type
