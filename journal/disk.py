"""All the I/O of the journal: a small protocol, and the real thing behind it.

The protocol has just what an append-only log needs. There is no truncate and no overwrite: a file
that must lose its torn tail is written anew and renamed into place. Whatever implements it promises
what POSIX does and no more: appended bytes are durable after `File.fsync`, created, renamed and
removed names after `Disk.fsync_dir`. `penstock.testing.disk.SimDisk` forgets everything else.

All methods raise OSError when the operating system refuses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Protocol

from ..errors import JournalLockedError

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "LOCK"
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


class Disk(Protocol):
    """The file operations that the journal uses."""

    def make_directory(self, directory: Path) -> None:
        """Creates `directory` and its parents where they are missing, durably."""

    def lock(self, directory: Path) -> Closer:
        """Takes the one writer's lock of `directory`; JournalLockedError if it is held."""

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

    def lock(self, directory: Path) -> Closer:
        return _Lock(directory)

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


class _Lock:
    """An flock on a file that is never deleted: it goes with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, _HOLDER_BYTES_MAX, 0).decode("utf-8", "replace").strip()
            self.close()
            raise JournalLockedError(
                f"journal {directory} is in use by process {holder or 'unknown'}; stop that "
                f"process, or give this one a directory of its own"
            ) from None
        except BaseException:
            self.close()
            raise
        # Only for the message above: a full disk must not keep a journal from being opened.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)

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
