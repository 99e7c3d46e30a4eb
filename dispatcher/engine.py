"""The one place where things happen: events are applied, journaled and made known.

Everything runs in one event loop. `commit` applies and appends in one step; the scheduler runs once
in a loop turn after something changed, however many requests changed it; a timer sleeps until the
next moment at which somebody's silence would be too long. Who answers a request waits for
`settled` (so that the answer holds what the scheduler made of it) and, before the reply leaves, for
`durable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from . import events as ev
from . import scheduler
from .events import encode
from .liveness import Liveness
from .news import News
from .notices import Notices
from .scheduler import Facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..timing import Timing
    from .commit import Committer
    from .events import Event
    from .state import State

logger = logging.getLogger(__name__)

#: A timer that wakes later than this part of a timeout tells that this process was paused.
_LATE = 0.2


class Engine:
    """Decides, journals, tells.

    Args:
        state: replayed; nobody else may change it.
        committer: of the journal that the state was replayed from.
        timing: intervals and deadlines.

    Attributes:
        state: read it freely.
        news: versions and held calls of workers and jobs.
        produced: by worker, those of its attempts that are produced whole.
        elements: how many elements each running attempt has made.
        unreachable: by job, the attempts whose worker its client cannot reach, and why.
        notices: what is waited for.
        lost_s: when each worker in `state.lost` was lost, if that was in this term.
    """

    def __init__(self, state: State, committer: Committer, timing: Timing) -> None:
        self.state = state
        self.committer = committer
        self.timing = timing
        self.news = News()
        self.notices = Notices()
        self.started_s = time.monotonic()
        self.produced: dict[str, set[int]] = {}
        self.elements: dict[int, int] = {}
        self.unreachable: dict[str, dict[int, str]] = {}
        self.lost_s: dict[str, float] = {}
        self.liveness = Liveness()
        self._facts = Facts(self.liveness.heard_s, self.produced)
        self._touched: set[str] = set()
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._timer_news = asyncio.Event()

    def start(self) -> None:
        """Begins a term: everybody known gets a fresh time to be heard of."""
        self.commit([ev.TermStarted(self.state.term + 1)])
        # Its client was never told of such a job: the process ended between two records.
        unknown = [job for job in self.state.jobs.values() if not job.name and not job.attached]
        self.commit([ev.JobClosed(job.job, "it has no client") for job in unknown])
        now_s = time.monotonic()
        for worker in self.state.workers:
            self.hear(worker, now_s)
        for job in self.state.jobs.values():
            if job.attached:
                self.hear(job.job, now_s)
        self._timer = asyncio.get_running_loop().create_task(self._run_timer())

    async def stop(self) -> None:
        """Ends the timer and releases every held call."""
        self.news.close()
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    def commit(self, events: Sequence[Event]) -> None:
        """Applies and appends events, and makes them known to those whose view they change."""
        self._apply(events)
        if events:
            self.changed()

    def changed(self) -> None:
        """Something changed that the scheduler may want to look at."""
        if self._settled is None:
            loop = asyncio.get_running_loop()
            self._settled = loop.create_future()
            loop.call_soon(self._schedule)

    async def settled(self) -> None:
        """Waits until the scheduler has looked at everything that happened."""
        if self._settled is not None:
            await asyncio.shield(self._settled)

    async def durable(self) -> None:
        """Waits until everything that happened so far is journaled durably."""
        await self.committer.durable()

    def hear(self, peer: str, now_s: float | None = None) -> None:
        """A worker, or a job's client, is alive."""
        new = peer not in self.liveness.heard_s
        self.liveness.hear(peer, time.monotonic() if now_s is None else now_s)
        if new:
            self._timer_news.set()

    def report(self, worker: str, produced: Iterable[int], elements: dict[int, int]) -> None:
        """What a worker says of its running attempts."""
        known = self.state.workers[worker].attempts
        now_produced = {number for number in produced if number in known}
        if now_produced != self.produced.get(worker, set()):
            self.produced[worker] = now_produced
            self.changed()
        self.elements.update((at, made) for at, made in elements.items() if at in known)

    def report_unreachable(self, job: str, attempts: dict[int, str]) -> None:
        """What a client says of workers; only noted, for the heartbeats decide who is lost."""
        known = self.unreachable.get(job, {})
        running = {at: why for at, why in attempts.items() if at in self.state.attempts}
        for number in running.keys() - known.keys():
            worker = self.state.attempts[number].worker
            logger.warning(
                "the client of job %s cannot reach worker %s for attempt %d: %s",
                job,
                worker,
                number,
                running[number],
            )
        self.unreachable[job] = running

    def _schedule(self) -> None:
        settled, self._settled = self._settled, None
        try:
            self._prune()
            self._apply(scheduler.late_promotion(self.state))
            self._apply(scheduler.assignments(self.state, self._facts))
            self._notice()
        finally:
            if settled is not None and not settled.done():
                settled.set_result(None)

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            record = encode(event)
            touched = self.state.apply(event)
            self.committer.append(record)
            self.news.bump(touched)
            self._touched |= touched
            self._note(event)

    def _prune(self) -> None:
        """Forgets what was said of attempts that are not running any more."""
        for name in self._touched:
            worker = self.state.workers.get(name)
            if name in self.produced:
                known = worker.attempts if worker else {}
                self.produced[name] = {at for at in self.produced[name] if at in known}
        self._touched.clear()
        if len(self.elements) > 2 * len(self.state.attempts) + 64:
            running = self.state.attempts
            self.elements = {at: made for at, made in self.elements.items() if at in running}

    def _notice(self) -> None:
        waiting = scheduler.waits_for_workers(self.state)
        changed = self.notices.waiting(waiting, time.monotonic())
        self.news.bump(changed)
        if waiting:
            self._timer_news.set()

    async def _run_timer(self) -> None:
        while True:
            deadline_s = self._next_deadline_s()
            self._timer_news.clear()
            await self._sleep_until(deadline_s)
            now_s = time.monotonic()
            if now_s < deadline_s:
                continue
            worker_timeout_s = self.timing.worker_timeout_s
            if now_s - deadline_s > _LATE * worker_timeout_s:
                logger.warning(
                    "this process was paused or is overloaded: a timer was %.1f s late;"
                    " nobody is declared dead for that",
                    now_s - deadline_s,
                )
                self.liveness.forgive(now_s, worker_timeout_s / 2)
            self._judge(now_s)

    def _judge(self, now_s: float) -> None:
        timing, state = self.timing, self.state
        self.commit(scheduler.lost_workers(state, self._facts, now_s, timing.worker_timeout_s))
        self.commit(scheduler.lost_clients(state, self._facts, now_s, timing.client_timeout_s))
        self.news.bump(self.notices.judge(state, now_s, timing.worker_timeout_s))

    def _next_deadline_s(self) -> float:
        timing, state = self.timing, self.state
        heard_s = self.liveness.heard_s
        deadlines = [self.notices.deadline_s(timing.worker_timeout_s)]
        deadlines += [
            heard_s[name] + timing.worker_timeout_s for name in state.workers if name in heard_s
        ]
        deadlines += [
            heard_s[job.job] + timing.client_timeout_s
            for job in state.jobs.values()
            if job.attached and job.job in heard_s
        ]
        return min(deadlines)

    async def _sleep_until(self, deadline_s: float) -> None:
        timeout_s = max(0.0, deadline_s - time.monotonic())
        forever = timeout_s == float("inf")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._timer_news.wait(), None if forever else timeout_s)

    def _note(self, event: Event) -> None:
        """What follows from an event outside the state: who is listened to, and the log."""
        match event:
            case ev.WorkerLost(worker, reason):
                self.liveness.forget(worker)
                self.news.forget(worker)
                self.produced.pop(worker, None)
                self.lost_s = {w: at for w, at in self.lost_s.items() if w in self.state.lost}
                self.lost_s[worker] = time.monotonic()
                logger.warning("worker %s is lost: %s", worker, reason)
            case ev.WorkerRegistered():
                self.hear(event.worker)
                kind = "standby" if event.standby else "worker"
                logger.info("%s %s registered at %s", kind, event.worker, event.address)
            case ev.WorkerPromoted(worker):
                logger.warning("standby %s takes over", worker)
            case ev.ClientJoined(job, client):
                self.hear(job)
                logger.info("client %s has job %s", client, self.state.jobs[job].label)
            case ev.ClientLeft(job, reason):
                self.liveness.forget(job)
                logger.info("job %s has no client: %s", job, reason)
            case ev.JobClosed(job, reason):
                self.liveness.forget(job)
                self.news.forget(job)
                self.unreachable.pop(job, None)
                logger.info("job %s is closed: %s", job, reason)
            case ev.JobFailed(job, reason):
                logger.error("job %s failed: %s", job, reason)
            case ev.AttemptFailed(attempt, code, detail):
                logger.warning("attempt %d failed: %s: %s", attempt, code, detail)
            case ev.AttemptDropped(attempt, reason):
                logger.warning("attempt %d is void: %s", attempt, reason)
            case ev.EpochStarted() | ev.EpochFinished() | ev.EpochAbandoned():
                logger.info("%s", event)
            case ev.AttemptAssigned() | ev.SplitDelivered():
                logger.debug("%s", event)
