"""Which workers clients cannot reach, what probes of them prove, and what follows from it.

A client's report shortens the detection of a dead worker: the dispatcher asks the worker itself, at
once and again with growing pauses for as long as the report stands. A refusal, or a stranger at the
address, is the end of the worker. A worker that answers is alive, and the way between the two is
broken: if that lasts, the attempt is made elsewhere, and the worker is avoided for that job.

A probe judges only the very process that it was sent to, and only if nothing was heard of it
meanwhile. One that was declared dead and then registers again with the same incarnation has shown
that the address proves nothing about it (it cannot be reached from here, a firewall answers for
it): from then on only its heartbeats count.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..failpoints import failpoint
from ..security.access import OPEN, Access
from .probe import Verdict, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..timing import Timing
    from .records import Worker
    from .state import State

logger = logging.getLogger(__name__)

#: How often the worker timeout a worker stays avoided: the way to it may have been mended.
_AVOIDED_TIMEOUTS = 60
#: How many incarnations are remembered for what a probe said of them.
_REMEMBERED_MAX = 256


@dataclass(frozen=True, slots=True)
class Report:
    """A client's word that it cannot reach an attempt's worker.

    Attributes:
        since_s: when it said so first (monotonic).
        why: what it saw.
    """

    since_s: float
    why: str


@dataclass(slots=True)
class Reachability:
    """The reports that stand, and what is done about them. Belongs to one event loop.

    Args:
        state: read only.
        timing: intervals and deadlines.
        heard_s: when each worker was heard of last.
        lose: declares a worker dead, for a reason.

    Attributes:
        access: what workers are shown that are asked.
        reports: by job and attempt.
        avoided: by job, the workers that its client could not reach for long, and until when.
    """

    state: State
    timing: Timing
    heard_s: Mapping[str, float]
    lose: Callable[[str, str], None]
    access: Access = OPEN
    reports: dict[str, dict[int, Report]] = field(default_factory=dict)
    avoided: dict[str, dict[str, float]] = field(default_factory=dict)
    _stopped: bool = False
    _probes: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    #: By worker, the incarnation that has used its id in a call; it can introduce itself by it.
    _introduced: dict[str, str] = field(default_factory=dict)
    _condemned: dict[str, None] = field(default_factory=dict)
    _distrusted: dict[str, None] = field(default_factory=dict)

    def introduced(self, worker: Worker) -> None:
        """The worker has called and knows its id."""
        self._introduced[worker.worker] = worker.incarnation

    def registered(self, worker: Worker) -> None:
        """The worker registered; if a probe said that it is dead, the probe was wrong."""
        if worker.incarnation in self._condemned:
            del self._condemned[worker.incarnation]
            _remember(self._distrusted, worker.incarnation)
            logger.warning(
                "worker %s at %s lives, though nobody seemed to be there: it cannot be asked from"
                " here, so only its heartbeats count from now on",
                worker.worker,
                worker.address,
            )

    def lost(self, worker: str) -> None:
        """The worker is gone: nobody avoids it any more, and it need not be asked."""
        for job in list(self.avoided):
            self.avoided[job].pop(worker, None)
            if not self.avoided[job]:
                del self.avoided[job]
        self._introduced.pop(worker, None)

    def forget_job(self, job: str) -> None:
        """The job, or its client, is gone; another client is somewhere else."""
        self.reports.pop(job, None)
        self.avoided.pop(job, None)

    def report(self, job: str, unreachable: Mapping[int, str], now_s: float) -> None:
        """A client's whole report: the attempts whose worker it cannot reach, and why."""
        known = self.reports.get(job, {})
        standing: dict[int, Report] = {}
        for number, why in unreachable.items():
            attempt = self.state.attempts.get(number)
            if attempt is None or attempt.job != job:
                continue
            if number not in known:
                logger.warning(
                    "the client of job %s cannot reach worker %s for attempt %d: %s",
                    job,
                    attempt.worker,
                    number,
                    why,
                )
            standing[number] = Report(known[number].since_s if number in known else now_s, why)
            self._ask(self.state.workers[attempt.worker])
        if standing:
            self.reports[job] = standing
        else:
            self.reports.pop(job, None)

    def overdue(self, now_s: float) -> dict[int, str]:
        """The attempts that a client has not reached for the worker timeout, and why."""
        patience_s = self.timing.worker_timeout_s
        return {
            number: report.why
            for reports in self.reports.values()
            for number, report in reports.items()
            if number in self.state.attempts and now_s >= report.since_s + patience_s
        }

    def avoid(self, job: str, worker: str, now_s: float) -> None:
        """The job's splits go to other workers, while there are any."""
        until_s = now_s + _AVOIDED_TIMEOUTS * self.timing.worker_timeout_s
        self.avoided.setdefault(job, {})[worker] = until_s

    def expire(self, now_s: float) -> None:
        """Ends what was avoided for long enough."""
        for job, workers in list(self.avoided.items()):
            for worker in [worker for worker, until_s in workers.items() if until_s <= now_s]:
                del workers[worker]
            if not workers:
                del self.avoided[job]

    def forgive(self, now_s: float) -> None:
        """Counts every report from now on: this process was paused, and its clients were not."""
        for reports in self.reports.values():
            for number, report in reports.items():
                reports[number] = Report(now_s, report.why)

    def deadline_s(self, now_s: float) -> float:
        """When `overdue` or `expire` will have something next."""
        deadlines = [until_s for at in self.avoided.values() for until_s in at.values()]
        deadlines += [
            # What is overdue already and cannot be helped is looked at again, not at once.
            max(report.since_s, now_s) + self.timing.worker_timeout_s
            if now_s >= report.since_s + self.timing.worker_timeout_s
            else report.since_s + self.timing.worker_timeout_s
            for reports in self.reports.values()
            for report in reports.values()
        ]
        return min(deadlines, default=float("inf"))

    async def stop(self) -> None:
        """Ends all probes."""
        self._stopped = True
        tasks = list(self._probes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, worker: Worker) -> None:
        """Probes the worker while reports about it stand; one probe of a worker at a time."""
        if worker.worker in self._probes or worker.incarnation in self._distrusted:
            return
        task = asyncio.get_running_loop().create_task(
            self._watch(worker), name=f"probe-{worker.worker}"
        )
        self._probes[worker.worker] = task
        task.add_done_callback(lambda _: self._probes.pop(worker.worker, None))

    async def _watch(self, worker: Worker) -> None:
        pause_s = self.timing.retry_min_s
        while self._is_doubted(worker):
            asked_s = time.monotonic()
            answer = await probe(
                worker.address, worker.worker, self.timing.probe_deadline_s, self.access
            )
            failpoint("dispatcher.after_probe")
            logger.info("probe of worker %s: %s", worker.worker, answer.detail)
            if self._stopped or self.state.workers.get(worker.worker) is not worker:
                return  # it was lost, and may have registered anew: that is another story
            heard = self.heard_s.get(worker.worker, 0.0) >= asked_s
            if self._is_dead(worker, answer.verdict) and not heard:
                _remember(self._condemned, worker.incarnation)
                self.lose(worker.worker, f"a client cannot reach it, and {answer.detail}")
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self.timing.retry_max_s)

    def _is_doubted(self, worker: Worker) -> bool:
        """Whether this very process is registered, and a client says that it cannot reach it."""
        return self.state.workers.get(worker.worker) is worker and any(
            number in worker.attempts for reports in self.reports.values() for number in reports
        )

    def _is_dead(self, worker: Worker, verdict: Verdict) -> bool:
        if verdict is Verdict.STRANGER:
            # One that was just registered may not know its id yet.
            return self._introduced.get(worker.worker) == worker.incarnation
        return verdict is Verdict.REFUSED


def _remember(incarnations: dict[str, None], incarnation: str) -> None:
    incarnations[incarnation] = None
    while len(incarnations) > _REMEMBERED_MAX:
        del incarnations[next(iter(incarnations))]
