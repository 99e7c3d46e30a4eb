"""Puts open faults to extensions, and carries their answers out. Belongs to one event loop.

An extension is a user's code and may block, so it is asked in a thread of its own (`Askers`). What
it answers comes back to the loop, where `failover.decide` makes events of it. An answer that does
not come in time is replaced by the default; a fault is decided once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..failpoints import failpoint
from ..recovery.extensions import default_answer, load_extension
from ..recovery.failover import Budgets
from . import failover, fault_texts, probing
from .fault_events import FailoverDecided
from .faults import info_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..recovery.alerts import Alerts
    from ..recovery.extensions import Answer
    from ..recovery.failover import FailoverExtension, FailureInfo
    from .events import Event
    from .facts import Facts
    from .offers import Offers
    from .state import State

logger = logging.getLogger(__name__)

_PROBLEMS_MAX = 8
_DECISIONS_SHOWN = 16
_INSTEAD = "the dispatcher's own extension is asked instead"


class Asks(Protocol):
    """What is needed of `recovery.extensions.Askers`."""

    name: str
    deadline_s: float

    def has(self, name: str) -> bool: ...
    def add(self, name: str, extension: FailoverExtension) -> None: ...
    def submit(
        self, name: str, info: FailureInfo, done: Callable[[Answer], None]
    ) -> Callable[[], None]: ...
    def close(self) -> None: ...


class Deciding:
    """The faults that wait for an answer.

    Args:
        state: read only.
        facts: of the moment.
        offers: which splits workers can continue; gets those that all workers restart.
        commit: journals and applies events.
        askers: who is asked.
        alerts: tells a person of what needs one; None: by the log alone.

    Attributes:
        problems: what was wrong with extensions lately.
        steps: by job, the step that its trainer has told of last.
    """

    def __init__(
        self,
        state: State,
        facts: Facts,
        offers: Offers,
        commit: Callable[[Sequence[Event]], None],
        askers: Asks,
        alerts: Alerts | None = None,
    ) -> None:
        self.problems: deque[str] = deque(maxlen=_PROBLEMS_MAX)
        self.steps: dict[str, int] = {}
        self._state = state
        self._facts = facts
        self._offers = offers
        self._commit = commit
        self._askers = askers
        self._alerts = alerts
        self._budgets = Budgets()
        self._asked: dict[int, tuple[float, Callable[[], None]]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Puts the faults to the extensions again that a former term left open."""
        names = {job.failover for job in self._state.jobs.values()} - {""}
        if names:
            # A module may do anything when it is loaded: nobody waits for that at a start.
            self._loading = asyncio.get_running_loop().create_task(self._reload(names))
        else:
            self._ask_all()

    def _ask_all(self) -> None:
        for number in list(self._state.failover.open):
            if number not in self._asked:
                self.raised(number)

    def stepped(self, job: str, request: Any) -> None:
        """A trainer tells, with a request of its job, which step it is at, if it knows."""
        if request.HasField("trainer_step"):
            self.steps[job] = request.trainer_step
            if len(self.steps) > 2 * len(self._state.jobs) + 64:
                self.steps = {at: n for at, n in self.steps.items() if at in self._state.jobs}

    async def prepare(self, name: str) -> None:
        """Loads the extension of a job that is being opened.

        Raises:
            UsageError: there is none of that name; the text says why.
        """
        if name and not self._askers.has(name):
            self._askers.add(name, await _loaded(name))

    async def idle(self) -> None:
        """Waits until every fault is decided."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        await self._idle.wait()

    def raised(self, number: int) -> None:
        """A fault is open: its extension is asked."""
        if self._loading is not None:
            return  # all that are open are asked about afterwards
        fault = self._state.failover.open[number]
        now_s, facts = time.monotonic(), self._facts
        moment = (now_s, facts.progress, facts.heard_s)
        step = self.steps.get(fault.job)
        info = info_of(self._state, number, *moment, self._budgets, step)
        job = self._state.jobs.get(fault.job)
        name = job.failover if job is not None and self._askers.has(job.failover) else ""
        loop = asyncio.get_running_loop()

        def answered(answer: Answer) -> None:
            with contextlib.suppress(RuntimeError):  # this process has ended meanwhile
                loop.call_soon_threadsafe(self._answered, number, answer)

        give_up = self._askers.submit(name, info, answered)
        self._asked[number] = now_s, give_up
        self._idle.clear()
        loop.call_later(self._askers.deadline_s, self._late, number, info, name)

    async def _reload(self, names: set[str]) -> None:
        """Loads the extensions of jobs that were opened in a former term."""
        for name in sorted(names):
            loading = asyncio.wait_for(_loaded(name), self._askers.deadline_s)
            try:
                self._askers.add(name, await loading)
            except asyncio.TimeoutError:
                deadline_s = self._askers.deadline_s
                self._problem(f"{name} is not loaded within {deadline_s:g} s; {_INSTEAD}")
            except Exception as error:
                self._problem(f"{error}; {_INSTEAD}")
        self._loading = None
        self._ask_all()

    def _late(self, number: int, info: FailureInfo, name: str) -> None:
        if number not in self._asked:
            return
        self._asked[number][1]()
        problem = f"{name or self._askers.name} did not answer within {self._askers.deadline_s:g} s"
        self._answered(number, default_answer(info, problem))

    def _answered(self, number: int, answer: Answer) -> None:
        if self._asked.pop(number, None) is None:
            return  # too late
        if not self._asked:
            self._idle.set()
        fault = self._state.failover.open[number]
        if answer.problem:
            self._problem(f"fault {number}: {answer.problem}; {answer.strategy.value} was taken")
        events = failover.decide(self._state, number, answer, self._budgets)
        (strategy,) = (e.strategy for e in events if isinstance(e, FailoverDecided))
        if strategy == failover.GLOBAL.value:
            self._keep_places(fault.job)
        failpoint("dispatcher.failover.before_commit")
        self._commit(events)
        self._tell(number, events, answer)

    def _tell(self, number: int, events: Sequence[Event], answer: Answer) -> None:
        """Calls a person, if a decision needs one."""
        summary = fault_texts.summary_of(self._state, number, events)
        if not summary:
            return
        # Not at the head: most dispatchers never need it.
        from ..recovery.alerts import Alert, Alerts

        self._alerts = self._alerts or Alerts(None)
        fault, _ = self._state.failover.decided[number]
        subject = fault_texts.text_of(fault)
        self._alerts.send(Alert(summary, subject, answer.diagnosis, needs_operator=True))

    def _keep_places(self, job_id: str) -> None:
        """Attempts that all begin again do where their checkpoints are."""
        for attempt in failover.attempts_of(self._state, job_id):
            job = self._state.jobs[attempt.job]
            key = (job.streams[attempt.stream].dataset, job.seed, attempt.epoch, attempt.split)
            self._offers.by_worker.setdefault(attempt.worker, set()).add(key)

    def _problem(self, text: str) -> None:
        logger.error("failover extension: %s", text)
        self.problems.append(text)

    def waiting(self, now_s: float) -> list[str]:
        """What an answer is waited for, in words."""
        return [
            f"the failover extension is asked about fault {number} for {now_s - since_s:.1f} s:"
            f" {fault_texts.text_of(self._state.failover.open[number])}"
            for number, (since_s, _) in self._asked.items()
        ]

    def picture(self) -> dict[str, Any]:
        """What `penstock status` shows."""
        book = self._state.failover
        decided = list(book.decided.items())[-_DECISIONS_SHOWN:]
        return {
            "extension": self._askers.name,
            "deadline_s": self._askers.deadline_s,
            "faults": book.next_fault - 1,
            "open": [
                {"fault": number, "job": fault.job, "text": fault_texts.text_of(fault)}
                for number, fault in book.open.items()
            ],
            "decisions": [
                {
                    "fault": number,
                    "job": fault.job,
                    "text": fault_texts.text_of(fault),
                    "strategy": made.strategy,
                    "asked": made.asked or None,
                    "source": made.source,
                    "reason": made.reason,
                    "root_cause": made.root_cause or None,
                }
                for number, (fault, made) in decided
            ],
            "retired": [
                {"worker": retired.worker, "address": retired.host, "reason": retired.reason}
                for retired in book.retired.values()
            ],
            "probes": [probing.text_of(probe.started) for probe in book.probes.values()],
            "verdicts": [
                {"text": probing.text_of(started), "verdict": made.verdict, "detail": made.detail}
                for started, made in book.checked.values()
            ],
            "budgets": _budgets(book, self._budgets),
            "problems": list(self.problems),
        }


async def _loaded(name: str) -> FailoverExtension:
    """The extension of a job.

    A module may do anything when it is loaded, and may never end: so that is done in a daemon's
    thread, and not in one of the loop's own, for which the loop would wait at its end.

    Raises:
        UsageError: there is none of that name; the text says why.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[FailoverExtension] = loop.create_future()

    def ended(made: FailoverExtension | Exception) -> None:
        if future.done():  # nobody waits any more
            return
        if isinstance(made, Exception):
            future.set_exception(made)
        else:
            future.set_result(made)

    def load() -> None:
        made: FailoverExtension | Exception
        try:
            made = load_extension(name, "failover_extension")
        except Exception as error:
            made = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(ended, made)

    threading.Thread(target=load, name=f"penstock-load-{name}", daemon=True).start()
    return await future


def _budgets(book: failover.FailoverBook, budgets: Budgets) -> list[dict[str, Any]]:
    """What jobs have spent of strategies that have a budget."""
    out = []
    for job in book.spent:
        for strategy in (failover.NODE, failover.GLOBAL):
            use = budgets.use(strategy, 0, book.times(job, strategy.value))
            assert use is not None, "it has a budget"
            if use.used:
                out.append(
                    {"job": job, "strategy": strategy.value, "used": use.used, "left": use.left}
                )
    return out
