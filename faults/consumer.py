"""The tests' side of the training process: starts and kills it, and takes in what it says."""

from __future__ import annotations

import dataclasses
import json
import queue
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError, VerificationError
from ..soak.trainers import Trainer
from .data import split_hashes
from .result import Delivery

if TYPE_CHECKING:
    from .trainer import Order

#: What Python is told to run as the training process.
PROGRAM = ("-m", "penstock.faults.trainer")
_LOG_LINES = 15


@dataclass(slots=True)
class Received:
    """What the trainer was given in one reading of an epoch.

    Attributes:
        epoch: its number.
        path: of the file with the hashes.
        batches: sizes of the batches.
        digest: count and order-free sum of hashes that penstock gave at its end; None if it was
            broken off.
        start: elements of the epoch that were consumed and committed before.
    """

    epoch: int
    path: Path
    batches: list[int] = field(default_factory=list)
    digest: tuple[int, int] | None = None
    start: int = 0

    @property
    def elements(self) -> int:
        """How many elements have come."""
        return sum(self.batches)

    def sequence(self) -> list[bytes]:
        """The hashes of the elements, in order."""
        return split_hashes(self.path.read_bytes() if self.path.exists() else b"")


class Consumer:
    """A training process, and what it was given for one test.

    Args:
        log: the file for its log.

    Attributes:
        received: every reading of an epoch, in order.
        deliveries: every batch.
        holds: (begin, end) of each time that it was held; the end is infinite while it is.
        done: it has read what it was to read.
        heard_s: when it said something last.
    """

    def __init__(self, log: Path) -> None:
        self._events: queue.Queue[tuple[Trainer, int, dict[str, Any]]] = queue.Queue()
        command = [sys.executable, *PROGRAM]
        self._trainer = Trainer("the trainer", command, log, self._events)
        self._trainer.down = True
        self.forget()

    def forget(self) -> None:
        """Begins anew with what was received."""
        self.received: list[Received] = []
        self.deliveries: list[Delivery] = []
        self.holds: list[tuple[float, float]] = []
        self.done = False
        self.heard_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process that runs or ran last."""
        assert self._trainer.process is not None
        return self._trainer.process.pid

    @property
    def down(self) -> bool:
        """Whether no process is meant to run."""
        return self._trainer.down

    @property
    def ready(self) -> bool:
        """Whether it takes orders."""
        return self._trainer.ready

    @property
    def held(self) -> bool:
        """Whether it waits for the word to go on."""
        return bool(self.holds) and self.holds[-1][1] == float("inf")

    @property
    def latest(self) -> Received | None:
        """The reading that it is at, or was at last."""
        return self.received[-1] if self.received else None

    def start(self) -> None:
        """Starts the process; `ready` tells when it takes orders."""
        self._trainer.start()
        self.heard_s = time.monotonic()

    def kill(self) -> None:
        """Ends the process with SIGKILL."""
        self._release()
        self._trainer.kill()

    def read(self, order: Order) -> None:
        """Lets it read."""
        self.done = False
        self._say(dataclasses.asdict(order))

    def go_on(self, *, step: bool = False) -> None:
        """Lets it go on; `step`: until it has one batch more."""
        self._release()
        self._say({"step": step})

    def hear(self, timeout_s: float) -> None:
        """Takes in what it says next, if that comes in time.

        Raises:
            UnavailableError: it ended by itself.
            VerificationError: its training got an error.
        """
        try:
            _, pid, told = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return
        if pid == self.pid:  # else the last words of one that was killed
            self.heard_s = time.monotonic()
            self._heard(told)

    def _heard(self, told: dict[str, Any]) -> None:
        event = told["event"]
        if event == "ready":
            self._trainer.ready = True
        elif event == "begin":
            path, start = Path(told["path"]), told["start"]
            self.received.append(Received(told["number"], path, start=start))
        elif event == "batch":
            self.received[-1].batches.append(told["size"])
            one = Delivery(told["epoch"], told["asked_s"], told["came_s"], told["size"])
            self.deliveries.append(one)
        elif event == "held":
            self.holds.append((told["at_s"], float("inf")))
        elif event == "epoch":
            self._ended(told["number"], (told["count"], told["total"]))
        elif event == "done":
            self.done = True
        elif event == "error":
            raise VerificationError(f"the trainer got {told['kind']}: {told['text']}")
        elif event == "end" and not self.down:
            text = self._trainer.log.read_text(errors="replace")
            tail = "\n".join(text.splitlines()[-_LOG_LINES:])
            raise UnavailableError(f"the trainer ended by itself; the end of its log:\n{tail}")

    def _ended(self, number: int, digest: tuple[int, int]) -> None:
        latest = self.latest
        if latest is None or latest.epoch != number or latest.digest is not None:
            latest = Received(number, Path())  # it ended without a single element
            self.received.append(latest)
        latest.digest = digest

    def _release(self) -> None:
        if self.held:
            self.holds[-1] = (self.holds[-1][0], time.monotonic())

    def _say(self, message: dict[str, Any]) -> None:
        process = self._trainer.process
        assert process is not None
        assert process.stdin is not None
        self.heard_s = time.monotonic()
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise UnavailableError(
                f"the trainer ended by itself; its log is {self._trainer.log}"
            ) from None
