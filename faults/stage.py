"""Where a test is played: a fresh cluster, the training process, and words for what a test does.

The methods of `Stage` are the vocabulary of `catalog`. Every wait goes through `until`, which takes
in what the trainer says meanwhile, looks at the dispatcher's status, and has a bound: past it, it
says who was waited for.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..client.status import fetch_status
from ..errors import PenstockError, UnavailableError, VerificationError
from .checkpoints import Attempt, Usable, kept_in, passed
from .data import ELEMENTS, FILES
from .trainer import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..client.daemon import Daemon
    from ..client.embedded import LocalCluster
    from .checkpoints import Kept
    from .consumer import Consumer
    from .data import Truth

Picture = dict[str, Any]

EPOCHS = 3
_BLOCK = 4
#: Little, so that what was delivered is near to what was consumed.
_CLIENT_MEMORY = 1 << 20
_TICK_S = 0.05
_LOOK_S = 0.25
_STATUS_S = 1.0
_CHECKPOINT_S = 2.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What all tests of a run share.

    Attributes:
        paths: of the data.
        truth: what a plain local run gives.
        orders: the hashes of each epoch in order, as an undisturbed reading gave them, by whether
            the pipeline ends in `.cache()`; none for that reading.
        seed: of the jobs.
        worker_timeout_s: of the dispatchers.
        patience_s: how long anything is waited for.
    """

    paths: tuple[str, ...]
    truth: Truth
    orders: Mapping[bool, Sequence[Sequence[bytes]]]
    seed: int
    worker_timeout_s: float
    patience_s: float


@dataclass(slots=True)
class Stage:
    """A test that is being played.

    Attributes:
        scene: what it shares with others.
        name: of the test.
        directory: for its files.
        cluster: runs.
        consumer: the training process; takes orders.
        holds: the elements after which the trainer is held, see `reach`.
        struck: the epoch in which that is.
        cache: how the job uses caches; empty: there is nothing that is cached.
        commits: the trainer commits its positions.
        looked: is called now and then.
        told: what was done, in words.
        problems: what must not be, in words.
        struck_s: when the first fault came.
        attempts: by number, what the status said of them last; of the epoch `struck` only.
    """

    scene: Scene
    name: str
    directory: Path
    cluster: LocalCluster
    consumer: Consumer
    holds: list[int]
    struck: int
    cache: str
    commits: bool
    looked: Callable[[Stage], None]
    told: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    struck_s: float | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)
    _totals: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    _picture: Picture = field(default_factory=dict)
    _looked_s: float = 0.0

    @property
    def checkpoints(self) -> Path:
        """The workers' `--checkpoint-dir`."""
        return self.directory / "checkpoints"

    @property
    def recomputed(self) -> int:
        """Elements made again though the client had them, in all terms of the dispatcher."""
        return sum(recomputed for recomputed, _, _ in self._totals.values())

    @property
    def restored(self) -> int:
        """Attempts that began at a checkpoint, in all terms."""
        return sum(restored for _, restored, _ in self._totals.values())

    @property
    def cached(self) -> int:
        """Attempts that read a segment, in all terms."""
        return sum(cached for _, _, cached in self._totals.values())

    @property
    def caches(self) -> Path:
        """The workers' `--cache-dir`."""
        return self.directory / "cache"

    @property
    def term(self) -> int:
        """Of the dispatcher that was looked at last."""
        return max(self._totals, default=0)

    def begin(self) -> None:
        """Has the trainer read."""
        self._order(self.holds)

    def begin_again(self) -> None:
        """Starts the training process again, with the same job."""
        self.consumer.start()
        self.until(lambda _: self.consumer.ready, "the new training process")
        self._order([])

    def _order(self, holds: list[int]) -> None:
        folder = self.directory / "hashes"
        folder.mkdir(exist_ok=True)
        order = Order(
            service=self.cluster.address,
            job=self.name,
            seed=self.scene.seed,
            paths=list(self.scene.paths),
            elements=ELEMENTS,
            epochs=EPOCHS,
            block=_BLOCK,
            lanes=FILES,
            memory_limit=_CLIENT_MEMORY,
            folder=str(folder),
            cache=self.cache,
            holds=holds,
            hold_epoch=self.struck,
            commits=self.commits,
        )
        self.consumer.read(order)

    # What a test does.

    def reach(self) -> None:
        """Waits until the trainer is held at the next of the test's moments.

        Raises:
            VerificationError: the epoch ended before.
        """
        self._reach(lambda: None)

    def reach_checkpoint(self, workers: int = 1) -> None:
        """Goes to the next moment, and on until workers have checkpoints that can be used.

        Args:
            workers: so many of them.

        Raises:
            VerificationError: the epoch ended before.
        """
        usable = Usable()
        self._reach(lambda: usable.look(self.kept()))
        while not self._wait_usable(usable, workers):
            self.consumer.go_on(step=True)
            self.reach()

    def _reach(self, each: Callable[[], object]) -> None:
        def reached(_: Picture) -> bool:
            each()
            return self.consumer.held or self._over

        self.until(reached, "the moment of the fault")
        if not self.consumer.held:
            raise VerificationError(f"epoch {self.struck} ended before the moment of the fault")

    def _wait_usable(self, usable: Usable, workers: int) -> bool:
        """Whether there are checkpoints that the client has passed, or soon will be."""
        delivered = passed(self.consumed, FILES, _BLOCK)
        end_s = time.monotonic() + _CHECKPOINT_S
        while len(usable.look(self.kept(), delivered)) < workers:
            if time.monotonic() > end_s:
                return False
            self._tick()
        return True

    def release(self, *, step: bool = False) -> None:
        """Lets the trainer go on; `step`: until it has one batch more."""
        self.consumer.go_on(step=step)

    def kill(self, *daemons: Daemon) -> None:
        """Kills daemons (SIGKILL), all at once."""
        # A dispatcher takes its figures with it.
        self.until(lambda _: self.look(), "the dispatcher's status")
        self.strike()
        for daemon in daemons:
            daemon.send_signal(signal.SIGKILL)
        for daemon in daemons:
            daemon.kill()  # is dead already: reaps it
        self.note(f"kill -9 {', '.join(daemon.name for daemon in daemons)}")

    def pause(self, daemon: Daemon) -> None:
        """Stops a daemon where it is (SIGSTOP)."""
        self.strike()
        daemon.send_signal(signal.SIGSTOP)
        self.note(f"SIGSTOP {daemon.name}")

    def resume(self, daemon: Daemon) -> None:
        """Lets a daemon go on (SIGCONT)."""
        daemon.send_signal(signal.SIGCONT)
        self.note(f"SIGCONT {daemon.name}")

    def kill_trainer(self) -> None:
        """Kills the training process (SIGKILL)."""
        self.strike()
        self.note("kill -9 the trainer")
        self.consumer.kill()

    def wait(self, seconds: float) -> None:
        """Lets time pass, and sees what happens meanwhile."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._tick()

    def strike(self) -> None:
        """A fault comes now: the first one is the beginning of the outage."""
        if self.struck_s is None:
            self.struck_s = time.monotonic()

    def note(self, what: str) -> None:
        """Something was done."""
        self.told.append(f"{what} after {self.consumed:,} elements")

    def expect(self, holds: bool, otherwise: str) -> None:
        """What must be true; else the test has failed for the reason `otherwise`."""
        if not holds:
            self.problems.append(otherwise)

    # What a test sees.

    @property
    def consumed(self) -> int:
        """Elements of the current epoch that the trainer has."""
        latest = self.consumer.latest
        return 0 if latest is None else latest.elements

    @property
    def _over(self) -> bool:
        """Whether the epoch with the faults has ended, or will not come."""
        ended = [one.epoch for one in self.consumer.received if one.digest is not None]
        return self.consumer.done or self.struck in ended

    def kept(self) -> list[Kept]:
        """The checkpoints of the epoch with the faults."""
        return kept_in(self.checkpoints, self.struck)

    def until(self, condition: Callable[[Picture], bool], whom: str) -> Picture:
        """Waits until the dispatcher's status, or something else, fits.

        Args:
            condition: looks at the newest status.
            whom: who is waited for, in words.

        Returns:
            The status.

        Raises:
            PenstockError: it does not come in time, or the trainer ended meanwhile.
        """
        begun_s = time.monotonic()
        while not condition(self._picture):
            # A wait lasts for as long as the trainer is given something: an epoch is not endless.
            quiet_s = time.monotonic() - max(begun_s, self.consumer.heard_s)
            if quiet_s > self.scene.patience_s:
                raise UnavailableError(
                    f"waited {quiet_s:.0f} s in vain for {whom}, {self._place()}; the dispatcher "
                    f"says: {'; '.join(self._picture.get('waiting', ())) or 'nothing'}"
                )
            self._tick()
        return self._picture

    def look(self) -> bool:
        """Asks the dispatcher for its status; whether it answered."""
        try:
            picture = fetch_status(self.cluster.address, _STATUS_S)
        except UnavailableError:
            return False
        self._picture = picture
        names = ("recomputed_elements", "restored_attempts", "cached_attempts")
        recomputed, restored, cached = (picture[name] for name in names)
        self._totals[picture["term"]] = recomputed, restored, cached
        for job in picture["jobs"]:
            for stream in job["streams"]:
                for one in stream["attempts"]:
                    if one["epoch"] == self.struck:
                        fields = (one[key] for key in ("split", "worker", "restored", "recomputed"))
                        self.attempts[one["attempt"]] = Attempt(self.struck, *fields)
        return True

    def finish(self) -> None:
        """Waits until the trainer has read all epochs, and looks a last time."""
        self.until(lambda _: self.consumer.done, "the trainer's next batch")
        self.until(lambda _: self.look(), "the dispatcher's status")

    def save_picture(self) -> None:
        """Writes the newest status beside the logs, for people."""
        with contextlib.suppress(PenstockError):
            self.look()
        text = json.dumps(self._picture, indent=1)
        (self.directory / "status.json").write_text(text)

    def _place(self) -> str:
        latest = self.consumer.latest
        if latest is None:
            return "before the first epoch"
        return f"after {latest.elements:,} elements of epoch {latest.epoch}"

    def _tick(self) -> None:
        self.consumer.hear(_TICK_S)
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self.look()
            self._looked_s = time.monotonic()
            self.looked(self)


def entry_of(picture: Picture, worker: str) -> dict[str, Any]:
    """What the status says of a worker; empty if nothing."""
    entries = (one for one in picture.get("workers", ()) if one["id"] == worker)
    return next(entries, {})
