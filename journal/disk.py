"""All the I/O of the journal: a small protocol, and the real thing behind it.

The protocol has just what an append-only log needs. There is no truncate and no overwrite: a file
that must lose its torn tail is written anew and renamed into place. Whatever implements it promises
what POSIX does and no more: appended bytes are durable after `File.fsync`, created, renamed and
removed names after `Disk.fsync_dir`. `penstock.testing.disk.SimDisk` forgets everything else.
A lock goes with the process that holds it, however that ends, and who holds one can see whether
its file still has its name: that is all that the lease (`lease`) is made of.

All methods raise OSError when the operating system refuses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

#: The lock file says who holds it; more than this is not ours and not worth reading.
_HOLDER_BYTES_MAX = 256


class Closer(Protocol):
    """Something held until it is closed; closing twice is allowed."""

    def close(self) -> None: ...


class File(Closer, Protocol):
    """A file open for appending."""

    def append(self, data: bytes) -> None:
        """Writes all of `data` at the end; after an error any prefix of it may be there."""

    def fsync(self) -> None:
        """Makes everything appended so far durable. Never call it again after it has failed."""


class Lock(Closer, Protocol):
    """An exclusive lock on a file, held until it is closed or the process ends."""

    def held(self) -> bool:
        """Whether the file still has the name that it was locked by."""

    def touch(self) -> None:
        """Sets the file's time of change to now."""

    def describe(self, holder: str) -> None:
        """Writes into the file who holds it, for people."""


class Disk(Protocol):
    """The file operations that the journal uses."""

    def make_directory(self, directory: Path) -> None:
        """Creates `directory` and its parents where they are missing, durably."""

    def lock(self, path: Path, *, new: bool = False) -> Lock:
        """Locks a file, which is made if it is missing, and must be missing if it is to be `new`.

        BlockingIOError if another holds it, FileExistsError if there is one.
        """

    def holder(self, path: Path) -> str:
        """What the holder of a lock file wrote into it."""

    def stamp(self, path: Path) -> int:
        """The time of change of a file, in units of its own."""

    def names(self, directory: Path) -> list[str]:
        """The names of the files in `directory`, in no particular order."""

    def read(self, path: Path) -> bytes:
        """The whole content of a file."""

    def create(self, path: Path) -> File:
        """Makes a new, empty file and opens it for appending; there must be none."""

    def open(self, path: Path) -> File:
        """Opens an existing file for appending."""

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name in its directory, replacing what had that name."""

    def remove(self, path: Path) -> None:
        """Removes a name."""

    def fsync_dir(self, directory: Path) -> None:
        """Makes the names in `directory` durable."""


class RealDisk:
    """The file system of this machine."""

    def make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self.make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        self.fsync_dir(directory.parent)

    def lock(self, path: Path, *, new: bool = False) -> Lock:
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if new else 0)
        return _RealLock(path, flags, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def wait_for_lock(self, path: Path) -> None:
        """Waits until nobody holds the lock on an existing file; takes it only for a moment."""
        _RealLock(path, os.O_RDWR, fcntl.LOCK_EX).close()

    def holder(self, path: Path) -> str:
        with path.open("rb") as file:
            return file.read(_HOLDER_BYTES_MAX).decode("utf-8", "replace").strip()

    def stamp(self, path: Path) -> int:
        return path.stat().st_mtime_ns

    def names(self, directory: Path) -> list[str]:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path) -> File:
        return _RealFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644))

    def open(self, path: Path) -> File:
        return _RealFile(os.open(path, os.O_WRONLY | os.O_APPEND))

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def fsync_dir(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _fsync(fd)
        finally:
            os.close(fd)


class _RealFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A nearly full disk takes a part, and reports the error for the rest.
            view = view[os.write(self._fd, view) :]

    def fsync(self) -> None:
        _fsync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _RealLock:
    def __init__(self, path: Path, flags: int, how: int) -> None:
        self._path = path
        self._fd = os.open(path, flags, 0o644)
        try:
            fcntl.flock(self._fd, how)
            self._file = os.fstat(self._fd)
        except BaseException:
            self.close()
            raise

    def held(self) -> bool:
        # The open descriptor keeps the inode's number from being given to another file.
        try:
            return os.path.samestat(os.stat(self._path), self._file)
        except FileNotFoundError:
            return False

    def touch(self) -> None:
        os.utime(self._fd)

    def describe(self, holder: str) -> None:
        # Only for a message: a full disk must not keep a journal from being opened.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder}\n".encode(), 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _fsync(fd: int) -> None:
    full_fsync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_fsync is None:
        os.fsync(fd)
    else:  # macOS: fsync alone leaves the data in the drive's cache.
        fcntl.fcntl(fd, full_fsync)
