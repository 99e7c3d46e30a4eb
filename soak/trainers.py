"""The soak's side of its trainers: what they read next, and what their answers say about exactness.

Each trainer is a process of its own (`trainer`). A job is read for some epochs, and later
again with the same seed, beside other faults: then its order must be the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .data import HASH_BYTES
from .trainer import Reading
from .verdicts import Checker, Verdict, overlaps

if TYPE_CHECKING:
    import queue
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..proto.hashing import Digest

EPOCHS = 2
#: So often a job is read with the same seed, in turns with this many others.
_READINGS = 2
_TOGETHER = 2
_LANES = (16, 4, 1)
_MEMORY_LIMITS = (1 << 18, 1 << 20, 256 << 20)
#: A pause of a trainer of this share of the client timeout may end its job: others are late, too.
_LEGITIMATE_SHARE = 0.5
_LEGITIMATE = ("RefusedError", "NotFoundError")


def readings(seed: int, names: Sequence[str], folder: Path) -> Iterator[Reading]:
    """What to read, without end: all pipelines in turns, each job twice before the seed changes.

    The second reading of a job comes soon, so that a short run compares orders, too.
    """
    choice = random.Random(seed)
    numbers = itertools.count()
    for turn in itertools.count():
        job_seed = seed * 1000 + turn
        shuffled = list(names)
        choice.shuffle(shuffled)
        for first in range(0, len(shuffled), _TOGETHER):
            for name in shuffled[first : first + _TOGETHER] * _READINGS:
                number = next(numbers)
                yield Reading(
                    number=number,
                    pipeline=name,
                    seed=job_seed,
                    lanes=_LANES[job_seed % len(_LANES)],
                    job=f"{name}-{number}" if choice.random() < 0.5 else "",
                    first=0,
                    epochs=EPOCHS,
                    memory_limit=choice.choice(_MEMORY_LIMITS),
                    folder=str(folder),
                )


@dataclass(slots=True)
class Trainer:
    """A trainer process, and what it is at.

    Attributes:
        name: of its node in the schedule.
        process: the process that runs or ran last.
        reading: what it reads; None while it has nothing to do.
        again: whether that was broken off before.
        expected: the number of the epoch that it must deliver next.
        file_epoch: the epoch that its file of hashes is named by; the same, but where a trainer
            was killed between the end of an epoch and its word of it.
        ready: it takes readings.
        down: it was killed, and nobody has started it again.
        begun_s: when it was given what it reads.
        heard_s: when it said something last.
        pauses: when it was stopped, (begin, end); the end is infinite while it is.
    """

    name: str
    command: list[str]
    log: Path
    events: queue.Queue[tuple[Trainer, int, dict[str, Any]]]
    process: subprocess.Popen[bytes] | None = None
    reading: Reading | None = None
    again: bool = False
    expected: int = 0
    file_epoch: int = 0
    ready: bool = False
    down: bool = False
    begun_s: float = 0.0
    heard_s: float = 0.0
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def start(self) -> None:
        """Starts the process; it says `ready` when it takes readings."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
                start_new_session=True,
            )
        self.down = self.ready = False
        self.heard_s = time.monotonic()
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    @property
    def paused(self) -> bool:
        """Whether it is stopped now."""
        return bool(self.pauses) and self.pauses[-1][1] == float("inf")

    @property
    def idle(self) -> bool:
        """Whether it could read something."""
        return self.ready and self.reading is None

    def give(self, reading: Reading, *, again: bool = False) -> None:
        """Lets it read; `again`: a job that it was given before, and that was broken off."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.reading, self.again = reading, again
        self.expected = self.file_epoch = reading.first
        self.begun_s = self.heard_s = time.monotonic()
        line = json.dumps(dataclasses.asdict(reading)) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def pause(self) -> None:
        """Stops the process where it is (SIGSTOP)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.pauses.append((time.monotonic(), float("inf")))

    def resume(self) -> None:
        """Lets the process go on (SIGCONT)."""
        assert self.process is not None
        now_s = self.heard_s = time.monotonic()
        if self.paused:
            self.pauses[-1] = (self.pauses[-1][0], now_s)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process (SIGKILL); what it reads is kept in mind for its successor."""
        self.down, self.ready = True, False
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()

    def was_paused_for_long(self, timeout_s: float) -> bool:
        """Whether it was silent for so long that it may have lost what it reads."""
        now_s = time.monotonic()
        return any(
            min(end, now_s) - begin >= _LEGITIMATE_SHARE * timeout_s
            for begin, end in self.pauses
            if end > self.begun_s
        )

    def slept_in(self, begin_s: float, end_s: float) -> bool:
        """Whether it was stopped in that time: then its waiting says nothing about the service."""
        return overlaps(begin_s, end_s, self.pauses)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.events.put((self, process.pid, json.loads(line)))
        self.events.put((self, process.pid, {"event": "end"}))


def trainer_command(data: Path, service: str, timing: dict[str, float]) -> list[str]:
    """The command line of a trainer process; see `trainer.main`."""
    options = json.dumps({"data": str(data), "service": service, "timing": timing})
    return [sys.executable, "-m", "penstock.soak.trainer", options]


@dataclass(slots=True)
class Tally:
    """What was checked of one pipeline, summed up."""

    epochs: int = 0
    reread: int = 0
    broken_off: int = 0
    elements: int = 0
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    misplaced: int = 0

    def add(self, verdict: Verdict, *, whole: bool) -> None:
        """Adds the verdict on an epoch, read whole or broken off."""
        self.epochs += whole
        self.broken_off += not whole
        self.reread += whole and verdict.reread
        self.elements += verdict.elements
        self.lost += verdict.lost
        self.duplicated += verdict.duplicated
        self.altered += verdict.altered
        self.misplaced += verdict.misplaced

    @property
    def exact(self) -> bool:
        """Whether nothing was wrong."""
        return self.lost == self.duplicated == self.altered == self.misplaced == 0


class Judge:
    """Judges what trainers were given, by the files that they wrote.

    Args:
        checker: knows the ground truth.
        digests: of a plain local run of each pipeline, by penstock's own hashing: a second check.
    """

    def __init__(self, checker: Checker, digests: dict[str, Digest]) -> None:
        self._checker = checker
        self._digests = digests
        self.tallies = {name: Tally() for name in checker.truths}

    def whole(self, reading: Reading, file_epoch: int, told: dict[str, Any]) -> list[str]:
        """Judges an epoch that the trainer saw the end of; what is wrong with it, in words."""
        digest = self._digests[reading.pipeline]
        problems = self._judge(reading, file_epoch, told["number"], whole=True)
        if (told["count"], told["total"]) != (digest.count, digest.total):
            problems.append(
                f"{_label(reading, told['number'])}: the digest is {told['count']} elements "
                f"{told['total']:016x}, that of a local run {digest.count} {digest.total:016x}"
            )
        return problems

    def broken_off(self, reading: Reading, file_epoch: int, epoch: int) -> list[str]:
        """Judges the beginning of an epoch that a killed or refused trainer was given."""
        return self._judge(reading, file_epoch, epoch, whole=False)

    def forget(self, pipeline: str, seed: int) -> None:
        """Frees what is remembered of jobs with that seed: they are not read any more."""
        self._checker.forget(pipeline, seed)

    def _judge(self, reading: Reading, file_epoch: int, epoch: int, *, whole: bool) -> list[str]:
        path = reading.path(file_epoch)
        content = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        stop = len(content) - len(content) % HASH_BYTES  # a kill may cut the last one
        sequence = [content[i : i + HASH_BYTES] for i in range(0, stop, HASH_BYTES)]
        verdict = self._checker.judge(reading.pipeline, reading.seed, epoch, sequence, whole=whole)
        self.tallies[reading.pipeline].add(verdict, whole=whole)
        if verdict.exact:
            return []
        return [
            f"{_label(reading, epoch)}: {verdict.elements} elements, {verdict.lost} lost, "
            f"{verdict.duplicated} duplicated, {verdict.altered} altered, "
            f"{verdict.misplaced} misplaced"
        ]


def _label(reading: Reading, epoch: int) -> str:
    job = f"job {reading.job}" if reading.job else "a job without a name"
    return f"pipeline {reading.pipeline}, seed {reading.seed}, epoch {epoch} ({job})"


def legitimate(kind: str) -> bool:
    """Whether an error is one that a trainer which slept for too long may get."""
    return kind in _LEGITIMATE
