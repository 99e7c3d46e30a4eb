"""`penstock faults` as users and CI run it; what is spoiled on purpose makes it fail."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .spoiled_faults import SPOILED

KEYS = ["name", "ok", "seconds", "epochs", "outage_s", "replayed", "detail"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "faults", *arguments]


def run(arguments: list[str], timeout_s: float = 560.0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)  # its own bounds end it before
def test_a_fault_changes_nothing_and_what_is_spoiled_on_purpose_is_found(tmp_path: Path) -> None:
    script = Path(__file__).with_name("spoiled_faults.py")
    directory = tmp_path / "kept"
    arguments = ["faults", "recover", SPOILED, "--repeat", "1", "--seed", "5", "--json"]
    done = run([sys.executable, str(script), *arguments, "--directory", str(directory)])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[ OK ]   recover 1" in done.stderr
    assert f"[FAILED] {SPOILED} 1" in done.stderr
    assert "\x1b[" not in done.stderr  # colours are for terminals
    assert str(directory / f"{SPOILED}-1") in done.stderr
    assert (directory / f"{SPOILED}-1" / "logs" / "worker-1.log").exists()
    recover, spoiled = json.loads(done.stdout)
    assert list(recover) == list(spoiled) == KEYS
    assert (recover["name"], recover["ok"]) == ("recover", True)
    assert "kill -9 worker-1 after " in recover["detail"]
    assert recover["outage_s"] > 0
    assert recover["epochs"] == [
        {"epoch": epoch, "elements": 2000, "in_order": True} | wrong() for epoch in range(3)
    ]
    assert not spoiled["ok"]
    assert spoiled["epochs"] == [
        {"epoch": 0, "elements": 2000, "in_order": False} | wrong(),
        {"epoch": 1, "elements": 2000, "in_order": False} | wrong(lost=1, duplicated=1),
        {"epoch": 2, "elements": 1999, "in_order": False} | wrong(lost=1, altered=2),
    ]
    assert "epoch 2: the batches have 2 × 192, 191, 7 × 192, 80 elements" in spoiled["detail"]


def wrong(**counts: int) -> dict[str, int]:
    return {"lost": 0, "duplicated": 0, "altered": 0} | counts


def test_ctrl_c_ends_it_and_all_of_its_processes(tmp_path: Path) -> None:
    arguments = command("nofail", "--directory", str(tmp_path / "kept"))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "undisturbed" in line:  # the trainer runs, a cluster starts
                break
        children = children_of(process.pid)
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(120) == 130, rest
    assert children
    for child in children:
        # One that was being started just then ends by itself, when it finds its standard input
        # closed.
        assert select.select([child], [], [], 120)[0]
        os.close(child)


def children_of(pid: int) -> list[int]:
    """Descriptors of the processes that a process has started; ready for reading at their end."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [os.pidfd_open(int(child)) for child in text.split()]


def test_an_unknown_name_is_bad_usage_and_names_the_known_ones() -> None:
    done = run(command("nofial"))
    assert done.returncode == 2
    assert "'nofial'" in done.stderr
    assert (
        "nofail, nofail-cache, getfail, putfail, failover, recover, killall, dispatcher"
        in done.stderr
    )


def test_the_list_has_a_line_for_each_test() -> None:
    done = run(command("--list"))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines][:2] == ["nofail", "nofail-cache"]
    assert all(len(line.split()) > 2 for line in lines)
