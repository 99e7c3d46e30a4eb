"""`penstock health` against real sockets: what each kind of answer, or of silence, is taken for."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from typer.testing import CliRunner

from penstock.cli.health import health as health_command
from penstock.cli.health import read_announcement
from penstock.errors import UsageError
from penstock.proto.wire import FrameType, read_frame, send_frame

Handler = Callable[[socket.socket], None]


def check(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and what `--json` prints."""
    app = typer.Typer()
    app.command()(health_command)
    variables = {"PENSTOCK_ANNOUNCE": "", **(environment or {})}
    result = CliRunner().invoke(app, [*arguments, "--json"], env=variables)
    if isinstance(result.exception, UsageError):
        raise result.exception
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["healthy"] is (result.exit_code == 0)
    return result.exit_code, found


@contextlib.contextmanager
def listening(handler: Handler, host: str = "127.0.0.1") -> Iterator[int]:
    """Somebody at a port who does that with the first connection."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    handler(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def welcoming(worker: str) -> Handler:
    """A worker that the dispatcher knows by that id."""

    def greet(connection: socket.socket) -> None:
        frame = read_frame(connection.recv_into)
        assert frame is not None
        assert frame.type is FrameType.HELLO
        send_frame(connection, FrameType.WELCOME, {"version": 1, "worker": worker})

    return greet


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def dispatcher(status: HealthCheckResponse.ServingStatus) -> Iterator[int]:
    """A gRPC server whose health service says that."""
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def announcement(directory: Path, **fields: Any) -> str:
    path = directory / "announced"
    path.write_text(json.dumps(fields) + "\n")
    return str(path)


def test_a_worker_that_greets_is_healthy_once_it_is_registered() -> None:
    with listening(welcoming("w7")) as port:
        code, found = check(f"--worker=127.0.0.1:{port}")
    assert code == 0
    assert found["role"] == "worker"
    assert found["address"] == f"127.0.0.1:{port}"
    assert found["detail"].endswith("serves as w7")
    with listening(welcoming("")) as port:
        code, found = check(f"--worker=127.0.0.1:{port}")
    assert code == 1
    assert "not been registered" in found["detail"]


@pytest.mark.parametrize(
    ("handler", "seen"),
    [
        (silent, "did not answer within 0.3 s"),
        (lambda connection: None, "does not answer"),
        (lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 9), "not answer"),
    ],
)
def test_what_does_not_greet_is_no_healthy_worker(handler: Handler, seen: str) -> None:
    with listening(handler) as port:
        code, found = check(f"--worker=127.0.0.1:{port}", "--timeout=0.3")
    assert code == 1
    assert seen in found["detail"]


def test_a_dispatcher_is_what_its_health_service_says() -> None:
    with dispatcher(HealthCheckResponse.SERVING) as port:
        code, found = check(f"--dispatcher=127.0.0.1:{port}", "--timeout=60")
    assert code == 0
    assert found["role"] == "dispatcher"
    with dispatcher(HealthCheckResponse.NOT_SERVING) as port:
        code, found = check(f"--dispatcher=127.0.0.1:{port}", "--timeout=60")
    assert code == 1
    assert "says NOT_SERVING" in found["detail"]


def test_a_dispatcher_that_accepts_and_is_silent_is_not_healthy() -> None:
    with listening(silent) as port:
        code, found = check(f"--dispatcher=127.0.0.1:{port}", "--timeout=0.3")
    assert code == 1
    assert "does not answer" in found["detail"]


@pytest.mark.parametrize("option", ["--worker", "--dispatcher"])
def test_where_nobody_listens_nobody_is_healthy(option: str) -> None:
    code, found = check(f"{option}=127.0.0.1:{free_port()}")
    assert code == 1
    assert "does not answer" in found["detail"]


@pytest.mark.parametrize(("any_host", "host"), [("0.0.0.0", "127.0.0.1"), ("[::]", "::1")])
def test_a_worker_is_asked_where_it_listens_not_where_trainers_find_it(
    tmp_path: Path, any_host: str, host: str
) -> None:
    with listening(welcoming("w1"), host) as port:
        path = announcement(
            tmp_path, worker="w1", address="node1.invalid:1", listen=f"{any_host}:{port}", pid=1
        )
        code, found = check(f"--announced={path}")
    assert code == 0, found
    assert found["role"] == "worker"


def test_an_announced_dispatcher_is_asked_and_the_file_may_come_from_the_environment(
    tmp_path: Path,
) -> None:
    with dispatcher(HealthCheckResponse.SERVING) as port:
        path = announcement(tmp_path, address=f"0.0.0.0:{port}", pid=1)
        code, found = check("--timeout=60", environment={"PENSTOCK_ANNOUNCE": path})
    assert code == 0, found
    assert found["role"] == "dispatcher"


def test_a_given_address_goes_before_an_announced_one(tmp_path: Path) -> None:
    path = announcement(tmp_path, address=f"127.0.0.1:{free_port()}", pid=1)
    with listening(welcoming("w1")) as port:
        code, found = check(f"--announced={path}", f"--worker=127.0.0.1:{port}")
    assert code == 0
    assert found["role"] == "worker"


def test_a_standby_is_healthy_while_its_process_is_there(tmp_path: Path) -> None:
    path = announcement(tmp_path, standby=True, address="0.0.0.0:5050", pid=os.getpid())
    code, found = check(f"--announced={path}")
    assert code == 0
    assert found["role"] == "standby"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = announcement(tmp_path, standby=True, address="0.0.0.0:5050", pid=ended.pid)
    code, found = check(f"--announced={path}")
    assert code == 1
    assert found["detail"].endswith("has ended")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"address": "h:1"}', '{"address": 7, "pid": 1}',
     '{"address": "h", "pid": 1}', '{"address": "h:0", "pid": 1}', '{"address": "h:x", "pid": 1}',
     '{"address": "::1:5", "pid": 1}'],
)  # fmt: skip
def test_what_is_no_announcement_is_no_health(tmp_path: Path, content: str) -> None:
    path = tmp_path / "announced"
    path.write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011  JSON's and ours alike
        read_announcement(path)
    code, found = check(f"--announced={path}")
    assert code == 1
    assert str(path) in found["detail"]


def test_who_has_not_announced_itself_is_not_healthy(tmp_path: Path) -> None:
    code, found = check(f"--announced={tmp_path / 'missing'}")
    assert code == 1
    assert found == {
        "healthy": False,
        "role": None,
        "address": "",
        "detail": f"no daemon has announced itself in {tmp_path / 'missing'} yet",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--announced"),
        (("--worker=h:1", "--dispatcher=h:1"), "one daemon"),
        (("--worker=h",), "--worker takes HOST:PORT"),
        (("--dispatcher=:5050",), "--dispatcher takes HOST:PORT"),
        (("--dispatcher=h:1,i:2",), "--dispatcher takes HOST:PORT"),
        (("--dispatcher=h:70000",), "--dispatcher takes HOST:PORT"),
    ],
)
def test_a_bad_option_is_named(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        check(*arguments)
