"""The lease of a journal: who may write it, and how a writer learns that it may not any more.

Theory of operation. The journal has a *generation* g, a number that only grows, and a lock file of
that number: `LOCK` for 0, else `LOCK-g`. The holder has an flock on it and touches it every quarter
of a lease. Somebody else may take the journal

- with the same generation, when the flock of the newest lock file is free: the kernel says that
  the process of the holder is gone;
- with the next generation, when the holder was not seen to touch the file for a whole lease on the
  taker's own clock: it is paused, or its machine is gone. The new lock file is created exclusively
  and locked, so that one taker of several wins.

Either way the taker then removes the lock files of all lower generations, and only after that
reads anything of the journal. A lock file that lost its name is the mark of a holder that was
replaced, and the name never returns.

Why nothing that was acknowledged is lost. The holder appends a record, fsyncs it, then looks
whether its lock file still has its name, and only then tells anybody. The taker removes that name,
then reads. If the holder still saw the name, its fsync came before the removal, and so before the
reading: every record that was acknowledged is one that the taker reads. What a replaced holder
wrote later it acknowledges to nobody.

Why a replaced holder does no harm. It may be anywhere in its code when it wakes up, also in the
middle of a recovery, and no look protects what is done after it. So it is the names that keep
writers apart: a writer creates and replaces only files of its own generation, and removes none of
a higher one. See `recovery` for which of two files counts, and docs/decisions.md for every
operation of a replaced holder and what becomes of it.

No clock of one machine is compared with that of another. The directory must be on a file system
that shows a removed name to every machine at once: a local disk, or a cluster file system, not NFS
with its caches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from typing import TYPE_CHECKING

from ..errors import JournalError, JournalLockedError
from ..failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .disk import Disk, Lock

logger = logging.getLogger(__name__)

_LOCK_NAME = re.compile(r"LOCK(?:-([1-9][0-9]{0,17}))?")
#: Files of a journal that carry the generation of their writer.
_WRITTEN_NAME = re.compile(
    r"(?:records|snapshot)-[0-9]{20}-([1-9][0-9]{0,17})\.(?:log|snap)(?:\.tmp)?"
)


def lock_path(directory: Path, generation: int) -> Path:
    """The lock file of a generation."""
    return directory / (f"LOCK-{generation}" if generation else "LOCK")


def lock_generation(name: str) -> int | None:
    """The generation whose lock file has that name; None if it is not a lock file."""
    match = _LOCK_NAME.fullmatch(name)
    return int(match[1] or 0) if match else None


def newest_generation(names: Iterable[str]) -> int:
    """The highest generation that any name in a journal's directory tells of; 0 without any."""
    newest = 0
    for name in names:
        match = _LOCK_NAME.fullmatch(name) or _WRITTEN_NAME.fullmatch(name)
        newest = max(newest, int(match[1] or 0) if match else 0)
    return newest


class Lease:
    """The right to write a journal, until somebody else takes it. Thread-safe.

    Args:
        disk: what does the I/O.
        directory: the journal's.
        generation: of this holder.
        lock: its lock.
    """

    def __init__(self, disk: Disk, directory: Path, generation: int, lock: Lock) -> None:
        self.generation = generation
        self.directory = directory
        self._disk = disk
        self._lock = lock
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def check(self) -> None:
        """Returns if nobody has taken the journal over; one stat.

        Raises:
            JournalError: another process has; the message names it.
            OSError: the disk does not say.
        """
        if not self._lock.held():
            raise JournalError(
                f"{holder_of(self._disk, self.directory)} has taken over the journal "
                f"{self.directory}: this process did not renew its lease in time"
            )

    def renew(self) -> None:
        """Shows that this holder lives. Raises as `check` does."""
        failpoint("journal.lease.before_renew")
        self._lock.touch()
        self.check()

    def keep(self, lease_s: float, on_lost: Callable[[BaseException], None]) -> None:
        """Renews the lease until it is closed, in a thread: replaying a long journal takes time.

        Args:
            lease_s: how long a holder may be silent; this one renews four times as often.
            on_lost: called once in that thread, when the lease is lost or cannot be renewed.
        """

        def renewed() -> bool:
            try:
                self.renew()
            except (JournalError, OSError) as error:
                if not self._ended.is_set():  # else it was closed under our hands
                    on_lost(error)
                return False
            return True

        def run() -> None:
            while not self._ended.wait(lease_s / 4) and renewed():
                pass

        self._keeper = threading.Thread(target=run, name="journal-lease", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """Lets the journal go. Closing twice is fine."""
        self._ended.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        self._lock.close()


def acquire(disk: Disk, directory: Path) -> Lease:
    """Takes a journal that nobody holds; does not wait.

    Raises:
        JournalLockedError: another process holds it; the message has its id.
        OSError: the operating system refused something.
    """
    while True:
        generation = newest_generation(disk.names(directory))
        failpoint("journal.lease.before_take")
        try:
            lock = disk.lock(lock_path(directory, generation))
        except BlockingIOError:
            raise JournalLockedError(
                f"journal {directory} is in use by {holder_of(disk, directory)}; stop that "
                f"process, or give this one a directory of its own"
            ) from None
        lease = _settle(disk, directory, generation, lock)
        if lease is not None:
            return lease


def take_over(disk: Disk, directory: Path, generation: int) -> Lease | None:
    """Takes a journal from a holder that has not renewed its lease.

    Args:
        disk: what does the I/O.
        directory: the journal's.
        generation: of the silent holder.

    Returns:
        The lease; None if another process was faster.

    Raises:
        OSError: the operating system refused something.
    """
    failpoint("journal.lease.before_take")
    try:
        lock = disk.lock(lock_path(directory, generation + 1), new=True)
    except (FileExistsError, BlockingIOError):
        return None
    return _settle(disk, directory, generation + 1, lock)


def holder_of(disk: Disk, directory: Path) -> str:
    """Who holds a journal, for people: `process P on host H`."""
    try:
        newest = newest_generation(disk.names(directory))
        holder = disk.holder(lock_path(directory, newest))
    except OSError:
        holder = ""
    return f"process {holder or 'unknown'}"


def _settle(disk: Disk, directory: Path, generation: int, lock: Lock) -> Lease | None:
    """Makes a lock the only one; None if it is not that of the newest generation any more."""
    try:
        if not lock.held() or newest_generation(disk.names(directory)) > generation:
            lock.close()
            return None
        lock.describe(f"{os.getpid()} on {socket.gethostname()}")
        lock.touch()
        _remove_lower(disk, directory, generation)
        failpoint("journal.lease.after_take")
        if not lock.held():
            lock.close()
            return None
    except BaseException:
        lock.close()
        raise
    return Lease(disk, directory, generation, lock)


def _remove_lower(disk: Disk, directory: Path, generation: int) -> None:
    """Removes the lock files of lower generations, and with them their holders' right to write."""
    if not generation:
        return
    # The new one comes first: there must be no moment, and no power loss, that leaves none.
    disk.fsync_dir(directory)
    found = (lock_generation(name) for name in disk.names(directory))
    lower = sorted(number for number in found if number is not None and number < generation)
    for number in lower:
        with contextlib.suppress(FileNotFoundError):  # another taker of an older lock was faster
            disk.remove(lock_path(directory, number))
    if lower:
        disk.fsync_dir(directory)
