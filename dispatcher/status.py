"""The whole picture for people and monitoring, as one JSON document (docs/operations.md)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import quarantine
from .group_status import LATE, late_texts, pictures
from .reports import Progress, Totals

if TYPE_CHECKING:
    from .engine import Engine
    from .records import Epoch, Job, Worker

#: Attempts shown for one stream; what is more is only counted.
_ATTEMPTS_MAX = 1000


def picture(engine: Engine) -> dict[str, Any]:
    """What `penstock status --json` prints."""
    now_s = time.monotonic()
    committer = engine.committer
    jobs = [_job(engine, job) for job in engine.state.jobs.values()]
    return {
        "term": engine.state.term,
        "uptime_s": round(now_s - engine.started_s, 3),
        "workers": _workers(engine, now_s) + _lost(engine, now_s),
        "jobs": jobs,
        "groups": pictures(engine.state, engine.liveness.heard_s, engine.timing, now_s),
        "recomputed_elements": engine.reports.total.recomputed_elements,
        "restored_attempts": engine.reports.total.restored_attempts,
        "cached_attempts": engine.reports.total.cached_attempts,
        "cache": _cache(engine),
        "failover": engine.deciding.picture(),
        "waiting": _waiting(engine, now_s),
        "journal": {
            "records": committer.records,
            "pending": committer.pending,
            "bytes": committer.bytes_since_snapshot,
            "last_sync_ms": round(committer.last_sync_ms, 3),
        },
    }


def _workers(engine: Engine, now_s: float) -> list[dict[str, Any]]:
    heard_s = engine.liveness.heard_s
    return [
        {
            "id": worker.worker,
            "address": worker.address,
            "state": _state_of(engine, worker),
            "attempts": len(worker.attempts),
            "produced": len(engine.reports.produced.get(worker.worker, ())),
            "offers": len(engine.offers.by_worker.get(worker.worker, ())),
            "slots": worker.slots,
            "last_heartbeat_s": round(now_s - heard_s.get(worker.worker, now_s), 3),
            "pid": worker.pid,
            "tensorflow": worker.tensorflow_version,
            "store": worker.store or None,
            "limited": worker.limited or None,
            "blamed": worker.blamed,
        }
        for worker in engine.state.workers.values()
    ]


def _state_of(engine: Engine, worker: Worker) -> str:
    if worker.incarnation in engine.state.failover.retired:
        return "retired"
    return "standby" if worker.standby else "live"


def _cache(engine: Engine) -> dict[str, Any]:
    """Who caches what, and what `auto` decided."""
    state = engine.state
    stores = [
        {
            "store": store,
            "workers": [w.worker for w in state.workers.values() if w.store == store],
            "segments": {key: len(splits) for key, splits in held.items()},
        }
        for store, held in state.stores.items()
    ]
    return {"stores": stores, "decisions": [asdict(made) for made in state.decisions.values()]}


def _lost(engine: Engine, now_s: float) -> list[dict[str, Any]]:
    out = []
    for lost in engine.state.lost.values():
        at_s = engine.lost_s.get(lost.worker)
        out.append(
            {
                "id": lost.worker,
                "address": lost.address,
                "state": "lost",
                "attempts": 0,
                "standby": lost.standby,
                "replaced": lost.replaced,
                "reason": lost.reason,
                "lost_s": None if at_s is None else round(now_s - at_s, 3),
            }
        )
    return out


def _job(engine: Engine, job: Job) -> dict[str, Any]:
    state = "failed" if job.failure else "open" if job.attached else "idle"
    totals = engine.reports.totals.get(job.job, Totals())
    return {
        "id": job.job,
        "name": job.name,
        "state": state,
        "seed": job.seed,
        "lanes": job.lanes,
        "block": job.block,
        "client": job.client if job.attached else None,
        "cache": job.cache,
        "committed": dict(zip(("epoch", "consumed"), job.position_at, strict=True))
        if job.position
        else None,
        "streams": [_stream(engine, job, number) for number in range(len(job.streams))],
        "epochs_finished": sum(stream.epochs_finished for stream in job.streams),
        "recomputed_elements": totals.recomputed_elements,
        "restored_attempts": totals.restored_attempts,
        "cached_attempts": totals.cached_attempts,
        "avoided_workers": sorted(engine.reachability.avoided.get(job.job, ())),
        "failover_extension": job.failover or None,
        "bad_elements": quarantine.picture(job),
        "failure": job.failure or None,
    }


def _stream(engine: Engine, job: Job, number: int) -> dict[str, Any]:
    """A stream with its newest open epoch; the attempts are those of all its open epochs."""
    epochs = [epoch for (stream, _), epoch in job.epochs.items() if stream == number]
    newest = max(epochs, key=lambda epoch: epoch.epoch, default=None)
    count, total, chain = job.streams[number].last_digest
    return {
        "dataset": job.streams[number].dataset,
        "cache_key": engine.state.dataset_of(job, number).cache_key or None,
        "epoch": newest.epoch if newest else None,
        "open_epochs": sorted(epoch.epoch for epoch in epochs),
        "next_epoch": job.streams[number].next_epoch,
        "splits": engine.state.dataset_of(job, number).num_splits,
        "delivered_splits": len(newest.delivered) if newest else 0,
        "delivered_elements": newest.count if newest else 0,
        "lanes_waiting": _lanes_waiting(engine, job, newest) if newest else [],
        "attempts": _attempts(engine, epochs, time.monotonic()),
        "epochs_finished": job.streams[number].epochs_finished,
        "last_digest": f"{count}:{total:016x}:{chain:016x}",
    }


def _lanes_waiting(engine: Engine, job: Job, epoch: Epoch) -> list[int]:
    """The lanes whose current split nobody works on."""
    book = engine.state.book(job, epoch)
    waiting = []
    for lane in range(book.num_lanes):
        current = book.current(lane)
        touched = None if current is None else epoch.splits.get(current)
        if current is not None and (touched is None or not touched.attempt):
            waiting.append(lane)
    return waiting


def _attempts(engine: Engine, epochs: list[Epoch], now_s: float) -> list[dict[str, Any]]:
    out = []
    for epoch in epochs:
        for number in epoch.running():
            attempt = engine.state.attempts[epoch.splits[number].attempt]
            produced = attempt.attempt in engine.reports.produced.get(attempt.worker, ())
            # One that was assigned in this very moment is not in the reports yet.
            progress = engine.reports.progress.get(attempt.attempt) or Progress(attempt, now_s)
            idle = produced or progress.waiting
            out.append(
                {
                    "attempt": attempt.attempt,
                    "epoch": attempt.epoch,
                    "split": attempt.split,
                    "worker": attempt.worker,
                    "trial": attempt.trial,
                    "elements": progress.elements,
                    "produced": produced,
                    "restored": progress.restored,
                    "recomputed": progress.recomputed,
                    "waiting": progress.waiting,
                    "cached": progress.cached,
                    "stalled_s": 0.0 if idle else round(now_s - progress.since_s, 3),
                }
            )
    return out[:_ATTEMPTS_MAX]


def _waiting(engine: Engine, now_s: float) -> list[str]:
    """Who is missing, since when (G6)."""
    out = engine.notices.all()
    quiet_s = max(2 * engine.timing.heartbeat_s, engine.timing.worker_timeout_s / 2)
    for worker in engine.state.workers.values():
        silent_s = now_s - engine.liveness.heard_s.get(worker.worker, now_s)
        if silent_s > quiet_s:
            out.append(
                f"worker {worker.worker} at {worker.address} has been silent for {silent_s:.1f} s;"
                f" it counts as dead after {engine.timing.worker_timeout_s:g} s"
            )
    for job in engine.state.jobs.values():
        silent_s = now_s - engine.liveness.heard_s.get(job.job, now_s)
        if job.attached and silent_s > LATE * engine.timing.heartbeat_s:
            out.append(
                f"the client of job {job.label} has been silent for {silent_s:.1f} s; what it has"
                f" open is given up after {engine.timing.client_timeout_s:g} s"
            )
        for number, report in engine.reachability.reports.get(job.job, {}).items():
            attempt = engine.state.attempts.get(number)
            if attempt is not None:
                out.append(
                    f"the client of job {job.label} cannot reach worker {attempt.worker} for split"
                    f" {attempt.split}, for {now_s - report.since_s:.1f} s: {report.why}"
                )
    out += late_texts(pictures(engine.state, engine.liveness.heard_s, engine.timing, now_s))
    out += engine.slow_texts(now_s) + engine.deciding.waiting(now_s)
    if engine.committer.pending:
        out.append(f"{engine.committer.pending} journal records are being written to the disk")
    return out
