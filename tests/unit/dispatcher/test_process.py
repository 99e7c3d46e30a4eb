"""The dispatcher as a process: how soon it is there, how it ends, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.dispatcher.server import DispatcherOptions
from penstock.errors import UsageError
from penstock.proto import control_pb2 as pb
from penstock.proto import control_pb2_grpc
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.timing import Timing

_COMMAND = [sys.executable, "-m", "penstock", "dispatcher"]


@contextmanager
def started(*arguments: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dispatcher process and its address; killed at the end if it still runs."""
    process = subprocess.Popen(
        [*_COMMAND, "--port=0", "--announce=-", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    with process:
        assert process.stdout is not None
        try:
            announced = json.loads(process.stdout.readline())
            assert announced["pid"] == process.pid
            yield process, announced["address"]
        finally:
            process.kill()


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and log."""
    _, log = process.communicate(timeout=20.0)
    return process.returncode, log


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and error of a dispatcher that must not start."""
    result = subprocess.run(
        [*_COMMAND, *arguments], capture_output=True, text=True, timeout=30.0, check=False
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


def register(address: str, incarnation: str = "a") -> pb.RegisterWorkerReply:
    """Registers a worker."""
    with grpc.insecure_channel(address) as channel:
        return control_pb2_grpc.ControlStub(channel).RegisterWorker(
            pb.RegisterWorkerRequest(
                protocol_version=PROTOCOL_VERSION,
                incarnation=incarnation,
                address=f"h:{incarnation}",
                slots=1,
            ),
            timeout=10.0,
        )


def test_the_service_is_imported_quickly_and_without_tensorflow() -> None:
    script = (
        "import sys, time; t = time.process_time(); import penstock.dispatcher.server; "
        "print(time.process_time() - t); sys.exit('tensorflow' in sys.modules)"
    )
    best_s = 9.9
    for _ in range(3):  # in CPU time: this machine may be busy with something else
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        best_s = min(best_s, float(result.stdout))
    assert best_s < 1.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with started(f"--journal={tmp_path / 'journal'}") as (process, address):
        register(address)
        process.send_signal(number)
        code, log = end_of(process)
        assert code == 0
        assert "stopped" in log
        assert "Traceback" not in log


def test_it_ends_with_its_supervisor() -> None:
    with started("--journal=none", "--stop-on-stdin-eof") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        assert end_of(process)[0] == 0


def test_a_held_call_is_answered_at_the_end() -> None:
    with started("--journal=none") as (process, address):
        worker = register(address)
        with grpc.insecure_channel(address) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            request = pb.SyncWorkerRequest(worker=worker.worker, incarnation="a", term=worker.term)
            request.seen_version = stub.SyncWorker(request).version
            request.hold_ms = 60_000
            held = stub.SyncWorker.future(request)
            stub.GetStatus(pb.GetStatusRequest())
            process.send_signal(signal.SIGTERM)
            assert held.result(timeout=10.0).registered
        assert end_of(process)[0] == 0


def test_after_kill_9_it_goes_on_with_another_term(tmp_path: Path) -> None:
    journal = f"--journal={tmp_path}"
    with started(journal) as (process, address):
        first = register(address)
        process.kill()
        process.wait()
    with started(journal) as (process, address):
        again = register(address)
        assert (first.worker, first.term) == ("w1", 1)
        assert (again.worker, again.term) == ("w1", 2)


def test_a_paused_dispatcher_declares_nobody_dead() -> None:
    with started("--journal=none", "--worker-timeout=0.5") as (process, address):
        worker = register(address)
        with grpc.insecure_channel(address) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            request = pb.SyncWorkerRequest(worker=worker.worker, incarnation="a", term=worker.term)
            assert stub.SyncWorker(request).registered
            process.send_signal(signal.SIGSTOP)
            time.sleep(1.0)  # the pause itself is what is tested
            process.send_signal(signal.SIGCONT)
            assert stub.SyncWorker(request, timeout=10.0).registered


def test_announcing_in_a_file_is_atomic(tmp_path: Path) -> None:
    target = tmp_path / "announced"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started("--journal=none") as (process, _):
        process.kill()
    with subprocess.Popen(
        [*_COMMAND, f"--port={port}", "--journal=none", f"--announce={target}"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while "serving" not in process.stderr.readline():
                pass
            register(f"127.0.0.1:{port}")
            announced = json.loads(target.read_text())
            assert announced == {"address": f"127.0.0.1:{port}", "pid": process.pid}
            assert os.listdir(tmp_path) == ["announced"]
        finally:
            process.kill()


def test_exit_codes(tmp_path: Path) -> None:
    with started(f"--journal={tmp_path / 'journal'}") as (process, address):
        port = address.rpartition(":")[2]
        code, error = refused(f"--port={port}", "--journal=none")
        assert code == 3
        assert port in error
        code, error = refused("--port=0", f"--journal={tmp_path / 'journal'}")
        assert code == 6
        assert str(process.pid) in error
    for bad in (
        "--worker-timeout=0",
        "--client-timeout=-1",
        "--progress-timeout=-1",
        "--progress-timeout=inf",
        "--warn-after=0",
        "--time-scale=nan",
        "--log-level=loud",
        "--log-format=xml",
        "--port=70000",
    ):
        result = CliRunner().invoke(app, ["dispatcher", "--journal=none", bad])
        assert isinstance(result.exception, UsageError) or result.exit_code == 2
        assert bad.partition("=")[0] in f"{result.exception} {result.output}"


def test_given_timeouts_reach_the_dispatcher_unscaled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def serve(options: DispatcherOptions) -> None:
        seen.append(options.timing)

    monkeypatch.setattr("penstock.dispatcher.server.serve", serve)
    given = ["--progress-timeout=0", "--warn-after=3", "--time-scale=0.1"]
    result = CliRunner().invoke(app, ["dispatcher", "--journal=none", *given])
    assert result.exit_code == 0, result.output
    assert (seen[0].progress_timeout_s, seen[0].warn_after_s) == (0.0, 3.0)
    assert seen[0].heartbeat_s == Timing().heartbeat_s * 0.1


def test_the_status_is_shown_for_people() -> None:
    with started("--journal=none") as (_, address):
        register(address, "a")
        with grpc.insecure_channel(address) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            gone = pb.SyncWorkerRequest(worker="w1", incarnation="a", leaving=True)
            stub.SyncWorker(gone, timeout=10.0)
        register(address, "b")
        result = CliRunner().invoke(app, ["status", "--dispatcher", address])
        assert result.exit_code == 0, result.output
        for part in ("0 elements recomputed", "w1", "lost: it", "w2", "live"):
            assert part in result.output


def test_a_damaged_journal_exits_with_6(tmp_path: Path) -> None:
    with started(f"--journal={tmp_path}") as (_, address):
        for number in range(20):
            register(address, f"i{number}")
    segment = max(tmp_path.glob("records-*.log"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 0xFF
    segment.write_bytes(content)
    code, error = refused("--port=0", f"--journal={tmp_path}")
    assert code == 6
    assert str(tmp_path) in error
