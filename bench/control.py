"""Case `control`: what the dispatcher can do, with its journal and fsync, for simulated peers.

One process simulates all workers and a trainer, over real gRPC (`simulated`). A *paced* load is
that of a cluster whose workers together make 2,200 splits a second, however many they are; a
*flood* has splits that take no time to make. `epochs` floods one job with many short epochs, and
compares what a split costs in early and in late ones. `recovery` starts a dispatcher on a journal
of a million events that were never replaced by a snapshot.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.daemon import Daemon
from ..client.status import fetch_status
from ..dispatcher import events as ev
from ..dispatcher.event_records import encode
from ..errors import VerificationError
from ..journal import Log
from .children import Child
from .harness import Case, Contestant
from .processes import process_cpu_s
from .simulated import FINGERPRINT
from .targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Metrics, Settings, Show

WORKERS = (10, 100, 1000)
#: What the workers of a paced load make together, a second: a little more than is wished.
_RATE = 2_200
_SPLITS = 20_000
#: Of a paced load's only epoch: at the end of one, workers have nothing to do for a while.
_PACED_SPLITS = 100_000
_SHORT_SPLITS = 500
_DEADLINE_S = 600.0
_BATCH = 10_000
_RECORDS = 1_000_000

METRICS = {
    "splits_per_s": "splits assigned, a second",
    "p50_ms": "from a place being free until its worker has an attempt: the median",
    "p99_ms": "the same: what 99 of 100 do not exceed",
    "heartbeats_per_s": "calls of workers, a second",
    "busy_cpu": "CPU seconds of the dispatcher, a second",
    "split_cpu_ms": "CPU milliseconds of the dispatcher for each split",
    "early_cpu_ms": "the same, in the second tenth of the epochs",
    "late_cpu_ms": "the same, in the last tenth",
    "times_early": "the one over the other",
    "rss_bytes": "memory of the dispatcher at the end",
    "journal_bytes": "the journal's directory at the end, after `records`",
    "records": "records that were written to it",
    "recovered_s": "from the start of the process until it serves",
    "recovery_cpu_s": "CPU seconds of the dispatcher until then",
    "empty_s": "`recovered s` with an empty journal",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every load with every number of workers, many epochs, and a recovery."""
    seconds = 3.0 if settings.quick else 10.0
    epochs = 50 if settings.quick else 400
    records = 100_000 if settings.quick else _RECORDS
    directory = settings.directory
    made = []
    for workers in WORKERS:
        warm_s = 2.0 + workers / 200
        measure = partial(measure_load, directory, workers=workers, warm_s=warm_s, seconds=seconds)
        made += [
            Contestant(f"heartbeats/w{workers}", partial(measure, splits=0)),
            Contestant(
                f"paced/w{workers}", partial(measure, splits=_PACED_SPLITS, split_s=workers / _RATE)
            ),
            Contestant(f"flood/w{workers}", partial(measure, splits=_SPLITS)),
        ]
    made.append(Contestant("epochs/w10", partial(measure_epochs, directory, epochs)))
    made.append(Contestant("recovery", partial(measure_recovery, directory, records)))
    yield made


CASE = Case(
    "control",
    "what the dispatcher can do for 10, 100 and 1,000 simulated workers",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    targets=(
        Target("heartbeats of 1,000 workers", "heartbeats/w1000", "heartbeats_per_s", 950.0),
        Target("splits a second for 1,000 workers", "paced/w1000", "splits_per_s", 2_000.0),
        Target("CPU ms of each: 2,000 on one core", "paced/w1000", "split_cpu_ms", 0.5, True),
        Target("cost of a split in late epochs", "epochs/w10", "times_early", 1.2, True),
        Target("recovery of 1,000,000 events", "recovery", "recovered_s", 5.0, at_most=True),
    ),
)


@contextlib.contextmanager
def _dispatcher(home: Path) -> Iterator[Daemon]:
    daemon = Daemon(
        "dispatcher",
        (
            *("dispatcher", "--port=0", f"--journal={home / 'journal'}", "--log-level=warning"),
            *("--announce=-", "--stop-on-stdin-eof"),
        ),
        home / "dispatcher.log",
    )
    try:
        daemon.start()
        daemon.wait_ready()
        yield daemon
    finally:
        daemon.stop()


def _put_on(directory: Path, **load: Any) -> tuple[dict[str, Any], Metrics]:
    """Puts a load on a new dispatcher; returns what was seen, and what its journal holds then."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        home = Path(scratch)
        child = Child("swarm", home, "swarm")
        with _dispatcher(home) as daemon:
            try:
                seen = child.ask(
                    _DEADLINE_S, do="run", address=daemon.address, pid=daemon.pid, **load
                )
            finally:
                child.end()
            records = fetch_status(daemon.address, 10.0)["journal"]["records"]
            nbytes = _size(home / "journal")
    kept: Metrics = {"journal_bytes": float(nbytes), "records": float(records)}
    return seen, kept


def _size(directory: Path) -> int:
    """Bytes of all files; of those that a snapshot removes meanwhile, none."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def measure_load(directory: Path, **load: Any) -> Metrics:
    """One load on a new dispatcher, for some seconds."""
    seen, kept = _put_on(directory, **load)
    seconds, assigned = seen["seconds"], seen["assigned"]
    return {
        "splits_per_s": assigned / seconds if assigned else None,
        "p50_ms": _ms(seen["p50_s"]),
        "p99_ms": _ms(seen["p99_s"]),
        "heartbeats_per_s": seen["heartbeats"] / seconds,
        "busy_cpu": seen["cpu_s"] / seconds,
        "split_cpu_ms": 1e3 * seen["cpu_s"] / assigned if assigned else None,
        "rss_bytes": seen["rss_bytes"],
        **kept,
    }


def measure_epochs(directory: Path, epochs: int) -> Metrics:
    """Many short epochs of one job: what a split costs early and late."""
    seen, kept = _put_on(directory, workers=10, splits=_SHORT_SPLITS, epochs=epochs)
    marks, tenth = seen["epochs"], epochs // 10
    early, late = (
        1e3 * (marks[end][1] - marks[end - tenth][1]) / (tenth * _SHORT_SPLITS)
        for end in (2 * tenth, epochs)
    )
    return {
        "splits_per_s": epochs * _SHORT_SPLITS / (marks[-1][0] - marks[0][0]),
        "early_cpu_ms": early,
        "late_cpu_ms": late,
        "times_early": late / early,
        "rss_bytes": seen["rss_bytes"],
        **kept,
    }


def measure_recovery(directory: Path, records: int) -> Metrics:
    """A dispatcher that starts on a journal of so many events, with no snapshot.

    Raises:
        VerificationError: it does not know what the events say.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        home = Path(scratch)
        started = time.monotonic()
        with _dispatcher(home):
            empty_s = time.monotonic() - started
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        home = Path(scratch)
        log, _ = Log.open(home / "journal")
        epochs = 0
        for number, event in enumerate(itertools.islice(history(), records), 1):
            log.append(encode(event))
            epochs += isinstance(event, ev.EpochFinished)
            if number % _BATCH == 0:
                log.sync()
        log.close()
        nbytes = _size(home / "journal")
        started = time.monotonic()
        with _dispatcher(home) as daemon:
            recovered_s = time.monotonic() - started
            cpu_s = process_cpu_s(daemon.pid)
            (job,) = fetch_status(daemon.address, 10.0)["jobs"]
    if job["epochs_finished"] != epochs:
        raise VerificationError(
            f"{epochs} epochs were finished in the journal, {job['epochs_finished']} came back"
        )
    return {
        "recovered_s": recovered_s,
        "recovery_cpu_s": cpu_s,
        "empty_s": empty_s,
        "journal_bytes": float(nbytes),
        "records": float(records),
    }


def history() -> Iterator[ev.Event]:
    """What happens to a job on 100 workers, without an end."""
    yield ev.TermStarted(1)
    yield ev.DatasetRegistered(FINGERPRINT, _SHORT_SPLITS, (), True, b"", 0)
    for number in range(1, 101):
        address = f"127.0.0.1:{number}"
        yield ev.WorkerRegistered(
            f"w{number}", f"i{number}", address, "", "host", 8, False, "none", number
        )
    yield ev.JobOpened("j1", "simulated", (FINGERPRINT,), 1, 16, 1, False, 3)
    yield ev.ClientJoined("j1", "simulated-trainer")
    attempt = 0
    for epoch in itertools.count():
        yield ev.EpochStarted("j1", 0, epoch)
        for split in range(_SHORT_SPLITS):
            attempt += 1
            worker = f"w{attempt % 100 + 1}"
            yield ev.AttemptAssigned(attempt, "j1", 0, epoch, split, worker, 1)
            yield ev.SplitDelivered("j1", 0, epoch, split, 100, split << 40, split << 32)
        total = sum(split << 40 for split in range(_SHORT_SPLITS))
        yield ev.EpochFinished("j1", 0, epoch, 100 * _SHORT_SPLITS, total, 1)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
