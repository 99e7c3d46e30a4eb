"""What goes wrong, and how it is put right."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from penstock.proto import control_pb2
from penstock.testing.disk import SimDisk

from .clock import START_S, Process
from .dispatcher import HOST, SimDispatcher
from .setup import Fault

if TYPE_CHECKING:
    from .client import SimTrainer
    from .world import World


_READMIT_S = 5.0


class Faults:
    """Carries the schedule out. Everything is well again at `calm_s`, and stays so."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self.happened: Counter[str] = Counter()
        self.journal_lost = False
        self._down: dict[str, bool] = {}  # hosts that are to be started again; whether standbys
        self._added = 0
        #: Addresses whose machine is off: nobody there refuses a connection.
        self.dark: set[str] = set()
        clock = world.clock
        for fault in world.setup.faults:
            clock.at(START_S + fault.at_s, None, self._begin, fault)
        if world.faulty:
            clock.at(START_S + world.setup.calm_s, None, self._calm)

    def _begin(self, fault: Fault) -> None:
        self._world.trace("fault:", fault.kind, f"{fault.lasts_s:.2f} s")
        if getattr(self, f"_{fault.kind}")(fault.lasts_s):
            self.happened[fault.kind] += 1

    # Workers.

    def _live_workers(self) -> list[str]:
        return [host for host, worker in self._world.workers.items() if worker.process.alive]

    def _some_worker(self) -> str | None:
        live = self._live_workers()
        return self._rng.choice(live) if live else None

    def _kill_worker(self, lasts_s: float) -> bool:
        host = self._some_worker()
        if host is None:
            return False
        worker = self._world.workers[host]
        silent = self._rng.random() < 0.2
        if silent:
            self.dark.add(host)
        self._world.kill(worker.process, silent=silent)
        self._restart_worker_later(host, lasts_s)
        return True

    def _stop_worker(self, lasts_s: float) -> bool:
        host = self._some_worker()
        if host is None:
            return False
        worker = self._world.workers[host]
        worker.leave()
        self._world.clock.at(self._now_s + 1.1, None, self._world.kill, worker.process)
        self._restart_worker_later(host, 1.2 + lasts_s)
        return True

    def _restart_worker_later(self, host: str, lasts_s: float) -> None:
        self._down[host] = self._world.workers[host].standby
        if self._rng.random() < 0.8:
            self._world.clock.at(self._now_s + lasts_s, None, self._restart_worker, host)

    def _restart_worker(self, host: str) -> None:
        if host in self._down:
            standby = self._down.pop(host)
            self.dark.discard(host)
            self._world.kill(self._world.workers[host].process)
            self._world.start_worker(host, standby=standby and self._rng.random() < 0.5)

    def _pause_worker(self, lasts_s: float) -> bool:
        host = self._some_worker()
        if host is None:
            return False
        self._pause(self._world.workers[host].process, lasts_s)
        return True

    def _add_worker(self, lasts_s: float) -> bool:
        self._added += 1
        self._world.start_worker(f"late{self._added}", standby=self._rng.random() < 0.5)
        return True

    # The dispatcher.

    def _kill_dispatcher(self, lasts_s: float) -> bool:
        dispatcher = self._world.dispatcher
        if not dispatcher.process.alive:
            return False
        self._end_dispatcher(dispatcher)
        self._world.clock.at(self._now_s + lasts_s, None, self._restart_dispatcher)
        return True

    def _crash_dispatcher(self, lasts_s: float) -> bool:
        """It will end at one of its next changes of the disk, in the middle of it."""
        dispatcher = self._world.dispatcher
        if not dispatcher.process.alive:
            return False
        self._end_dispatcher(dispatcher)
        self._world.start_dispatcher(crash_after=self._rng.randrange(1, 40))
        return True

    def _pause_dispatcher(self, lasts_s: float) -> bool:
        self._pause(self._world.dispatcher.process, lasts_s)
        return True

    def dispatcher_ended(self, dispatcher: SimDispatcher) -> None:
        """Its disk has ended it."""
        if dispatcher.process.alive:
            self._end_dispatcher(dispatcher)
            delay_s = self._rng.random() * 3
            self._world.clock.at(self._now_s + delay_s, None, self._restart_dispatcher)

    def _end_dispatcher(self, dispatcher: SimDispatcher) -> None:
        world = self._world
        power = self._rng.random() < 0.3
        world.net.server_down()
        world.kill(dispatcher.process, silent=power)
        if world.setup.journal_lost and not self.journal_lost and world.ledger.recoveries:
            world.trace("the journal is lost")
            self.journal_lost = True
            world.disk, world.ledger = SimDisk(), type(world.ledger)()
            for name, trainer in world.trainers.items():
                if trainer.engine is None:  # it has no job yet: it would begin anew, see below
                    world.kill(trainer.process)
                    self.restart_trainer(name, 0.0)
            return
        world.disk = dispatcher.crash_disk(self._rng, power=power)

    def _restart_dispatcher(self) -> None:
        if not self._world.dispatcher.process.alive:
            self._world.trace("start dispatcher")
            self._world.start_dispatcher()

    # Trainers.

    def _kill_trainer(self, lasts_s: float) -> bool:
        name = self._rng.choice(list(self._world.trainers))
        if self._world.trainers[name].finished or name in self._world.given_up:
            return False
        self._world.kill(self._world.trainers[name].process)
        self._world.clock.at(self._now_s + lasts_s, None, self.restart_trainer, name, 0.0)
        return True

    def _pause_trainer(self, lasts_s: float) -> bool:
        name = self._rng.choice(list(self._world.trainers))
        self._pause(self._world.trainers[name].process, lasts_s)
        return True

    def restart_trainer(self, name: str, delay_s: float) -> None:
        """A new process for that trainer."""
        world = self._world
        trainer = world.trainers[name]
        if trainer.finished or name in world.given_up:
            return
        world.kill(trainer.process)
        clock = world.clock
        clock.at(clock.now_s + delay_s, None, self._start_trainer, trainer)

    def _start_trainer(self, trainer: SimTrainer) -> None:
        world, name = self._world, trainer.name
        if world.trainers[name] is not trainer:
            return
        if self.journal_lost:  # it would begin anew, in another world
            world.given_up.add(name)
            world.trainer_over()
            return
        world.start_trainer(name, trainer.witness)

    # All and everything.

    def _kill_all(self, lasts_s: float) -> bool:
        world = self._world
        for host in self._live_workers():
            world.kill(world.workers[host].process)
            self._down[host] = world.workers[host].standby
            again_s = self._now_s + self._rng.random() * lasts_s
            world.clock.at(again_s, None, self._restart_worker, host)
        if world.dispatcher.process.alive:
            self._end_dispatcher(world.dispatcher)
        again_s = self._now_s + self._rng.random() * lasts_s
        world.clock.at(again_s, None, self._restart_dispatcher)
        return True

    def _cut(self, lasts_s: float) -> bool:
        hosts = [HOST, *self._world.workers, *self._world.trainers]
        one, other = self._rng.sample(hosts, 2)
        self._cut_pair(one, other, lasts_s)
        return True

    def _isolate(self, lasts_s: float) -> bool:
        hosts = [HOST, *self._world.workers, *self._world.trainers]
        alone = self._rng.choice(hosts)
        for other in hosts:
            if other != alone:
                self._cut_pair(alone, other, lasts_s)
        return True

    def _cut_pair(self, a: str, b: str, lasts_s: float) -> None:
        net = self._world.net
        net.cut(a, b)
        self._world.clock.at(self._now_s + lasts_s, None, self._heal, a, b)
        for connection in net.connections:
            if set(connection.hosts) == {a, b} and self._rng.random() < 0.4:
                connection.break_off()

    def _heal(self, a: str, b: str) -> None:
        if self._world.net.is_cut(a, b):
            self._world.net.heal(a, b)

    def _break_connection(self, lasts_s: float) -> bool:
        alive = [c for c in self._world.net.connections if not c.closed]
        if not alive:
            return False
        self._rng.choice(alive).break_off()
        return True

    def _pause(self, process: Process, lasts_s: float) -> None:
        process.pause()
        self._world.clock.at(self._now_s + lasts_s, None, process.resume)

    def _calm(self) -> None:
        """Everything is put right, for good."""
        world = self._world
        world.trace("calm")
        world.faulty = False
        world.net.weather.lost = world.net.weather.repeated = world.net.weather.slow = 0.0
        world.net.heal_all()
        for process in (
            world.dispatcher.process,
            *(worker.process for worker in world.workers.values()),
            *(trainer.process for trainer in world.trainers.values()),
        ):
            process.resume()
        world.dispatcher.disk.before = None
        self._restart_dispatcher()
        for host in list(self._down):
            # Some are gone for good, as long as there is somebody else: a standby waits for ever
            # for a worker that had not registered before it was stopped.
            live = [host for host in self._live_workers() if not world.workers[host].standby]
            if not live or self._rng.random() < 0.6:
                self._restart_worker(host)
        for name, trainer in world.trainers.items():
            if not trainer.process.alive:
                self.restart_trainer(name, 0.0)
        self._readmit()

    def _readmit(self) -> None:
        """A person looks from time to time whether somebody is retired, and needed."""
        dispatcher = self._world.dispatcher
        engine = dispatcher.engine
        if engine is not None and dispatcher.process.alive:
            for worker in engine.state.workers.values():
                if worker.incarnation in engine.state.failover.retired:
                    request = control_pb2.ReadmitWorkerRequest(worker=worker.worker)
                    dispatcher.serve("ReadmitWorker", request, lambda *_: None)
        self._world.clock.at(self._now_s + _READMIT_S, None, self._readmit)

    @property
    def _now_s(self) -> float:
        return self._world.clock.now_s
