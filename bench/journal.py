"""What the journal can do on this machine: `python bench/journal.py [--json]`.

Appends a second, each acknowledged only when durable, with 1, 8 and 64 threads that share fsyncs;
and how long a million records take to recover, decoding included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack

from penstock.journal import Log

EVENT = {"kind": "split_done", "job": 3001, "epoch": 7, "split": 0, "worker": "w-12", "count": 512}
BATCH = 1000


def measure_appends(directory: Path, appenders: int, seconds: float) -> dict[str, Any]:
    """Appends and syncs from many threads for some seconds; returns rate and latency."""
    log, _ = Log.open(directory)
    payload = msgpack.packb(EVENT)
    begin = threading.Barrier(appenders)

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
        "appenders": appenders,
        "appends_per_s": round(len(latencies_s) / seconds),
        "p50_ms": round(statistics.median(latencies_s) * 1e3, 3),
        "p99_ms": round(statistics.quantiles(latencies_s, n=100)[98] * 1e3, 3),
    }


def measure_recovery(directory: Path, records: int) -> dict[str, Any]:
    """Writes `records` records, then times opening the journal and decoding all of them."""
    log, _ = Log.open(directory)
    started = time.monotonic()
    for number in range(records):
        log.append(msgpack.packb({**EVENT, "split": number}))
        if number % BATCH == 0:
            log.sync()
    log.close()
    written_s = time.monotonic() - started
    size_bytes = sum(path.stat().st_size for path in directory.iterdir())

    started = time.monotonic()
    log, recovered = Log.open(directory)
    opened_s = time.monotonic() - started
    decoded = sum(1 for _, payload in recovered.records if msgpack.unpackb(payload)["job"])
    recovered_s = time.monotonic() - started
    log.close()
    assert decoded == records
    return {
        "records": records,
        "bytes": size_bytes,
        "written_s": round(written_s, 2),
        "opened_s": round(opened_s, 2),
        "recovered_s": round(recovered_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dir", help="where to write; a temporary directory by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of appenders")
    parser.add_argument("--records", type=int, default=1_000_000, help="to recover")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        appends = [
            measure_appends(Path(scratch) / str(appenders), appenders, options.seconds)
            for appenders in (1, 8, 64)
        ]
        recovery = measure_recovery(Path(scratch) / "recovery", options.records)
    if options.json:
        print(json.dumps({"appends": appends, "recovery": recovery}))
        return
    for row in appends:
        print(
            f"{row['appenders']:3} appenders: {row['appends_per_s']:7,} durable appends/s, "
            f"p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms"
        )
    print(
        f"{recovery['records']:,} records ({recovery['bytes'] / 1e6:.0f} MB): written in "
        f"{recovery['written_s']} s, opened in {recovery['opened_s']} s, "
        f"recovered and decoded in {recovery['recovered_s']} s"
    )


if __name__ == "__main__":
    main()
