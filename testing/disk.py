"""A disk in memory that keeps after a crash only what POSIX promises.

`SimDisk` implements `penstock.journal.Disk`. It knows two things about every file and directory:
what processes see, and what is durable. `crash_states` yields every disk that a power loss may
leave: of each file the synced bytes and any prefix of what was appended since (optionally filled
up with zeros to the length that the file had), of each directory the synced names and any
combination of the creations, renames and removals since. `restarted` is the milder end, kill -9:
the process is gone, the kernel still has everything.

    def check(disk):
        log, recovered = Log.open(directory, disk=disk)
        ...

    for state in disk.crash_states():
        check(state)

`before` is called ahead of each operation that changes something; it may raise OSError to fail the
operation, or `Crash` to stop the process there: from then on every operation raises `Crash`. A
failed fsync acts as Linux does: the data stays readable, will never reach the disk, and the next
fsync reports success.

`another_process` is the same disk as a second process has it, with a `before` of its own, which
with `looks=True` is also called ahead of everything that only reads or has to do with locks: so a
test can stop one process anywhere and let the other go on.
"""

from __future__ import annotations

import copy
import errno
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

#: All combinations of this many unsynced names are tried; of more only the prefixes.
_COMBINED_NAMES_MAX = 8


class Crash(BaseException):
    """The simulated process ends here. Not an Exception, so that no handler mistakes it for one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A change that is about to be made.

    Attributes:
        index: how many changes this disk has made or tried before.
        kind: create, append, fsync, rename, remove or fsync_dir; with `looks` also names, read,
            lock, held, touch and unlock (removing the name of a lock file).
        path: of what; the old name for a rename.
    """

    index: int
    kind: str
    path: Path


@dataclass(slots=True)
class _Inode:
    content: bytearray = field(default_factory=bytearray)
    synced_bytes: int = 0
    #: What fsyncs that failed were to write: readable, and never durable.
    lost: list[tuple[int, int]] = field(default_factory=list)

    def after_crash(self, kept_bytes: int, zeros_to: int = 0) -> _Inode:
        content = self.content[:kept_bytes].ljust(zeros_to, b"\0")
        for begin, end in self.lost:
            content[begin:end] = bytes(max(0, min(end, len(content)) - begin))
        return _Inode(content, len(content))

    def after_any_crash(self, zeros: bool, step_bytes: int) -> list[_Inode]:
        length = len(self.content)
        # Lost bytes at the end leave the file short; before durable ones they leave zeros.
        floor = self.synced_bytes
        while self.lost and any(end == floor for _, end in self.lost):
            floor = next(begin for begin, end in self.lost if end == floor)
        prefixes = range(floor, length, step_bytes)
        states = [self.after_crash(kept) for kept in (*prefixes, length)]
        if zeros:
            states += [self.after_crash(kept, length) for kept in prefixes]
        return states


@dataclass(slots=True)
class _LockFile:
    """Lock files have no content that matters; their names are durable or not as the test likes."""

    locked: bool = False
    holder: str = ""
    touched: int = 0


@dataclass(frozen=True, slots=True)
class _Renaming:
    """A change of a directory that is not durable; None as target is a removal."""

    source: Path | None
    target: Path | None
    inode: _Inode


class SimDisk:
    """A disk in memory; see the module. Not thread-safe, and links and nested renames are missing.

    Args:
        before: called ahead of each change; raises OSError to fail it, Crash to end the process.
        capacity_bytes: how much all files may hold; an append beyond it writes what fits and
            raises OSError(ENOSPC).
        looks: call `before` ahead of what changes nothing, too.
    """

    def __init__(
        self,
        before: Callable[[Operation], None] | None = None,
        *,
        capacity_bytes: int | None = None,
        looks: bool = False,
    ) -> None:
        self.before = before
        self.capacity_bytes = capacity_bytes
        self.looks = looks
        self.operations: list[Operation] = []
        self._files: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._pending: list[_Renaming] = []
        self._directories: set[Path] = set()
        self._locks: dict[Path, _LockFile] = {}
        self._crashed = False

    def make_directory(self, directory: Path) -> None:
        self.check_alive()
        self._directories.add(directory)

    def lock(self, path: Path, *, new: bool = False) -> SimLock:
        self.look("lock", path)
        file = self._locks.get(path)
        if file is not None and new:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        if file is None:
            file = self._locks[path] = _LockFile()
        if file.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds it", str(path))
        file.locked = True
        return SimLock(self, path, file)

    def holder(self, path: Path) -> str:
        self.check_alive()
        return self.lock_file(path).holder

    def stamp(self, path: Path) -> int:
        self.check_alive()
        return self.lock_file(path).touched

    def names(self, directory: Path) -> list[str]:
        self.look("names", directory)
        if directory not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(directory))
        return [path.name for path in (*self._files, *self._locks) if path.parent == directory]

    def read(self, path: Path) -> bytes:
        self.look("read", path)
        return bytes(self._inode(path).content)

    def create(self, path: Path) -> SimFile:
        self.change("create", path)
        if path in self._files:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        self._files[path] = _Inode()
        self._pending.append(_Renaming(None, path, self._files[path]))
        return SimFile(self, path, self._files[path])

    def open(self, path: Path) -> SimFile:
        self.check_alive()
        return SimFile(self, path, self._inode(path))

    def rename(self, source: Path, target: Path) -> None:
        self.change("rename", source)
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, "SimDisk renames within a directory only", str(target))
        inode = self._inode(source)
        del self._files[source]
        self._files[target] = inode
        self._pending.append(_Renaming(source, target, inode))

    def remove(self, path: Path) -> None:
        if path in self._locks:
            self.look("unlock", path)
            self.lock_file(path)  # another process may have been faster
            del self._locks[path]
            return
        self.change("remove", path)
        self._pending.append(_Renaming(path, None, self._inode(path)))
        del self._files[path]

    def fsync_dir(self, directory: Path) -> None:
        self.change("fsync_dir", directory)
        here = [item for item in self._pending if _directory_of(item) == directory]
        _apply(here, self._durable)
        self._pending[:] = [item for item in self._pending if _directory_of(item) != directory]

    def put(self, path: Path, content: bytes) -> None:
        """Makes a file durable at once, behind the journal's back: for tests that damage one."""
        self._files[path] = self._durable[path] = _Inode(bytearray(content), len(content))
        self._directories.add(path.parent)

    def drop(self, path: Path) -> None:
        """Removes a file durably, behind the journal's back."""
        del self._files[path], self._durable[path]

    def files(self) -> dict[Path, bytes]:
        """What processes see: the content of every file."""
        return {path: bytes(inode.content) for path, inode in self._files.items()}

    def restarted(self) -> SimDisk:
        """The disk after kill -9: all that was written is seen, nothing more is durable."""
        disk = SimDisk(capacity_bytes=self.capacity_bytes)
        # One deep copy, so that a file seen and the same file made durable stay one inode.
        state = (self._files, self._durable, self._pending, self._directories)
        disk._files, disk._durable, disk._pending, disk._directories = copy.deepcopy(state)
        disk._locks = {path: _LockFile() for path in self._locks}
        return disk

    def another_process(
        self, before: Callable[[Operation], None] | None = None, *, looks: bool = False
    ) -> SimDisk:
        """This disk as another process sees it; see the module."""
        disk = SimDisk(before, capacity_bytes=self.capacity_bytes, looks=looks)
        disk._files, disk._durable, disk._pending = self._files, self._durable, self._pending
        disk._directories, disk._locks = self._directories, self._locks
        return disk

    def crash_states(self, *, zeros: bool = False, step_bytes: int = 1) -> Iterator[SimDisk]:
        """Yields every different disk that a power loss at this moment may leave.

        Args:
            zeros: also let files keep their length without their last bytes' content.
            step_bytes: try only prefixes of unsynced appends that are this far apart.
        """
        seen: set[frozenset[tuple[Path, bytes]]] = set()
        for kept in _combinations(self._pending):
            names = dict(self._durable)
            _apply(kept, names)
            paths = list(names)
            choices = [names[path].after_any_crash(zeros, step_bytes) for path in paths]
            for inodes in itertools.product(*choices):
                files = dict(zip(paths, inodes, strict=True))
                key = frozenset((path, bytes(inode.content)) for path, inode in files.items())
                if key in seen:
                    continue
                seen.add(key)
                disk = SimDisk(capacity_bytes=self.capacity_bytes)
                disk._directories = set(self._directories)
                for path, inode in files.items():
                    disk.put(path, bytes(inode.content))
                yield disk

    def change(self, kind: str, path: Path) -> None:
        """Counts a change that is about to be made, and lets `before` object to it."""
        self.check_alive()
        operation = Operation(len(self.operations), kind, path)
        self.operations.append(operation)
        if self.before:
            try:
                self.before(operation)
            except Crash:
                self._crashed = True
                raise

    def look(self, kind: str, path: Path) -> None:
        """The same for what changes nothing, if that counts."""
        if self.looks:
            self.change(kind, path)
        else:
            self.check_alive()

    def lock_file(self, path: Path) -> _LockFile:
        """A lock file, by its name."""
        if path not in self._locks:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._locks[path]

    def free_bytes(self) -> int | None:
        """How much more the files may hold; None if there is no limit."""
        if self.capacity_bytes is None:
            return None
        return self.capacity_bytes - sum(len(inode.content) for inode in self._files.values())

    def _inode(self, path: Path) -> _Inode:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._files[path]

    def check_alive(self) -> None:
        """Raises Crash if the simulated process has ended."""
        if self._crashed:
            raise Crash("the simulated process has ended")


class SimLock:
    """A lock on a file of a SimDisk."""

    def __init__(self, disk: SimDisk, path: Path, file: _LockFile) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._closed = False

    def held(self) -> bool:
        self._disk.look("held", self._path)
        try:
            return self._disk.lock_file(self._path) is self._file
        except FileNotFoundError:
            return False

    def touch(self) -> None:
        self._disk.look("touch", self._path)
        self._file.touched += 1

    def describe(self, holder: str) -> None:
        self._file.holder = holder

    def close(self) -> None:
        if not self._closed:
            self._closed, self._file.locked = True, False


class SimFile:
    """A file of a SimDisk, open for appending."""

    def __init__(self, disk: SimDisk, path: Path, inode: _Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode

    def append(self, data: bytes) -> None:
        self._disk.check_alive()
        try:
            self._disk.change("append", self._path)
        except Crash:
            # The crash may have been in the middle: crash_states tries every prefix of this.
            self._inode.content += data
            raise
        free_bytes = self._disk.free_bytes()
        if free_bytes is not None and free_bytes < len(data):
            self._inode.content += data[: max(0, free_bytes)]
            raise OSError(errno.ENOSPC, "no space left on device", str(self._path))
        self._inode.content += data

    def fsync(self) -> None:
        try:
            self._disk.change("fsync", self._path)
        except OSError:
            self._inode.lost.append((self._inode.synced_bytes, len(self._inode.content)))
            self._inode.synced_bytes = len(self._inode.content)
            raise
        self._inode.synced_bytes = len(self._inode.content)

    def close(self) -> None:
        """Closing makes nothing durable."""


def _directory_of(item: _Renaming) -> Path:
    path = item.target or item.source
    assert path is not None
    return path.parent


def _apply(changes: Iterable[_Renaming], names: dict[Path, _Inode]) -> None:
    for change in changes:
        if change.source is not None and names.get(change.source) is change.inode:
            del names[change.source]
        if change.target is not None:
            names[change.target] = change.inode


def _combinations(pending: list[_Renaming]) -> Iterator[list[_Renaming]]:
    if len(pending) > _COMBINED_NAMES_MAX:
        yield from (pending[:count] for count in range(len(pending) + 1))
        return
    for kept in itertools.product((True, False), repeat=len(pending)):
        yield list(itertools.compress(pending, kept))
