"""Memory: buffers stay within their limits when nobody reads, and nothing grows with the epochs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import LocalCluster
from penstock.bench.processes import process_rss_bytes

from .conftest import ClusterMaker
from .waiting import Picture, wait_until

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def trainer(cluster: LocalCluster, way: str, *numbers: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.reading", cluster.address, way, *map(str, numbers)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the trainer ended with exit code {process.wait()}"
    said: dict[str, Any] = json.loads(line)
    return said


def rss(pid: int) -> float:
    nbytes = process_rss_bytes(pid)
    assert nbytes is not None
    return nbytes


def made(picture: Picture) -> int:
    """How many elements workers have made in this job, delivered or not."""
    (job,) = picture["jobs"]
    (stream,) = job["streams"]
    running = sum(int(attempt["elements"]) for attempt in stream["attempts"])
    return int(stream["delivered_elements"]) + running


def made_at_rest(cluster: LocalCluster, timeout_s: float = 60.0) -> int:
    """The same, once it has not changed for two seconds: everybody waits for room."""
    last, since = -1, time.monotonic()

    def at_rest(picture: Picture) -> bool:
        nonlocal last, since
        if (now := made(picture)) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2.0

    wait_until(cluster.address, at_rest, "at rest", timeout_s)
    return last


@pytest.mark.parametrize("way", ["numpy", "tensorflow"])
def test_buffers_stay_within_their_limits_while_the_trainer_does_not_read(
    make_cluster: ClusterMaker, way: str
) -> None:
    floats, elements = 64 << 10, 4000  # 256 KiB each, 1000 MiB together
    client_limit, worker_limit = 32 * MIB, 48 * MIB
    cluster = make_cluster(
        workers=1,
        worker_timeout_s=5.0,
        worker_arguments=(f"--memory-limit={worker_limit}", "--no-unix"),
    )
    with trainer(cluster, way, 1, elements, floats, client_limit, 32) as process:
        paused = told(process)
        worker = cluster.workers[0].pid
        buffered = 4 * floats * (made_at_rest(cluster) - paused["consumed"])
        # What a chunk (4 MiB) of every lane takes may come on top; TensorFlow's batches read
        # ahead a little, and kernel buffers hold some.
        assert buffered <= client_limit + worker_limit + 16 * 4 * MIB, buffered / MIB
        assert buffered >= worker_limit / 2, "nobody worked ahead: nothing was tested"
        rest = rss(worker), rss(process.pid)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        whole = told(process)
        assert (whole["consumed"], whole["digests"]) == (elements, 1)
        # What it takes to run is in both figures. A buffer without a limit would be 1000 MiB.
        assert rss(worker) - rest[0] < 100 * MIB
        assert whole["rss_bytes"] - rest[1] < 100 * MIB


def test_memory_does_not_grow_with_the_epochs(make_cluster: ClusterMaker) -> None:
    """Twenty epochs of 20,000 elements. A leak of 300 bytes an element, or of every split's chunks,
    would make 35 MiB and more between the two medians, which are 7 epochs apart."""
    epochs, warm = 20, 6
    cluster = make_cluster(workers=1, worker_timeout_s=5.0)
    daemons = {"worker": cluster.workers[0].pid, "dispatcher": cluster.dispatcher.pid}
    seen: dict[str, list[float]] = {name: [] for name in (*daemons, "trainer")}
    with trainer(cluster, "tensorflow", epochs, 20_000, 64, 64 * MIB, 10**9) as process:
        for epoch in range(epochs):
            said = told(process)
            assert said["epoch"] == epoch
            seen["trainer"].append(said["rss_bytes"])
            for name, pid in daemons.items():
                seen[name].append(rss(pid))
    bounds = {"worker": 24 * MIB, "trainer": 24 * MIB, "dispatcher": 8 * MIB}
    half = (epochs - warm) // 2
    for name, values in seen.items():
        early, late = (statistics.median(part) for part in (values[warm:-half], values[-half:]))
        listed = [round(value / MIB, 1) for value in values]
        assert late - early < bounds[name], f"{name} grows: {listed} MiB after each epoch"
