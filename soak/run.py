"""The soak itself: pipelines, faults and judgement brought together, until the time is over.

One thread decides everything: it carries out the steps that are due, looks after the processes,
gives readings to idle trainers and judges what they report. A second one asks the dispatcher for
its status, which may take long while faults go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import time
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError
from .chaos import Verb, begun, last_fault_s, postponed, schedule, trainer_node
from .data import ground_truth, pipelines, write_data
from .faults import FaultInjector
from .result import SoakResult
from .trainers import Judge, Trainer, legitimate, readings, trainer_command
from .verdicts import Checker, Injected, Outage, cause_of
from .watch import StatusWatch

if TYPE_CHECKING:
    from pathlib import Path

    from ..client.embedded import LocalCluster
    from .chaos import Step
    from .result import Observer, SoakOptions
    from .trainer import Reading

_TICK_S = 0.2
_TEND_S = 1.0
_STARTED_S = 120.0
_OUTAGES_KEPT = 5
_LOG_LINES = 15


class Soak:
    """One run; `run` does it all.

    Args:
        options: what to do.
        observer: is told what happens.
    """

    def __init__(self, options: SoakOptions, observer: Observer) -> None:
        self._options = options
        self._observer = observer
        self.result = SoakResult(options.seed)
        self._events: queue.Queue[tuple[Trainer, int, dict[str, Any]]] = queue.Queue()
        self._trainers: list[Trainer] = []
        self._injected: list[Injected] = []
        self._steps = list(schedule(options.seed, options.seconds, options.shape))
        self._hashes = options.directory / "hashes"
        self._start_s = 0.0
        self._tended_s = 0.0

    def run(self) -> None:
        """Runs until the time is over, something is wrong or the user interrupts it.

        `result` holds what was found at any time, also when this raises.

        Raises:
            UnavailableError: the cluster did not start.
            KeyboardInterrupt: the user ended it.
        """
        options = self._options
        self._hashes.mkdir(parents=True)
        data = options.directory / "data"
        self._observer.said("writing data, and computing the ground truth without penstock")
        write_data(data)
        judge = self._judge_of(data)
        self.result.pipelines = judge.tallies
        self._observer.said(
            f"starting a dispatcher, {options.workers} workers, {options.standbys} standbys and "
            f"{options.trainers} trainers"
        )
        with self._cluster() as cluster:
            injector = FaultInjector(cluster, options.standbys)
            self._start_trainers(data, cluster.address)
            watch = StatusWatch(cluster.address, injector)
            try:
                self._go_on(injector, watch, judge)
            finally:
                watch.finish()
                for trainer in self._trainers:
                    trainer.kill()
                injector.calm()
                self.result.recomputed_elements = watch.total("recomputed_elements")
                self.result.restored_attempts = watch.total("restored_attempts")

    def _judge_of(self, data: Path) -> Judge:
        from ..client.groundtruth import digest_of

        built = pipelines(data)
        truths = {name: ground_truth(build()) for name, build in built.items()}
        digests = {name: digest_of(build()) for name, build in built.items()}
        return Judge(Checker(truths), digests)

    def _cluster(self) -> LocalCluster:
        from ..client.embedded import LocalCluster

        options = self._options
        return LocalCluster(
            options.workers,
            options.standbys,
            directory=options.directory / "cluster",
            standby_dispatcher=True,
            worker_timeout_s=options.worker_timeout_s,
            dispatcher_arguments=(
                f"--client-timeout={options.client_timeout_s}",
                f"--lease={options.lease_s}",
            ),
            worker_arguments=(
                f"--checkpoint-dir={options.directory / 'checkpoints'}",
                "--checkpoint-interval=1",
            ),
        )

    def _start_trainers(self, data: Path, service: str) -> None:
        command = trainer_command(data, service, {"warn_after_s": 5.0})
        for number in range(self._options.trainers):
            name = trainer_node(number)
            log = self._options.directory / f"{name}.log"
            trainer = Trainer(name, command, log, self._events)
            trainer.start()
            self._trainers.append(trainer)
        deadline_s = time.monotonic() + _STARTED_S
        while not all(trainer.ready for trainer in self._trainers):
            if time.monotonic() > deadline_s:
                raise UnavailableError(f"the trainers did not start within {_STARTED_S:.0f} s")
            with contextlib.suppress(queue.Empty):
                trainer, _, told = self._events.get(timeout=_TICK_S)
                if told["event"] == "end":
                    tail = "\n".join(trainer.log.read_text().splitlines()[-_LOG_LINES:])
                    raise UnavailableError(f"{trainer.name} did not start:\n{tail}")
                trainer.ready = True

    def _go_on(self, injector: FaultInjector, watch: StatusWatch, judge: Judge) -> None:
        options, result = self._options, self.result
        wanted = readings(options.seed, sorted(judge.tallies), self._hashes)
        self._start_s = time.monotonic()
        while not result.problems:
            gone_s = time.monotonic() - self._start_s
            result.seconds = min(gone_s, options.seconds)
            self._carry_out_due(gone_s, injector)
            if time.monotonic() - self._tended_s >= _TEND_S:
                self._tended_s = time.monotonic()
                result.problems += injector.tend()
                self._look_for_standstill()
            for trainer in self._trainers:
                if trainer.idle and not trainer.paused and gone_s < options.seconds:
                    reading = next(wanted)
                    trainer.give(reading)
                    # The other trainers may still be at the seed before this one.
                    judge.forget(reading.pipeline, reading.seed - 2)
            self._observer.looked(gone_s, result, f"{injector.running} processes up")
            busy = [t for t in self._trainers if t.reading is not None]
            if gone_s >= options.seconds and not busy and not self._steps:
                return
            if gone_s >= options.seconds + options.patience_s:
                names = ", ".join(t.reading.pipeline for t in busy if t.reading is not None)
                result.problems.append(
                    f"{options.patience_s:.0f} s after the last fault these still run: {names}"
                )
            with contextlib.suppress(queue.Empty):
                self._heard(*self._events.get(timeout=_TICK_S), judge)
        result.evidence = self._evidence(injector, watch)

    def _carry_out_due(self, gone_s: float, injector: FaultInjector) -> None:
        """Carries out the steps whose time has come."""
        if gone_s >= last_fault_s(self._options.seconds):
            self._steps = begun(self._steps)
        while self._steps and self._steps[0].at_s <= gone_s:
            if self._steps[0].kind and injector.weak:
                self._steps = postponed(self._steps, _TICK_S)
            else:
                self._carry_out(self._steps.pop(0), injector)

    def _carry_out(self, step: Step, injector: FaultInjector) -> None:
        if step.kind:
            self.result.faults[step.kind] += 1
            self._injected.append(Injected(step.kind, time.monotonic()))
        trainer = next((t for t in self._trainers if t.name == step.node), None)
        if trainer is None:
            text = injector.carry_out(step)
        else:
            text = f"{trainer.name}: {step.verb}"
            if step.verb is Verb.PAUSE:
                trainer.pause()
            elif step.verb is Verb.RESUME:
                trainer.resume()
            elif step.verb is Verb.KILL:
                trainer.kill()
            else:
                trainer.start()
        self._observer.said(f"{time.monotonic() - self._start_s:7.1f} s  {text}")

    def _heard(self, trainer: Trainer, pid: int, told: dict[str, Any], judge: Judge) -> None:
        if trainer.process is None or pid != trainer.process.pid:
            return  # the last words of one that was killed
        trainer.heard_s = time.monotonic()
        event, reading, problems = told["event"], trainer.reading, self.result.problems
        if event == "ready":
            trainer.ready = True
            if reading is not None:  # it was killed
                self._again(trainer, judge)
        elif event == "end" and not trainer.down:
            problems.append(f"{trainer.name} ended by itself; its log is {trainer.log}")
        elif reading is None:
            return
        elif event == "wait" and not trainer.slept_in(told["begin_s"], told["end_s"]):
            self._waited(reading, told["begin_s"], told["end_s"])
        elif event == "begin":
            problems += self._is_epoch(trainer, told["number"])
        elif event == "epoch":
            problems += self._ended_epoch(trainer, told, judge)
        elif event == "error":
            client_timeout_s = self._options.client_timeout_s
            if legitimate(told["kind"]) and trainer.was_paused_for_long(client_timeout_s):
                self.result.refused_trainers += 1
                self._observer.said(f"{trainer.name} slept for too long: {told['text']}")
                self._again(trainer, judge)
            else:
                problems.append(f"{trainer.name} got {told['kind']}: {told['text']}")
        elif event == "done":
            trainer.reading = None

    def _ended_epoch(self, trainer: Trainer, told: dict[str, Any], judge: Judge) -> list[str]:
        assert trainer.reading is not None
        number = told["number"]
        problems = self._is_epoch(trainer, number)
        problems += judge.whole(trainer.reading, trainer.file_epoch, told)
        trainer.expected = number + 1
        trainer.file_epoch += 1
        return problems

    def _is_epoch(self, trainer: Trainer, number: int) -> list[str]:
        """Takes in which epoch a trainer reads; what is wrong with that, in words."""
        assert trainer.reading is not None
        expected, trainer.expected = trainer.expected, number
        # One that was killed just after the end of an epoch could not tell of it any more.
        skipped, trainer.again = trainer.again and number == expected + 1, False
        if number == expected or skipped:
            return []
        return [
            f"{trainer.name} was given epoch {number} of {trainer.reading.pipeline}, not {expected}"
        ]

    def _again(self, trainer: Trainer, judge: Judge) -> None:
        """Starts a job that was broken off anew: the same one if it has a name."""
        reading = trainer.reading
        assert reading is not None
        self.result.problems += judge.broken_off(reading, trainer.file_epoch, trainer.expected)
        if reading.job and trainer.expected >= reading.epochs:
            trainer.reading = None
            return
        first = trainer.expected if reading.job else 0
        trainer.give(dataclasses.replace(reading, first=first), again=True)

    def _waited(self, reading: Reading, begin_s: float, end_s: float) -> None:
        before_s = 2 * self._options.worker_timeout_s
        faults = cause_of(begin_s, end_s, self._injected, before_s)
        cause = f"{faults} (pipeline {reading.pipeline}, {reading.lanes} lanes)"
        outage = Outage(begin_s - self._start_s, end_s - self._start_s, cause)
        outages = sorted([*self.result.outages, outage], key=lambda o: -o.seconds)
        self.result.outages = outages[:_OUTAGES_KEPT]

    def _look_for_standstill(self) -> None:
        now_s, patience_s = time.monotonic(), self._options.patience_s
        for trainer in self._trainers:
            idle = trainer.paused or trainer.down or trainer.idle
            if not idle and now_s - trainer.heard_s > patience_s:
                self.result.problems.append(
                    f"{trainer.name} has been given nothing for {patience_s:.0f} s; it reads "
                    f"{trainer.reading}"
                )

    def _evidence(self, injector: FaultInjector, watch: StatusWatch) -> str:
        parts = [f"status: {watch.latest()}"]
        logs = [(daemon.name, daemon.log_path) for daemon in injector.daemons]
        logs += [(trainer.name, trainer.log) for trainer in self._trainers]
        for name, path in logs:
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            parts.append("\n  ".join([f"the end of {path} ({name}):", *lines[-_LOG_LINES:]]))
        return "\n".join(parts)
