"""The commands as a user runs them: real processes, exit codes, JSON, clean Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock import LocalCluster

from .pipelines import numbers


def run(*arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Runs `penstock` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "dispatcher", "worker", "status", "health", "bench", "explain", "audit"),
        *("journal", "soak", "faults"),
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) > 5


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.strip() == f"penstock {penstock.__version__}"


def test_status_shows_workers_and_jobs(shared_cluster: LocalCluster) -> None:
    served = numbers(500).apply(penstock.distribute(shared_cluster.address, job_name="seen"))
    list(served)
    human = run("status", "--dispatcher", shared_cluster.address)
    assert human.returncode == 0
    assert "seen" in human.stdout
    machine = run("status", "--dispatcher", shared_cluster.address, "--json")
    picture = json.loads(machine.stdout)
    assert [worker["state"] for worker in picture["workers"]] == ["live", "live"]
    assert any(job["name"] == "seen" for job in picture["jobs"])


def test_status_without_a_dispatcher_exits_with_3() -> None:
    result = run("status", "--dispatcher", "127.0.0.1:1", "--timeout", "0.5")
    assert result.returncode == 3
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_exits_with_3_and_names_it(shared_cluster: LocalCluster) -> None:
    port = shared_cluster.address.rpartition(":")[2]
    for arguments in (
        ("dispatcher", "--port", port, "--journal", "none"),
        ("worker", "--port", port, "--dispatcher", shared_cluster.address),
    ):
        result = run(*arguments)
        assert result.returncode == 3, result.stderr
        assert port in result.stderr
        assert "Traceback" not in result.stderr


def test_a_bad_option_exits_with_2_and_names_it() -> None:
    for arguments in (
        ("worker", "--dispatcher", "nonsense"),
        ("worker", "--memory-limit", "lots"),
        ("dispatcher", "--journal", "none", "--worker-timeout", "-1"),
        ("explain", "no.such.module:build"),
        ("explain", "penstock"),
    ):
        result = run(*arguments)
        assert result.returncode == 2, (arguments, result.stderr)
        assert "Traceback" not in result.stderr


def test_a_second_dispatcher_on_one_journal_exits_with_6(shared_cluster: LocalCluster) -> None:
    journal = shared_cluster.directory / "journal"
    result = run("dispatcher", "--port", "0", "--journal", str(journal))
    assert result.returncode == 6
    assert str(shared_cluster.dispatcher.pid) in result.stderr


def test_the_journal_of_a_cluster_verifies_and_can_be_read(shared_cluster: LocalCluster) -> None:
    list(numbers(100).apply(penstock.distribute(shared_cluster.address, job_name="journaled")))
    journal = str(shared_cluster.directory / "journal")
    assert run("journal", "verify", journal).returncode == 0
    dumped = run("journal", "dump", journal, "--json")
    assert dumped.returncode == 0
    assert "journaled" in dumped.stdout


def test_ctrl_c_ends_a_daemon_cleanly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "dispatcher", "--port=0", "--announce=-",
         f"--journal={tmp_path / 'journal'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=20.0)
    assert process.returncode == 0
    assert "Traceback" not in log


def test_explain_prints_the_plan(tmp_path: Path) -> None:
    (tmp_path / "my_input.py").write_text(
        "import tensorflow as tf\n"
        "def build():\n"
        "    return tf.data.Dataset.range(1000).map(lambda x: x + 1).shuffle(10).batch(8)\n"
    )
    command = [sys.executable, "-m", "penstock", "explain", "my_input:build"]
    human = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Batch" in human.stdout
    machine = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(machine.stdout)


def test_audit_passes_a_faithful_ledger_and_fails_a_damaged_one(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    served = numbers(300).apply(penstock.distribute(shared_cluster.address, ledger=ledger))
    list(served)
    passed = run("audit", str(ledger), "--json")
    assert passed.returncode == 0, passed.stderr
    largest = max(ledger.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert run("audit", str(ledger)).returncode == 5


def test_the_demo_ends_with_one_line_of_json_and_every_epoch_exact() -> None:
    result = run("demo", "--records", "2400", "--json", timeout_s=240.0)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert [epoch["elements"] for epoch in figures["epochs"]] == [2400] * 3
    for epoch in figures["epochs"]:
        assert epoch["lost"] == epoch["duplicated"] == epoch["altered"] == 0
    assert len({epoch["digest"] for epoch in figures["epochs"]}) == 1
    assert figures["kills"] == 1
    assert figures["recovery_s"] > 0
    assert len(figures["loss"]) == 3
