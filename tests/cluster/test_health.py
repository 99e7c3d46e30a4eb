"""`penstock health` of real daemons, found by what they announced, as in a container."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEADLINE_S = 120.0


def health(announced: Path) -> dict[str, Any]:
    """What `penstock health --json` finds; its exit code agrees."""
    result = subprocess.run(
        [sys.executable, "-m", "penstock", "health", "--json", "--timeout=10"],
        env={**os.environ, "PENSTOCK_ANNOUNCE": str(announced)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if found["healthy"] else 1)
    return found


def wait_for(announced: Path, role: str) -> dict[str, Any]:
    """Waits until somebody of that role is healthy."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not ((found := health(announced))["healthy"] and found["role"] == role):
        assert time.monotonic() < deadline_s, found
    return found


@contextlib.contextmanager
def daemon(announced: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`penstock ARGUMENTS`, which is told where to announce itself by its environment."""
    with subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        env={**os.environ, "PENSTOCK_ANNOUNCE": str(announced)},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said_by(announced: Path) -> int | None:
    """The process whose announcement is there, if one is."""
    with contextlib.suppress(FileNotFoundError):
        pid: int = json.loads(announced.read_text())["pid"]
        return pid
    return None


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        servers = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [server.getsockname()[1] for server in servers]


def test_the_health_of_every_role_follows_what_happens_to_it(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("first", "second", "worker")}
    files["worker"].write_text(json.dumps({"standby": True, "address": "h:1", "pid": os.getpid()}))
    ports = free_ports(2)
    both = ",".join(f"127.0.0.1:{port}" for port in ports)
    common = ("dispatcher", "--standby", f"--journal={tmp_path / 'journal'}", "--host=0.0.0.0")
    with contextlib.ExitStack() as daemons:
        # It finds no dispatcher yet, so what a former process said is the only announcement.
        worker = daemons.enter_context(
            daemon(files["worker"], "worker", f"--dispatcher={both}", "--host=0.0.0.0",
                   "--advertise=a-name-of-elsewhere.invalid")
        )  # fmt: skip
        first = daemons.enter_context(daemon(files["first"], *common, f"--port={ports[0]}"))
        wait_for(files["first"], "dispatcher")
        daemons.enter_context(daemon(files["second"], *common, f"--port={ports[1]}"))
        assert wait_for(files["second"], "standby")["detail"].endswith("waits for the journal")
        wait_for(files["worker"], "worker")

        worker.send_signal(signal.SIGSTOP)
        assert "did not answer" in health(files["worker"])["detail"]
        worker.send_signal(signal.SIGCONT)
        wait_for(files["worker"], "worker")

        first.kill()
        first.wait()
        assert not health(files["first"])["healthy"]
        wait_for(files["second"], "dispatcher")
        # Without a dispatcher or with another one: a worker serves on.
        assert health(files["worker"])["healthy"]


def test_a_daemon_that_starts_withdraws_what_its_predecessor_announced(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for role in ("worker", "dispatcher"):
        announced = tmp_path / role
        announced.write_text(json.dumps({"standby": True, "address": "h:1", "pid": os.getpid()}))
        assert health(announced)["healthy"]
        more = (
            (f"--dispatcher=127.0.0.1:{port}",)  # where nobody is
            if role == "worker"
            else ("--journal=none", "--port=0")
        )
        with daemon(announced, role, *more) as process:
            deadline_s = time.monotonic() + DEADLINE_S
            while said_by(announced) == os.getpid():
                assert time.monotonic() < deadline_s
                assert process.poll() is None
                time.sleep(0.05)  # that a file goes away is told to nobody
