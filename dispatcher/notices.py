"""Texts for people about what is waited for, and since when (G6)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .reports import Progress
    from .state import State

logger = logging.getLogger(__name__)


class Notices:
    """Which jobs wait for a worker, since when, and what is said about it."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._texts: dict[str, str] = {}

    def of(self, job: str) -> list[str]:
        """What a job's client is told."""
        return [self._texts[job]] if job in self._texts else []

    def all(self) -> list[str]:
        """What is said to everybody."""
        return list(self._texts.values())

    def waiting(self, jobs: Iterable[str], now_s: float) -> list[str]:
        """These jobs wait for a worker, and no others.

        Returns:
            The jobs whose notice is over.
        """
        waiting = set(jobs)
        over = [job for job in self._texts if job not in waiting]
        for job in over:
            del self._texts[job]
        self._since_s = {job: self._since_s.get(job, now_s) for job in waiting}
        return over

    def deadline_s(self, patience_s: float) -> float:
        """When a notice is due next."""
        silent = [since for job, since in self._since_s.items() if job not in self._texts]
        return min(silent) + patience_s if silent else float("inf")

    def judge(self, state: State, now_s: float, patience_s: float) -> list[str]:
        """Writes the notices that are due; returns the jobs concerned."""
        due = [
            job
            for job, since_s in self._since_s.items()
            if job not in self._texts and now_s >= since_s + patience_s
        ]
        for job in due:
            since_s = self._since_s[job]
            at = time.strftime("%H:%M:%S", time.gmtime(time.time() - (now_s - since_s)))
            text = f"no worker is there for job {state.jobs[job].label} since {at} UTC; "
            retired = sum(w.incarnation in state.failover.retired for w in state.workers.values())
            standbys = len(state.workers) - retired
            if standbys:
                text += f"{standbys} standby only waits for another worker to fail; "
            if retired:
                text += f"{retired} retired (`penstock status` says why); "
            self._texts[job] = text + "it goes on when `penstock worker` is started"
            logger.warning("%s", self._texts[job])
        return due


def slow(state: State, progress: Progress, now_s: float) -> str:
    """What a client waits for: the split, the worker, and since when it has made nothing."""
    attempt = progress.attempt
    return (
        f"job {state.jobs[attempt.job].label} waits for split {attempt.split} of epoch"
        f" {attempt.epoch}, stream {attempt.stream}: worker {attempt.worker} has made"
        f" {progress.elements} elements and nothing more for {now_s - progress.since_s:.1f} s"
    )
