"""The checkpoints on this worker's disk: written whole or not at all, read only if undamaged.

A worker has a directory of its own, named by its address, within the one that it is given; a lock
in it keeps others out. A file is written under a temporary name, fsynced, renamed, and the
directory fsynced, so that a crash at any point leaves what was there before or what is there now.
What is damaged or does not fit is renamed, for people to look at, and never read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING

import msgpack
import xxhash

from ..errors import UsageError
from ..failpoints import failpoint
from .checkpoint_file import DamagedError, encode, read, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .checkpoint_file import Checkpoint
    from .messages import Key

logger = logging.getLogger(__name__)

LOCK_NAME = "LOCK"
SUFFIX = ".checkpoint"
TEMPORARY = ".tmp"
DAMAGED = ".damaged"
UNUSABLE = ".unusable"
#: Files set aside that are kept.
ASIDE_MAX = 4
#: Bytes of all checkpoints of a worker; beyond it no new ones are written.
TOTAL_BYTES_MAX = 8 << 30
#: Another worker's directory is removed when nobody has used it for so long.
LEFT_AFTER_S = 24 * 3600.0


class CheckpointStore:
    """The files of one worker. Thread-safe.

    Args:
        root: the directory that was given; made if it is not there.
        address: under which clients reach this worker.
        tensorflow: the release that runs; states of others are set aside.
        total_bytes_max: what all files together may have.

    Attributes:
        directory: where the files are.

    Raises:
        UsageError: the directory cannot be used, or another worker uses it.
    """

    def __init__(
        self, root: Path, address: str, tensorflow: str, total_bytes_max: int = TOTAL_BYTES_MAX
    ) -> None:
        self.directory = root / re.sub(r"[^A-Za-z0-9.-]", "_", address)
        self._tensorflow = tensorflow
        self._total_bytes_max = total_bytes_max
        self._guard = threading.Lock()
        self._files: dict[Key, dict[int, int]] = {}  # elements -> bytes
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.directory)
            if self._lock is None:
                holder = _holder(self.directory)
                raise UsageError(
                    f"--checkpoint-dir {root}: {self.directory.name} is in use by {holder}; stop"
                    " that worker, or give this one another directory"
                )
            os.utime(self.directory)
            _sync_directory(root)
            self._scan()
            _sweep(root, self.directory)
        except OSError as error:
            raise UsageError(f"--checkpoint-dir {root}: {error}") from error

    def close(self) -> None:
        """Lets others have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def newest(self) -> list[tuple[Key, int]]:
        """What this worker can begin without the start: splits, and the elements before."""
        with self._guard:
            return sorted((key, max(held)) for key, held in self._files.items() if held)

    def elements(self, key: Key) -> list[int]:
        """How many elements lie before each checkpoint of a split, ascending."""
        with self._guard:
            return sorted(self._files.get(key, ()))

    def write(self, checkpoint: Checkpoint) -> bool:
        """Makes a checkpoint durable; whether there was space for it.

        Raises:
            OSError: the disk refuses; nothing of it is left.
        """
        parts = encode(checkpoint)
        nbytes = sum(map(len, parts))
        with self._guard:
            total = sum(sum(held.values()) for held in self._files.values())
        if total + nbytes > self._total_bytes_max:
            return False
        key, elements = checkpoint.header.key, checkpoint.header.elements
        path = self._path(key, elements)
        temporary = path.with_name(path.name + TEMPORARY)
        failpoint("worker.checkpoint.before_write")
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                failpoint("worker.checkpoint.after_write")
                os.fsync(file.fileno())
            failpoint("worker.checkpoint.before_rename")
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        with self._guard:
            self._files.setdefault(key, {})[elements] = nbytes
        failpoint("worker.checkpoint.after_rename")
        _sync_directory(self.directory)
        return True

    def read(self, key: Key, elements: int) -> Checkpoint | None:
        """A checkpoint that was listed; None if it is gone, or damaged and set aside."""
        path = self._path(key, elements)
        try:
            failpoint("worker.restore.before_read")
            with path.open("rb") as file:
                found = read(file, os.fstat(file.fileno()).st_size)
            if (found.header.key, found.header.elements) != (key, elements):
                raise DamagedError(f"it is of {found.header.key}, {found.header.elements} elements")
        except DamagedError as error:
            self.set_aside(key, elements, DAMAGED, str(error))
            return None
        except OSError as error:
            logger.warning("checkpoint %s cannot be read: %s", path, error)
            return None
        return found

    def set_aside(self, key: Key, elements: int, suffix: str, why: str) -> None:
        """Renames a file that is of no use, and says so; never raises."""
        self._drop(key, elements)
        self._set_aside(self._path(key, elements), suffix, why)

    def remove(self, key: Key, elements: Iterable[int]) -> None:
        """Removes checkpoints of one split.

        Raises:
            OSError: the disk refuses.
        """
        for each in elements:
            failpoint("worker.checkpoint.before_remove")
            self._path(key, each).unlink(missing_ok=True)
            self._drop(key, each)

    def _drop(self, key: Key, elements: int) -> None:
        with self._guard:
            held = self._files.get(key, {})
            held.pop(elements, None)
            if not held:
                self._files.pop(key, None)

    def _path(self, key: Key, elements: int) -> Path:
        name = xxhash.xxh3_64_hexdigest(
            msgpack.packb([key.dataset, key.seed, key.epoch, key.split])
        )
        return self.directory / f"{name}-{elements}{SUFFIX}"

    def _scan(self) -> None:
        """Lists what an earlier life of this worker left; removes what it did not finish."""
        for path in sorted(self.directory.iterdir()):
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)
            elif path.name.endswith(SUFFIX):
                self._add(path)

    def _add(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = read_header(file, size)
            if path != self._path(header.key, header.elements):
                raise DamagedError(f"it is of {header.key}, {header.elements} elements")
        except DamagedError as error:
            self._set_aside(path, DAMAGED, str(error))
            return
        if header.tensorflow != self._tensorflow:
            why = f"TensorFlow {header.tensorflow} wrote it, {self._tensorflow} runs"
            self._set_aside(path, UNUSABLE, why)
            return
        self._files.setdefault(header.key, {})[header.elements] = size

    def _set_aside(self, path: Path, suffix: str, why: str) -> None:
        target = path.with_name(path.name + suffix)
        logger.warning("checkpoint %s is set aside as %s: %s", path, target.name, why)
        try:
            path.replace(target)
            aside = [p for p in self.directory.iterdir() if p.name.endswith((DAMAGED, UNUSABLE))]
            aside.sort(key=lambda p: p.stat().st_mtime_ns)
            for old in [p for p in aside if p != target][: max(0, len(aside) - ASIDE_MAX)]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("checkpoint %s could not be set aside: %s", path, error)


def _lock(directory: Path) -> int | None:
    """Locks a directory until the descriptor is closed; None if somebody else has it locked."""
    path = directory / LOCK_NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another worker may have removed the file while it was ours only by name.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(directory: Path) -> str:
    with contextlib.suppress(OSError, ValueError), (directory / LOCK_NAME).open("rb") as file:
        return f"process {int(file.read(32))}"
    return "another process"


def _sweep(root: Path, own: Path) -> None:
    """Removes the directories of workers that are dead and have not been back for a day."""
    for directory in _left_behind(root, own):
        lock = _lock(directory)
        if lock is None:
            continue
        try:
            ours = (SUFFIX, TEMPORARY, DAMAGED, UNUSABLE)
            files = [p for p in directory.iterdir() if p.name.endswith(ours)]
            for path in files:
                path.unlink(missing_ok=True)
            (directory / LOCK_NAME).unlink()
            directory.rmdir()
            logger.info("removed %s with %d checkpoints of a dead worker", directory, len(files))
        except OSError as error:
            logger.info("%s of a dead worker is left as it is: %s", directory, error)
        finally:
            os.close(lock)


def _left_behind(root: Path, own: Path) -> Iterator[Path]:
    before = time.time() - LEFT_AFTER_S
    for directory in sorted(root.iterdir()):
        if directory == own or directory.is_symlink() or not (directory / LOCK_NAME).is_file():
            continue
        with contextlib.suppress(OSError):
            if max(p.stat().st_mtime for p in (directory, *directory.iterdir())) < before:
                yield directory


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
