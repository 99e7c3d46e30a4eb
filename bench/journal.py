"""Case `journal`: how many records a second become durable, and how fast they are read back.

Appends are acknowledged only when they are on the disk; 1, 8 and 64 threads share fsyncs. The
recovery opens a journal of a million records and decodes all of them.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack

from ..errors import VerificationError
from ..journal import Log
from .harness import Case, Contestant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Metrics, Settings, Show

EVENT = {"kind": "split_done", "job": 3001, "epoch": 7, "split": 0, "worker": "w-12", "count": 512}
APPENDERS = (1, 8, 64)
_BATCH = 1000

METRICS = {
    "appends_per_s": "appends acknowledged as durable, a second, over all threads",
    "p50_ms": "median time of one append and its sync",
    "p99_ms": "time that 99 of 100 do not exceed",
    "written_s": "writing the records to recover, synced every 1,000",
    "journal_bytes": "their size on the disk",
    "opened_s": "opening the journal: finding, checking and cutting",
    "recovered_s": "the same, and decoding every record",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Appends with each number of threads, and a recovery."""
    seconds = 0.5 if settings.quick else 2.0
    records = 100_000 if settings.quick else 1_000_000
    yield [
        *(
            Contestant(
                f"appends-{appenders}",
                partial(measure_appends, settings.directory, appenders, seconds),
            )
            for appenders in APPENDERS
        ),
        Contestant(f"recovery-{records}", partial(measure_recovery, settings.directory, records)),
    ]


CASE = Case(
    "journal",
    "durable appends a second, and the recovery of a journal",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
)


def measure_appends(directory: Path, appenders: int, seconds: float) -> Metrics:
    """Appends and syncs from many threads for some seconds; returns rate and latency."""
    payload = msgpack.packb(EVENT)
    begin = threading.Barrier(appenders)

    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        log, _ = Log.open(Path(scratch))

        def run(_: int) -> list[float]:
            latencies_s = []
            begin.wait()
            end = time.monotonic() + seconds
            while (started := time.monotonic()) < end:
                log.append(payload)
                log.sync()
                latencies_s.append(time.monotonic() - started)
            return latencies_s

        with ThreadPoolExecutor(appenders) as pool:
            latencies_s = [latency for done in pool.map(run, range(appenders)) for latency in done]
        log.close()
    return {
        "appends_per_s": len(latencies_s) / seconds,
        "p50_ms": statistics.median(latencies_s) * 1e3,
        "p99_ms": statistics.quantiles(latencies_s, n=100)[98] * 1e3,
    }


def measure_recovery(directory: Path, records: int) -> Metrics:
    """Writes `records` records, then times opening the journal and decoding all of them.

    Raises:
        VerificationError: another number of records came back.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        home = Path(scratch)
        log, _ = Log.open(home)
        started = time.monotonic()
        for number in range(records):
            log.append(msgpack.packb({**EVENT, "split": number}))
            if number % _BATCH == 0:
                log.sync()
        log.close()
        written_s = time.monotonic() - started
        nbytes = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())

        started = time.monotonic()
        log, recovered = Log.open(home)
        opened_s = time.monotonic() - started
        decoded = sum(1 for _, payload in recovered.records if msgpack.unpackb(payload)["job"])
        recovered_s = time.monotonic() - started
        log.close()
    if decoded != records:
        raise VerificationError(f"{records} records were written, {decoded} came back")
    return {
        "written_s": written_s,
        "journal_bytes": float(nbytes),
        "opened_s": opened_s,
        "recovered_s": recovered_s,
    }
