"""One run of the simulation: a cluster, trainers, a schedule of faults, and what must hold."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock.dispatcher import reachability
from penstock.dispatcher.probe import Answer, Verdict
from penstock.errors import JobFailedError, PenstockError, RefusedError
from penstock.security.access import Access
from penstock.testing.disk import SimDisk
from penstock.worker.messages import Assignment

from .checkpoints import Checkpoints
from .checks import BrokenError, Ledger, Witness
from .client import SimTrainer
from .clock import START_S, Clock, Process, virtual_time
from .data import Pipeline
from .dispatcher import HOST, SimDispatcher, fresh_blobs
from .faults import Faults
from .net import Network
from .setup import Setup, choose
from .worker import SimWorker

#: The longest runs have a tenth of it: more is a loop that does nothing.
_EVENTS_MAX = 200_000
_TRACE_MAX = 120
_HEARD_LATE_S = 0.5


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        faults: how often each kind of fault happened.
        errors: what trainers were told, by name; each was legitimate.
        strategies: what was decided about faults, by name.
        woven: elements that were handed over with those of other lanes at once.
    """

    seed: int
    events: int
    virtual_s: float
    elements: int
    pieces: int
    woven: int
    restored: int
    recoveries: int
    records: int
    faults: Counter[str]
    errors: Counter[str]
    strategies: Counter[str]


class SimulationError(AssertionError):
    """A run broke an invariant; the text says how to see it again."""


class World:
    """Everything of one run.

    Attributes:
        again: the test that runs one seed of this kind again.
    """

    again = "one_seed"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.setup: Setup = self.choose()
        self.clock = Clock()
        self.net = Network(self.clock, self.rng, self.setup.weather)
        self.ledger = Ledger()
        self.blobs = fresh_blobs()
        self.pipelines: dict[str, Pipeline] = {p.fingerprint: p for p in self.setup.pipelines}
        self.workers: dict[str, SimWorker] = {}
        self.checkpoints: dict[str, Checkpoints] = {}  # by host: a disk outlives its processes
        self.restored = 0
        self.woven = 0
        self.trainers: dict[str, SimTrainer] = {}
        self.errors: Counter[str] = Counter()
        self.failures: Counter[tuple[str, int, int]] = Counter()
        self.pieces = 0
        self.faulty = self.setup.calm_s > 0
        #: Trainers that were told that they cannot go on, because the journal is gone.
        self.given_up: set[str] = set()
        self._incarnations = 0
        self._traced: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=_TRACE_MAX)
        self._problem: BaseException | None = None
        self._over = False
        self.disk = SimDisk()
        self.dispatcher = self.start_dispatcher()
        self.faults = Faults(self)
        for number in range(self.setup.workers + self.setup.standbys):
            self.start_worker(f"worker{number}", standby=number >= self.setup.workers)
        self.start_trainers()

    def choose(self) -> Setup:
        """What the seed stands for."""
        return choose(self.rng)

    def start_trainers(self) -> None:
        """One for each pipeline."""
        for pipeline in self.setup.pipelines:
            self.start_trainer(pipeline.name, Witness(pipeline))

    def run(self) -> Result:
        """Lets everything happen until all trainers have all their epochs."""
        calm_s = START_S + self.setup.calm_s
        deadline_s = calm_s + self.setup.patience_s
        while not self._over:
            stuck = not self.clock.step() or self.clock.now_s > deadline_s
            if self._problem is not None:
                raise self._problem
            if stuck or self.clock.events > _EVENTS_MAX:
                raise BrokenError(f"not at the end after {self.clock.now_s - START_S:.1f} s")
        engine = self.dispatcher.engine
        alive = engine is not None and self.dispatcher.process.alive
        self.ledger.check_prefixes(engine.state if engine is not None and alive else None)
        if (
            engine is not None
            and alive
            and len(engine.deciding.waiting(0.0)) < len(engine.state.failover.open)
        ):
            raise BrokenError("a fault is open, and nobody is asked about it")
        return Result(
            seed=self.seed,
            events=self.clock.events,
            virtual_s=self.clock.now_s - START_S,
            elements=sum(t.witness.elements for t in self.trainers.values()),
            pieces=self.pieces,
            woven=self.woven,
            restored=self.restored,
            recoveries=self.ledger.recoveries - 1,
            records=len(self.ledger.records),
            faults=self.faults.happened,
            errors=self.errors,
            strategies=self.ledger.strategies,
        )

    # Starting things.

    def start_dispatcher(self, crash_after: int | None = None) -> SimDispatcher:
        """A new life of the dispatcher on what is on the disk."""
        self.dispatcher = SimDispatcher(self, self.disk, crash_after)
        self.net.servers[HOST] = self.dispatcher
        return self.dispatcher

    def start_worker(self, host: str, *, standby: bool) -> None:
        """A new process at that address."""
        setup = self.setup
        self.trace("start", host, "standby" if standby else "")
        self.workers[host] = SimWorker(
            self, host, standby=standby, slots=setup.slots, memory=setup.worker_memory
        )

    def start_trainer(self, name: str, witness: Witness) -> None:
        """A new trainer process, which opens the job of that name."""
        self.trace("start", name)
        self.net.caller_up(name)
        self.trainers[name] = self.trainer(name, witness)

    def trainer(self, name: str, witness: Witness) -> SimTrainer:
        """A trainer process."""
        return SimTrainer(self, name, witness)

    def worker_at(self, host: str) -> SimWorker | None:
        """Who listens at that address."""
        worker = self.workers.get(host)
        return worker if worker is not None and worker.process.alive else None

    def next_incarnation(self) -> int:
        """A number that nobody had before."""
        self._incarnations += 1
        return self._incarnations

    def kill(self, process: Process, *, silent: bool = False) -> None:
        """kill -9, or, silent, the end of the whole machine."""
        if process.alive:
            self.trace("kill", process.name)
            process.kill()
            self.net.process_died(process, silent=silent)

    # What the parts report.

    def dispatcher_crashed(self, dispatcher: SimDispatcher) -> None:
        """Its disk ended it."""
        self.faults.dispatcher_ended(dispatcher)

    def split_failed(self, assignment: Assignment) -> None:
        """A run raised, as the schedule would have it."""
        self.failures[assignment.dataset, assignment.epoch, assignment.split] += 1

    def trainer_failed(self, trainer: SimTrainer, error: PenstockError) -> None:
        """A trainer got an error: it must have deserved it. It is started again."""
        self.trace(trainer.name, "got", repr(error))
        self.errors[type(error).__name__] += 1
        if not self._legitimate(trainer, error):
            self.broken(f"{trainer.name} got {error!r} for nothing")
            return
        trainer.process.after(0, self.faults.restart_trainer, trainer.name, 0.5)

    def trainer_over(self) -> None:
        """A trainer has all its epochs, or has given up."""
        self._over = all(t.finished or t.name in self.given_up for t in self.trainers.values())

    def broken(self, text: str) -> None:
        """An invariant does not hold: the run ends after this event."""
        self._problem = self._problem or BrokenError(text)

    def check(self, check: Callable[..., None], *args: Any) -> None:
        """Runs a check where exceptions would be swallowed."""
        try:
            check(*args)
        except AssertionError as error:
            self._problem = self._problem or error

    def trace(self, *words: Any) -> None:
        """Remembers what happened, for who has to find out why."""
        self._traced.append((self.clock.now_s, words))

    def story(self) -> str:
        """The last things that happened."""
        lines = [f"{at - START_S:9.3f} {' '.join(map(str, words))}" for at, words in self._traced]
        return "\n".join(lines)

    def _legitimate(self, trainer: SimTrainer, error: PenstockError) -> bool:
        if self.faults.journal_lost:
            self.given_up.add(trainer.name)
            self.trainer_over()
            return isinstance(error, RefusedError)
        if isinstance(error, JobFailedError):
            most = trainer.witness.pipeline.attempts_max
            mine = trainer.witness.pipeline.fingerprint
            failed = [n for (name, _, _), n in self.failures.items() if name == mine]
            if "ABORTION_FAILOVER was decided by dice" in str(error):
                return True
            return "could not be produced" in str(error) and max(failed, default=0) >= most
        if isinstance(error, RefusedError) and "silent" in str(error):
            # A call counts as heard a little after it has arrived.
            silence_s = self.net.silence_s[trainer.name] + _HEARD_LATE_S
            return silence_s >= self.setup.timing.client_timeout_s
        return False

    async def probe(self, address: str, worker: str, deadline_s: float, _: Access) -> Answer:
        """The dispatcher's question to a worker, over this network; see `dispatcher/probe.py`."""
        await asyncio.sleep(self.net.lag_s())
        there = self.worker_at(address)
        dark = self.net.is_cut(HOST, address) or address in self.faults.dark
        if dark or (there is not None and there.process.paused):
            await asyncio.sleep(deadline_s)
            return Answer(Verdict.UNKNOWN, f"{address} did not answer")
        await asyncio.sleep(self.net.lag_s())
        if there is None or not there.process.alive:
            return Answer(Verdict.REFUSED, f"{address} refuses connections")
        verdict = Verdict.ALIVE if there.worker == worker else Verdict.STRANGER
        return Answer(verdict, f"there is worker {there.worker!r}")


@contextmanager
def _inside(world: World) -> Iterator[None]:
    """What would reach out of the simulation stays inside of it."""
    before, real_probe = logging.root.manager.disable, reachability.probe
    logging.disable(logging.CRITICAL)
    reachability.probe = world.probe
    try:
        with virtual_time(world.clock):
            yield
    finally:
        reachability.probe = real_probe
        logging.disable(before)


def run_seed(seed: int, kind: type[World] = World) -> Result:
    """One whole run.

    Raises:
        SimulationError: an invariant did not hold.
    """
    world = kind(seed)
    try:
        with _inside(world):
            return world.run()
    except Exception as error:
        raise SimulationError(
            f"seed {seed}: {type(error).__name__}: {error}\n{world.setup}\n{world.story()}\n"
            f"again: PENSTOCK_SIM_SEED={seed} pytest tests/sim -k {kind.again}"
        ) from error
    finally:
        _bury(world)


def _bury(world: World) -> None:
    """Ends all processes, so that no coroutine is left to be complained about."""
    processes = [world.dispatcher.process]
    processes += [worker.process for worker in world.workers.values()]
    processes += [trainer.process for trainer in world.trainers.values()]
    for process in processes:
        process.kill()
