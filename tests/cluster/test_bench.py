"""`penstock bench` as a user runs it: measured outage and speed, clear refusals, clean Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.bench.children import Child
from penstock.errors import UnavailableError

#: Takes longer than anybody waits for it here.
SLEEPING = {"pipeline": "scaling", "elements": 100_000, "directory": ""}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "bench", *arguments]


def test_an_outage_is_measured_with_a_real_kill(tmp_path: Path) -> None:
    result = subprocess.run(
        command(
            *("--case", "recovery", "--only", "cheap/live-worker", "--quick", "--json"),
            *("--worker-timeout", "2", "--directory", str(tmp_path)),
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "kill -9 worker-1" in result.stderr
    (told,) = json.loads(result.stdout)["cases"]
    assert told["case"] == "recovery"
    assert told["environment"]["cores"] >= 1
    (measured,) = told["results"]
    assert measured["name"] == "cheap/live-worker"
    (figures,) = measured["rounds"]
    # What it is depends on the machine; but a consumer cannot have waited less than nothing.
    assert figures["outage_s"] > 0
    assert figures["detection_s"] > 0
    assert measured["summary"]["outage_s"]["median"] == figures["outage_s"]
    assert list(tmp_path.iterdir()) == []


def test_penstock_stock_and_a_local_run_are_measured_side_by_side(tmp_path: Path) -> None:
    names = ["local/batched", "stock/tcp/batched/w1", "penstock/unix/batched/w1"]
    names.append("penstock/tls/batched/w1")
    result = subprocess.run(
        command(
            *("--case", "scalars", "--quick", "--json", "--directory", str(tmp_path)),
            *(part for name in names for part in ("--only", name)),
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (told,) = json.loads(result.stdout)["cases"]
    measured = {one["name"]: one for one in told["results"]}
    assert list(measured) == names
    local, stock, penstock, tls = (measured[name]["rounds"][0] for name in names)
    assert stock["elements"] < penstock["elements"] == local["elements"]
    assert penstock["times_stock"] == penstock["elements_per_s"] / stock["elements_per_s"] > 0
    assert penstock["times_local"] == penstock["elements_per_s"] / local["elements_per_s"] > 0
    assert penstock["worker_cpu_s_per_gb"] > 0
    assert stock["auto"] in (0, 1)
    assert tls["elements"] == local["elements"]  # which were compared with the local run's
    assert tls["elements_per_s"] > 0
    targets = {one["target"]["contestant"]: one["met"] for one in told["targets"]}
    assert targets["penstock/unix/batched/w1"] is not None
    assert targets["penstock/unix/eager/w1"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_contestant_that_hangs_or_dies_is_given_up(tmp_path: Path) -> None:
    child = Child("trainer", tmp_path)
    try:
        child.start()
        hung = child.pid
        with pytest.raises(UnavailableError, match=r"no end of it after 0\.3 s"):
            child.ask(0.3, do="read", system="local", way="eager", **SLEEPING)
        assert not Path(f"/proc/{hung}").exists()
        # The next one is a new process.
        assert child.ask(60, do="ready")["pid"] == child.pid != hung
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="trainer ended with exit code -9"):
            child.ask(60, do="ready")
        assert child.pid == 0
    finally:
        child.end()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "recovery, checkpoint, journal"),
        (("--case", "warp"), "'warp' is not known; there are recovery, checkpoint, journal"),
        (("--case", "journal", "--directory", "/nowhere"), "/nowhere"),
        (("--case", "journal", "--only", "nothing"), "appends-64"),
        (("--case", "images", "--only", "nothing"), "penstock/unix/batched/w4/c4"),
    ],
)
def test_what_cannot_be_measured_exits_with_2_and_says_what_can(
    arguments: tuple[str, ...], named: str
) -> None:
    result = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_the_journal_is_measured_without_tensorflow(tmp_path: Path) -> None:
    arguments = ["bench", "--case", "journal", "--quick", "--json", "--only", "appends-*"]
    script = (
        "import sys\n"
        "from penstock.cli.main import app\n"
        f"app({[*arguments, '--directory', str(tmp_path)]!r}, standalone_mode=False)\n"
        "sys.exit('tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    (told,) = json.loads(result.stdout)["cases"]
    assert [one["name"] for one in told["results"]] == ["appends-1", "appends-8", "appends-64"]
    assert all(one["rounds"][0]["appends_per_s"] > 0 for one in told["results"])


def test_ctrl_c_in_the_middle_of_an_outage_ends_it_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        command(
            *("--case", "recovery", "--only", "cheap/live-worker", "--quick", "--json"),
            *("--worker-timeout", "2", "--directory", str(tmp_path)),
        ),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "kill -9" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(120) == 130, rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
