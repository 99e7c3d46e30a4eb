"""What is wrong between a client and a dispatcher is named at once; gRPC tells it to nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.client.control import Control
from penstock.client.status import fetch_status
from penstock.dispatcher.server import Dispatcher, DispatcherOptions
from penstock.errors import AuthenticationError, UnavailableError
from penstock.security.access import OPEN, Access
from penstock.security.faults import Suspicion, find_fault
from penstock.security.settings import Security
from penstock.security.tls_socket import TlsSocket
from penstock.timing import Timing

from ...papers import Papers

#: Far longer than any of these tests: a refusal must not wait for it.
TIMING = Timing(connect_deadline_s=200.0)
CASES = [
    ("good", "distrusting", "not trusted here"),
    ("expired", "good", "not trusted here: certificate has expired"),
    ("elsewhere", "good", "IP address mismatch"),
    ("good", "anonymous", "PENSTOCK_TLS_CERT"),
    ("good", "stranger", "PENSTOCK_TLS_CERT"),
    ("good", "expired", "PENSTOCK_TLS_CERT"),
    ("good", "none", "speaks TLS only: .*PENSTOCK_TLS_CA"),
    ("none", "good", "does not speak TLS"),
]


def settings(papers: Papers, name: str) -> Security:
    return Security() if name == "none" else getattr(papers, name)


@contextlib.contextmanager
def dispatcher(security: Security) -> Iterator[str]:
    """A dispatcher process."""
    command = [sys.executable, "-m", "penstock", "dispatcher", "--port=0", "--journal=none"]
    process = subprocess.Popen(
        [*command, "--announce=-", *security.arguments()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize(("server", "client", "said"), CASES)
def test_g10_every_way_of_not_being_let_in_is_named_at_once(
    papers: Papers, server: str, client: str, said: str
) -> None:
    shown = settings(papers, client)
    with dispatcher(settings(papers, server)) as address:
        began_s = time.monotonic()
        control = Control([address], TIMING, Access.load(shown))
        with contextlib.closing(control), pytest.raises(AuthenticationError, match=said):
            control.committed("train")
        with pytest.raises(AuthenticationError, match=said) as caught:
            fetch_status(address, 200.0, shown)
        assert address in str(caught.value)
        assert time.monotonic() - began_s < 60.0


def test_a_server_that_objects_to_the_look_itself_is_named_too(papers: Papers) -> None:
    context = Access.load(papers.good, serving=True).server
    assert context is not None
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # here it asks for a certificate at once

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener's end
            while True:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError, AuthenticationError):
                    TlsSocket(sock, context, server_side=True).handshake(10.0)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            fault = find_fault(f"127.0.0.1:{listener.getsockname()[1]}", OPEN)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
        assert "speaks TLS only" in str(fault)


def test_who_is_let_in_finds_no_fault(papers: Papers) -> None:
    with dispatcher(papers.good) as address:
        assert find_fault(address, Access.load(papers.good)) is None
        assert fetch_status(address, 60.0, papers.good)["workers"] == []
        port = address.rpartition(":")[2]
        assert fetch_status(f"localhost:{port}", 60.0, papers.good)["workers"] == []
        with dispatcher(Security()) as plain:
            assert find_fault(plain, OPEN) is None
            # Of two addresses one is right: that is enough.
            control = Control([plain, address], TIMING, Access.load(papers.good))
            with contextlib.closing(control):
                assert control.committed("train") == ""


def test_nobody_is_no_fault(papers: Papers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for access in (OPEN, Access.load(papers.good)):
        assert find_fault(address, access) is None
        control = Control([address], Timing(connect_deadline_s=0.3), access)
        with contextlib.closing(control), pytest.raises(UnavailableError):
            control.committed("train")


def test_whoever_hangs_up_once_was_about_to_end(papers: Papers) -> None:
    """The verdict needs two handshakes that end alike."""

    async def test() -> None:
        context = Access.load(papers.good, serving=True).server
        assert context is not None
        came = 0

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            if came == 2:
                writer.write(b"settings of HTTP/2")
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
        async with server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            access = Access.load(papers.good)
            assert await asyncio.to_thread(find_fault, address, access) is None
            assert came == 2
            fault = await asyncio.to_thread(find_fault, address, access)
            assert "hangs up" in str(fault)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_of_several_addresses_all_are_tried_before_one_is_blamed(papers: Papers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    with dispatcher(Security()) as plain:
        suspicion = Suspicion(Access.load(papers.good), 2)
        assert suspicion.find(plain) is None
        assert "does not speak TLS" in str(suspicion.find(nobody))


@pytest.mark.parametrize("command", ["worker", "status", "health"])
def test_commands_end_by_that_error(
    papers: Papers, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TLS_CA", str(papers.distrusting.tls_ca))
    monkeypatch.setenv("PENSTOCK_TLS_CERT", str(papers.good.tls_cert))
    monkeypatch.setenv("PENSTOCK_TLS_KEY", str(papers.good.tls_key))
    with dispatcher(papers.good) as address:
        ended = subprocess.run(
            [sys.executable, "-m", "penstock", command, "--dispatcher", address],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert "not trusted here" in ended.stdout + ended.stderr
    assert ended.returncode == (1 if command == "health" else AuthenticationError.exit_code)


def test_a_standby_tells_of_a_missing_key_before_it_waits(papers: Papers, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "dispatcher", "--standby", "--port=5999"]
    ended = subprocess.run(
        [
            *command,
            f"--journal={tmp_path}",
            f"--tls-cert={papers.good.tls_cert}",
            f"--tls-key={tmp_path}/none.key",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert "--tls-key" in ended.stderr
    assert "none.key: No such file" in ended.stderr


def test_a_dispatcher_in_this_process_serves_tls(papers: Papers) -> None:
    async def test() -> None:
        made = Dispatcher(DispatcherOptions(port=0, security=papers.good))
        await made.start()
        try:
            picture = await asyncio.to_thread(fetch_status, made.address, 60.0, papers.good)
            assert picture["jobs"] == []
        finally:
            await made.stop()

    asyncio.run(asyncio.wait_for(test(), 60))
