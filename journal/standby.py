"""Waits for a journal that another process holds, and takes it when that process is gone.

Two things are waited for at once. A thread blocks in the flock of the newest lock file, so that on
one machine the end of the holder is known at once. And the lock file's time of change is looked at
several times a lease: a holder that does not change it for a whole lease is paused, or its machine
is gone. `Watch` is the judgement, without clock and I/O; `Standby` does the waiting.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from ..errors import JournalLockedError
from .disk import RealDisk
from .lease import Lease, acquire, holder_of, lock_path, newest_generation, take_over
from .recovery import explained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

#: How often a lease the holder's file is looked at; the holder touches it four times.
_LOOKS = 8


def hold(directory: Path) -> Lease:
    """Takes the lease of a journal that nobody holds, at once or not at all.

    Args:
        directory: the journal's; created if it is missing.

    Raises:
        JournalLockedError: another process holds it; the message has its id.
        JournalError: the operating system refused something.
    """
    disk = RealDisk()
    try:
        disk.make_directory(directory)
        return acquire(disk, directory)
    except OSError as error:
        raise explained(directory, "opening it", error) from error


class Watch:
    """Tells when a holder has been silent for a lease, by the watcher's own clock.

    Args:
        lease_s: how long a holder may be silent, in seconds.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._seen: tuple[int, int] | None = None
        self._since_s = 0.0
        self._looked_s = 0.0

    def silent(self, generation: int, stamp: int, now_s: float) -> bool:
        """Whether the holder was silent for a whole lease.

        Args:
            generation: of the holder.
            stamp: the time of change of its lock file, in whatever units.
            now_s: monotonic seconds.
        """
        # A watcher that was paused itself has not seen that nothing happened.
        paused = now_s - self._looked_s > self._lease_s / 2
        self._looked_s = now_s
        if (generation, stamp) != self._seen or paused:
            self._seen, self._since_s = (generation, stamp), now_s
        return now_s - self._since_s >= self._lease_s


class Standby:
    """Waits for the journal in a directory.

    Args:
        directory: the journal's; created if it is missing.
        lease_s: how long its holder may be silent, in seconds.
        warn_after_s: how often to log what is waited for, in seconds.
    """

    def __init__(self, directory: Path, lease_s: float, warn_after_s: float) -> None:
        self._directory = directory
        self._lease_s = lease_s
        self._warn_after_s = warn_after_s
        self._disk = RealDisk()
        self._woken = threading.Event()
        self._stopped = False
        self._waiter: threading.Thread | None = None
        self._waiter_generation = -1

    def stop(self) -> None:
        """Ends `wait` soon; may be called from any thread."""
        self._stopped = True
        self._woken.set()

    def wait(self, waiting: Callable[[], None] = lambda: None) -> Lease | None:
        """Waits until the journal may be had, and takes it.

        Args:
            waiting: called once, if another process holds the journal.

        Returns:
            The lease; None if `stop` was called first.

        Raises:
            JournalError: the operating system refused something.
        """
        try:
            self._disk.make_directory(self._directory)
            return self._wait(waiting)
        except OSError as error:
            raise explained(self._directory, "waiting for it", error) from error

    def _wait(self, waiting: Callable[[], None]) -> Lease | None:
        watch = Watch(self._lease_s)
        warn_s = time.monotonic()
        told = False
        while not self._stopped:
            self._woken.clear()
            with contextlib.suppress(JournalLockedError):
                return acquire(self._disk, self._directory)
            generation = newest_generation(self._disk.names(self._directory))
            if time.monotonic() >= warn_s:
                warn_s += self._warn_after_s
                holder = holder_of(self._disk, self._directory)
                logger.info("waiting for the journal %s, held by %s", self._directory, holder)
            if not told:
                told = True
                waiting()
            lease = self._overtake(watch, generation)
            if lease is not None:
                return lease
            self._wait_for_its_end(generation)
            if not self._stopped:  # set before the event, so a stop from now on ends the wait
                self._woken.wait(self._lease_s / _LOOKS)
        return None

    def _overtake(self, watch: Watch, generation: int) -> Lease | None:
        """Takes the journal if its holder has been silent for too long."""
        try:
            stamp = self._disk.stamp(lock_path(self._directory, generation))
        except FileNotFoundError:
            return None  # another one has taken it in this moment
        if not watch.silent(generation, stamp, time.monotonic()):
            return None
        holder = holder_of(self._disk, self._directory)
        lease = take_over(self._disk, self._directory, generation)
        if lease is not None:
            logger.warning(
                "%s has not renewed its lease of the journal %s for %.1f s: taking it over",
                holder,
                self._directory,
                self._lease_s,
            )
        return lease

    def _wait_for_its_end(self, generation: int) -> None:
        """Wakes the waiting when the lock of that generation is free: at its holder's end."""
        if generation == self._waiter_generation and self._waiter and self._waiter.is_alive():
            return
        path = lock_path(self._directory, generation)

        def run() -> None:
            with contextlib.suppress(OSError):
                self._disk.wait_for_lock(path)
                self._woken.set()

        # A thread that waits for a paused holder's lock cannot be called back: a daemon.
        self._waiter = threading.Thread(target=run, name="journal-standby", daemon=True)
        self._waiter_generation = generation
        self._waiter.start()
