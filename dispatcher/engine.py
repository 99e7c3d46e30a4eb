"""The one place where things happen: events are applied, journaled and made known.

Everything runs in one event loop. `commit` applies and appends in one step; the scheduler runs once
in a loop turn after something changed, however many requests changed it; a timer sleeps until the
next moment at which somebody's silence would be too long. Who answers a request waits for
`settled` (so that the answer holds what the scheduler made of it) and, before the reply leaves, for
`durable`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ..failpoints import failpoint
from ..recovery.extensions import Askers
from ..recovery.failover import FailureKind
from . import events as ev
from . import scheduler
from .alarm import Alarm
from .caching import Measures
from .deciding import Deciding
from .event_records import encode
from .facts import Facts
from .fault_events import FailoverDecided, FaultRaised, WorkerReadmitted
from .faults import worker_faults
from .liveness import Liveness
from .loglines import log_event
from .news import News
from .notices import Notices, slow
from .offers import Offers
from .progress import is_gone
from .reachability import Reachability
from .reports import Reports
from .seats import Seats
from .telling import Telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..proto import control_pb2
    from ..recovery.alerts import Alerts
    from ..timing import Timing
    from .commit import Committer
    from .deciding import Asks
    from .events import Event
    from .offers import Offer
    from .state import State

logger = logging.getLogger(__name__)

#: A timer that wakes later than this part of a timeout tells that this process was paused.
_LATE = 0.2
#: For so many worker timeouts it is remembered that a worker was taken for dead and was not.
_MISTAKES = 100
#: How many jobs are remembered that lost their client, or were closed.
_ENDINGS_MAX = 256
#: Progress is looked at so many times in the shortest time that matters for it.
_LOOKS = 8
#: After these it has to be looked anew at who may get work.
_SEATING = (
    ev.WorkerRegistered,
    ev.WorkerLost,
    ev.WorkerPromoted,
    ev.StoreAttached,
    FailoverDecided,
    WorkerReadmitted,
)


class Engine:
    """Decides, journals, tells.

    Args:
        state: replayed; nobody else may change it.
        committer: of the journal that the state was replayed from.
        timing: intervals and deadlines.
        askers: who says what is done about faults; None: the default.
        alerts: tells a person of what needs one; None: by the log alone.

    Attributes:
        state: read it freely.
        news, telling: versions and held calls of workers and jobs, and who is told of an event.
        reports: how far the running attempts are.
        offers: which splits live workers can continue.
        reachability: which workers clients cannot reach.
        notices: what is waited for.
        measures: what the first splits of datasets cost, for `auto` caches.
        deciding: what is done about faults.
        endings: why the jobs that lost their client last did so, by id.
        first_term: the term with which everything began, if there is no journal; else 0.
        lost_s: when each worker in `state.lost` was lost, if that was in this term.
    """

    def __init__(
        self,
        state: State,
        committer: Committer,
        timing: Timing,
        askers: Asks | None = None,
        alerts: Alerts | None = None,
    ) -> None:
        self.state = state
        self.committer = committer
        self.timing = timing
        self.news = News()
        self.notices = Notices()
        self.measures = Measures()
        self.started_s = time.monotonic()
        self.reports = Reports()
        self.telling = Telling(state, self.news, self.reports.produced)
        self.offers = Offers()
        self.endings: dict[str, str] = {}
        self.lost_s: dict[str, float] = {}
        self.liveness = Liveness()
        heard_s = self.liveness.heard_s
        self.reachability = Reachability(state, timing, heard_s, self._lose)
        # Without a journal the life before this one is forgotten, but not by its peers: numbers
        # that follow the clock are not those of that life.
        self.first_term = 0 if committer.keeps else max(state.term + 1, time.time_ns() // 1_000_000)
        self._facts = Facts(
            heard_s,
            self.reports.produced,
            self.offers.by_worker,
            self.reachability.avoided,
            self.reports.progress,
            self.liveness.mistakes,
            first_attempt=1000 * self.first_term,
        )
        self._askers = askers or Askers()
        self.deciding = Deciding(state, self._facts, self.offers, self.commit, self._askers, alerts)
        self._touched: set[str] = set()
        self._seats: Seats | None = None  # made when it is next needed
        self._epochs_over = False
        self._warned: set[int] = set()
        self._look_s = float("inf")
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._alarm = Alarm()

    def start(self) -> None:
        """Begins a term: everybody known gets a fresh time to be heard of."""
        self.commit([ev.TermStarted(max(self.state.term + 1, self.first_term))])
        # Its client was never told of such a job: the process ended between two records.
        unknown = [job for job in self.state.jobs.values() if not job.name and not job.attached]
        self.commit([ev.JobClosed(job.job, "it has no client") for job in unknown])
        now_s = time.monotonic()
        attached = [job.job for job in self.state.jobs.values() if job.attached]
        for peer in [*self.state.workers, *attached]:
            self.hear(peer, now_s)
        for attempt in self.state.attempts.values():
            self.reports.began(attempt, now_s)
        self.deciding.start()
        self._timer = asyncio.get_running_loop().create_task(self._run_timer())

    async def stop(self) -> None:
        """Ends the timer and all probes, and releases every held call."""
        self.news.close()
        self._askers.close()
        await self.reachability.stop()
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
        now_s = time.monotonic() if now_s is None else now_s
        self.liveness.hear(peer, now_s)
        # The timer looks at everybody; it need not for a peer that will be late after others.
        if new:
            timing = self.timing
            timeout_s = min(timing.worker_timeout_s, timing.client_timeout_s)
            self._alarm.ring_if_before(now_s + timeout_s)

    def offer(self, worker: str, offers: list[Offer]) -> list[int]:
        """What a worker that registers can continue; returns the places of what is wanted."""
        self._seats = None
        return self.offers.set(self.state, worker, offers)

    def report(self, worker: str, held: Iterable[control_pb2.HeldAttempt]) -> None:
        """What a worker says of its running attempts."""
        known = self.state.workers[worker]
        self.reachability.introduced(known)
        if self.reports.take(known, held, time.monotonic()):
            self._touched.add(worker)
            self.changed()

    def report_unreachable(self, job: str, attempts: Mapping[int, str]) -> None:
        """What a client says of workers: they are asked, see `Reachability`."""
        self.reachability.report(job, attempts, time.monotonic())
        if attempts:
            self._alarm.ring()

    def _lose(self, worker: str, reason: str) -> None:
        faults = worker_faults(self.state, worker, FailureKind.DEATH, reason)
        lost = ev.WorkerLost(worker, reason)
        self.commit([*faults, lost, *scheduler.promotions(self.state, {worker})])

    def _schedule(self) -> None:
        settled, self._settled = self._settled, None
        try:
            touched, self._touched = self._touched, set()
            self._prune(touched)
            self._apply(scheduler.follow_ups(self.state))
            seats = self._current_seats(touched)
            self._apply(scheduler.assignments(self.state, self._facts, seats))
            self._notice()
        finally:
            if settled is not None and not settled.done():
                settled.set_result(None)

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            record = encode(event)
            touched = self.state.apply(event)
            self.committer.append(record)
            self.telling.tell(event, touched)
            self._touched |= touched
            if isinstance(event, _SEATING):
                self._seats = None
            self._note(event, touched)

    def _current_seats(self, touched: Iterable[str]) -> Seats:
        """Which workers have room, given those whose attempts have changed since the last time."""
        if self._seats is None:
            self._seats = Seats(self.state, self._facts)
        else:
            self._seats.update(self._facts, touched)
        return self._seats

    def _prune(self, touched: Iterable[str]) -> None:
        """Forgets what was said of attempts and epochs that are over."""
        for name in touched:
            worker = self.state.workers.get(name)
            self.reports.ended(name, worker.attempts if worker else ())
        if self._epochs_over:
            self._epochs_over = False
            if self.offers.by_worker:
                self._seats = None
            self.offers.prune(self.state)
            self.reports.prune(self.state)

    def _notice(self) -> None:
        waiting = scheduler.waits_for_workers(self.state)
        changed = self.notices.waiting(waiting, time.monotonic())
        self.news.bump(changed)
        if waiting:
            self._alarm.ring()

    async def _run_timer(self) -> None:
        while True:
            deadline_s = self._next_deadline_s()
            await self._alarm.sleep_until(deadline_s)
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
                self.reports.forgive(now_s)
                self.reachability.forgive(now_s)
            self._judge(now_s)

    def _judge(self, now_s: float) -> None:
        timing, state = self.timing, self.state
        self.liveness.forget_mistakes(now_s - _MISTAKES * timing.worker_timeout_s)
        self.commit(scheduler.lost_workers(state, self._facts, now_s, timing.worker_timeout_s))
        self.commit(scheduler.lost_clients(state, self._facts, now_s, timing.client_timeout_s))
        self.news.bump(self.notices.judge(state, now_s, timing.worker_timeout_s))

        self._judge_ways(now_s)
        self._judge_progress(now_s)

    def _judge_ways(self, now_s: float) -> None:
        """Has made elsewhere what a client has not got at for long, though its worker is alive."""
        self.reachability.expire(now_s)
        overdue = self.reachability.overdue(now_s)
        events = scheduler.detours(self.state, self._facts, overdue)
        for event in events:
            attempt = self.state.attempts[event.attempt]
            self.reachability.avoid(attempt.job, attempt.worker, now_s)
        self.commit(events)

    def _judge_progress(self, now_s: float) -> None:
        """Ends what is stuck, and names what stands still while a client waits for it."""
        if now_s < self._look_s:
            return
        timing, state, facts = self.timing, self.state, self._facts
        self._look_s = float("inf")  # until `_next_deadline_s` sees that there is something
        if timing.progress_timeout_s > 0:
            self.commit(scheduler.stuck_attempts(state, facts, now_s, timing.progress_timeout_s))
        numbers = scheduler.slow_attempts(state, facts, timing.warn_after_s)
        for number in [number for number in numbers if number not in self._warned]:
            logger.warning("%s", slow(state, facts.progress[number], now_s))
        self._warned = set(numbers)

    def slow_texts(self, now_s: float) -> list[str]:
        """What clients wait for longer than they should."""
        numbers = scheduler.slow_attempts(self.state, self._facts, self.timing.warn_after_s)
        return [slow(self.state, self._facts.progress[number], now_s) for number in numbers]

    def _next_deadline_s(self) -> float:
        timing, state = self.timing, self.state
        silent_s = timing.worker_timeout_s, timing.client_timeout_s
        deadlines = scheduler.silences_s(state, self._facts, *silent_s)
        now_s = time.monotonic()
        if state.attempts and self._look_s == float("inf"):
            waits_s = [wait for wait in (timing.progress_timeout_s, timing.warn_after_s) if wait]
            self._look_s = now_s + min(waits_s) / _LOOKS
        deadlines += [self._look_s, self.reachability.deadline_s(now_s)]
        return min(*deadlines, self.notices.deadline_s(timing.worker_timeout_s))

    def _note(self, event: Event, touched: set[str]) -> None:
        """What follows from an event outside the state: who is listened to, and the log."""
        log_event(self.state, event)
        match event:
            case ev.AttemptAssigned(attempt):
                self.reports.began(self.state.attempts[attempt], time.monotonic())
                if self._look_s == float("inf"):
                    self._alarm.ring()
                failpoint("dispatcher.assign.after_append")
            case ev.WorkerLost(worker):
                self.liveness.forget(worker)
                self.news.forget(worker)
                self.telling.told(worker)
                self.offers.forget(worker)
                self.reachability.lost(worker)
                known = {w: at for w, at in self.lost_s.items() if w in self.state.lost}
                self.lost_s = {**known, worker: time.monotonic()}
                failpoint("dispatcher.worker_lost.after_append")
            case ev.WorkerRegistered():
                # Only a process that was lost gets its old id back.
                if self.lost_s.pop(event.worker, None) is not None:
                    self.liveness.mistaken(event.worker, time.monotonic())
                self.hear(event.worker)
                self.reachability.registered(self.state.workers[event.worker])
            case ev.ClientJoined(job):
                self.hear(job)
                self.reachability.forget_job(job)
                self._epochs_over = True
            case ev.ClientLeft(job, reason):
                self._ended(job, reason)
            case ev.JobClosed(job, reason):
                self._closed(job, reason)
            case ev.GroupFormed(group):
                for job in touched.intersection(self.state.groups[group].former):
                    self._closed(job, "its group was resized")
            case ev.AttemptDropped(attempt) if is_gone(event):
                self.reports.dropped(attempt)
            case ev.EpochStarted() | ev.EpochFinished() | ev.EpochAbandoned():
                self._epochs_over = True
            case ev.JobFailed() | FailoverDecided():
                self._epochs_over = True
            case FaultRaised():
                self.deciding.raised(self.state.failover.next_fault - 1)

    def _closed(self, job: str, reason: str) -> None:
        self._ended(job, reason)
        self.news.forget(job)
        self.reports.forget_job(job)

    def _ended(self, job: str, reason: str) -> None:
        """The job lost its client, for good or not."""
        self.liveness.forget(job)
        self.reachability.forget_job(job)
        self._epochs_over = True
        self.endings.pop(job, None)
        self.endings[job] = reason
        while len(self.endings) > _ENDINGS_MAX:
            del self.endings[next(iter(self.endings))]
