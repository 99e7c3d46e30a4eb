"""What is answered about faults in the simulation, and what must follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.dispatcher import events as ev
from penstock.recovery.extensions import Answer
from penstock.recovery.failover import FailureInfo
from penstock.recovery.strategy import FailoverStrategy

if TYPE_CHECKING:
    from .clock import Process
    from .world import World

#: The strategies in the order of the setup's weights; the last one is no answer at all.
ANSWERS = (*FailoverStrategy, None)
_DEADLINE_S = 3.0
_SLOWEST_S = 1.0


class SimAskers:
    """Answers by the dice, after a while or never; each fault may be put to it once a life."""

    def __init__(self, world: World, process: Process) -> None:
        self.name = "dice"
        self.deadline_s = _DEADLINE_S
        self._world = world
        self._process = process
        self._asked: set[int] = set()

    def has(self, name: str) -> bool:
        return not name

    def add(self, name: str, extension: Any) -> None:
        raise AssertionError(f"nobody named {name}")

    def submit(
        self, name: str, info: FailureInfo, done: Callable[[Answer], None]
    ) -> Callable[[], None]:
        world = self._world
        if info.fault in self._asked:
            world.broken(f"fault {info.fault} was put to the extension twice")
        self._asked.add(info.fault)
        strategy = world.rng.choices(ANSWERS, world.setup.answers)[0]
        delay_s = world.rng.random() * world.rng.choice((0.01, _SLOWEST_S))
        world.trace("fault", info.fault, info.kind.value, info.worker, strategy)
        if strategy is None:
            return lambda: None
        timer = self._process.after(delay_s, done, Answer(strategy, self.name))
        return timer.cancel

    def close(self) -> None:
        pass


class FailoverWitness:
    """Reads the journal in its order, and says what does not fit decisions that stand in it.

    It shares nothing with `State`: workers, attempts and jobs are what the records say.
    """

    def __init__(self) -> None:
        self._faults: list[ev.FaultRaised] = []
        self._open: set[int] = set()
        self._incarnations: dict[str, str] = {}
        self._retired: set[str] = set()
        self._aborted: set[str] = set()
        self._jobs: dict[str, None] = {}
        self._attempts: dict[int, str] = {}
        #: By job, the attempts up to this one are over.
        self.floor: dict[str, int] = {}
        self.strategies: list[str] = []
        self.verdicts: list[str] = []

    def see(self, event: Any) -> str:
        """The next record; what is wrong with it, or nothing."""
        match event:
            case ev.FaultRaised():
                self._faults.append(event)
                self._open.add(len(self._faults))
            case ev.FailoverDecided():
                return self._decide(event)
            case ev.ProbeEnded(outcome="differs"):
                return f"{event}: it is what another worker has made, and what is known is wrong"
            case ev.CrossChecked(verdict=verdict):
                self.verdicts.append(verdict)
            case ev.JobOpened(job) | ev.ClientJoined(job):
                self._jobs[job] = None
                self._aborted.discard(job)
            case ev.JobClosed(job):
                self._jobs.pop(job)
            case ev.WorkerRegistered():
                self._incarnations[event.worker] = event.incarnation
            case ev.WorkerReadmitted(worker):
                self._retired.discard(self._incarnations[worker])
            case ev.AttemptAssigned(attempt, job):
                self._attempts[attempt] = job
                if self._incarnations[event.worker] in self._retired:
                    return f"{event} is for a worker that is retired"
                if job in self._aborted:
                    return f"{event} is of a job that was aborted"
            case ev.AttemptFailed(attempt) | ev.AttemptDropped(attempt):
                if attempt <= self.floor.get(self._attempts[attempt], 0):
                    return f"{event} is of an attempt that had to begin again"
            case ev.SplitDelivered() if event.job in self._aborted:
                return f"{event} is of a job that was aborted"
        return ""

    def _decide(self, event: ev.FailoverDecided) -> str:
        if event.fault not in self._open:
            return f"{event}: the fault is not open"
        self._open.discard(event.fault)
        self.strategies.append(event.strategy)
        fault = self._faults[event.fault - 1]
        jobs = [job for job in self._jobs if fault.job in ("", job)]
        if event.strategy == "NODE_FAILOVER":
            self._retired.add(fault.incarnation)
        elif event.strategy == "GLOBAL_FAILOVER":
            self.floor.update(dict.fromkeys(jobs, max(self._attempts, default=0)))
        elif event.strategy == "ABORTION_FAILOVER":
            self._aborted.update(jobs)
        return ""
