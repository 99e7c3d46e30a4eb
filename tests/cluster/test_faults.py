"""`penstock faults` as users and CI run it; what is spoiled on purpose makes it fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .spoiled_faults import SPOILED

KEYS = ["name", "ok", "seconds", "epochs", "outage_s", "replayed", "detail"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "faults", *arguments]


def run(arguments: list[str], timeout_s: float = 280.0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.slow
def test_a_worker_that_is_killed_and_restarted_goes_on_from_its_checkpoints() -> None:
    done = run(command("recover", "--repeat", "1", "--seed", "5", "--json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[ OK ]   recover 1" in done.stderr
    assert "\x1b[" not in done.stderr  # colours are for terminals
    (found,) = json.loads(done.stdout)
    assert list(found) == KEYS
    assert found["name"] == "recover"
    assert found["ok"] is True
    assert "kill -9 worker-1 after " in found["detail"]
    assert found["outage_s"] > 0
    expected = {"elements": 2000, "lost": 0, "duplicated": 0, "altered": 0, "in_order": True}
    assert found["epochs"] == [{"epoch": epoch, **expected} for epoch in range(3)]


@pytest.mark.slow
def test_elements_that_are_lost_repeated_altered_or_misplaced_fail_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("spoiled_faults.py")
    directory = tmp_path / "kept"
    arguments = ["faults", SPOILED, "--json", "--directory", str(directory)]
    done = run([sys.executable, str(script), *arguments])
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"[FAILED] {SPOILED}" in done.stderr
    assert str(directory / SPOILED) in done.stderr
    assert (directory / SPOILED / "logs" / "worker-1.log").exists()
    (found,) = json.loads(done.stdout)
    assert not found["ok"]
    assert found["epochs"] == [
        {"epoch": 0, "elements": 2000, "in_order": False} | wrong(),
        {"epoch": 1, "elements": 2000, "in_order": False} | wrong(lost=1, duplicated=1),
        {"epoch": 2, "elements": 1999, "in_order": False} | wrong(lost=1, altered=2),
    ]
    assert "epoch 2: the batches have 2 × 192, 191, 7 × 192, 80 elements" in found["detail"]


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
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_an_unknown_name_is_bad_usage_and_names_the_known_ones() -> None:
    done = run(command("nofial"))
    assert done.returncode == 2
    assert "'nofial'" in done.stderr
    assert "nofail, failover, recover, killall, dispatcher, standby-dispatcher" in done.stderr


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = run(command("nofail", "--directory", str(tmp_path)))
    assert done.returncode == 2
    assert "--directory must be an empty directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_the_list_has_a_line_for_each_test() -> None:
    done = run(command("--list"))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines][:2] == ["nofail", "failover"]
    assert all(len(line.split()) > 2 for line in lines)
