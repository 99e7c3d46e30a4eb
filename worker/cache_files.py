"""What the files in a cache's directory are called, and which there are.

    STORE                                     the id of the directory, which all its workers share
    <cache key>/<split>-<stamp>.seg           a finished segment
    <cache key>/<split>-<stamp>.<owner>.partial     one that this worker is, or was, writing
    <any of the two>.damaged, .unusable       set aside for people to look at

Whoever writes a partial holds an flock on it. Any number of workers share a directory: they make
files under names of their own and give them the shared one only when they are finished.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from ..errors import UsageError
from .segment_file import SegmentName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STORE_NAME = "STORE"
SEGMENT = ".seg"
PARTIAL = ".partial"
DAMAGED = ".damaged"
UNUSABLE = ".unusable"
#: Room is made of what is not finished when nobody has gone on with it for so long.
ABANDONED_AFTER_S = 600.0
_OWNER_CHARS_MAX = 100
_FILE = re.compile(
    r"(?P<split>0|[1-9][0-9]{0,18})-(?P<stamp>[0-9a-f]{1,64})"
    r"(?:\.seg|\.(?P<owner>[A-Za-z0-9._-]+)\.partial)(?P<aside>\.damaged|\.unusable)?"
)


class Kind(enum.Enum):
    """What a file is."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    ASIDE = "aside"


@dataclass(frozen=True, slots=True)
class CacheFile:
    """One file of a cache.

    Attributes:
        path: of it.
        kind: what it is.
        name: what it holds, or was to hold.
        owner: who writes it, if it is a partial.
        nbytes: its length; 0 if another file of the cache has the same bytes.
        used_s: seconds since 1970 when it was last written or read.
    """

    path: Path
    kind: Kind
    name: SegmentName
    owner: str
    nbytes: int
    used_s: float


def owner_of(address: str) -> str:
    """How a worker is called in names of files."""
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", address) or "_"
    if len(plain) <= _OWNER_CHARS_MAX:
        return plain
    return f"{plain[: _OWNER_CHARS_MAX - 17]}-{xxhash.xxh3_64_hexdigest(plain.encode())}"


def segment_path(root: Path, name: SegmentName) -> Path:
    """Where a finished segment is."""
    return root / name.cache_key / f"{name.split}-{name.stamp}{SEGMENT}"


def partial_path(root: Path, name: SegmentName, owner: str) -> Path:
    """Where an unfinished segment is."""
    return root / name.cache_key / f"{name.split}-{name.stamp}.{owner}{PARTIAL}"


def name_of(path: Path) -> SegmentName | None:
    """What a finished segment of that name has to hold; None if it is no name of one."""
    parsed = _parse(path)
    return parsed[1] if parsed is not None and parsed[0] is Kind.SEGMENT else None


def files_in(root: Path) -> list[CacheFile]:
    """The files of a cache, in the order of their names; others' are left out.

    Raises:
        OSError: the directory cannot be read; one in it that is gone by then is no error.
    """
    with os.scandir(root) as entries:
        keys = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return [file for key in keys for file in files_of(root, key)]


def files_of(root: Path, cache_key: str) -> list[CacheFile]:
    """The files of one cache key; as `files_in`."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(root / cache_key) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = root / cache_key / entry.name
            parsed = _parse(path)
            if parsed is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                kind, name, owner = parsed
                # Two names: it was about to become a segment when its writer died.
                twice = kind is Kind.PARTIAL and stat.st_nlink > 1
                nbytes = 0 if twice else stat.st_size
                found.append(CacheFile(path, kind, name, owner, nbytes, stat.st_mtime))
    return found


def _parse(path: Path) -> tuple[Kind, SegmentName, str] | None:
    match = _FILE.fullmatch(path.name)
    if match is None:
        return None
    try:
        name = SegmentName(path.parent.name, int(match["split"]), match["stamp"])
    except UsageError:
        return None
    owner = match["owner"] or ""
    kind = Kind.ASIDE if match["aside"] else Kind.PARTIAL if owner else Kind.SEGMENT
    return kind, name, owner


def lock(path: Path, *, make: bool = False) -> int | None:
    """Opens a partial and locks it until the descriptor is closed.

    Args:
        path: of it.
        make: whether to make it if it is not there.

    Returns:
        The descriptor; None if somebody else has it locked.

    Raises:
        OSError: it cannot be opened; FileNotFoundError: it is not there.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    while True:
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have finished or removed it before the lock was ours.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
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


def is_written(path: Path) -> bool:
    """Whether somebody is writing a partial at this moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove(file: CacheFile) -> bool:
    """Removes a file, and its directory if it was the last one; False if somebody writes it.

    Whoever reads a segment goes on doing so.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        if file.kind is not Kind.PARTIAL:
            file.path.unlink()
        else:
            descriptor = lock(file.path)
            if descriptor is None:
                return False
            try:
                file.path.unlink()
            finally:
                os.close(descriptor)
    except FileNotFoundError:
        pass  # somebody else was faster
    with contextlib.suppress(OSError):
        file.path.parent.rmdir()
    return True


def written_elsewhere(root: Path, name: SegmentName, owner: str) -> bool:
    """Whether a worker of another name writes that segment at this moment."""
    own = partial_path(root, name, owner)
    begin = f"{name.split}-{name.stamp}."
    try:
        names = os.listdir(own.parent)
    except FileNotFoundError:
        return False
    return any(
        is_written(own.parent / each)
        for each in names
        if each.startswith(begin) and each.endswith(PARTIAL) and each != own.name
    )


def evictable(files: Iterable[CacheFile], writing: SegmentName, now_s: float) -> list[CacheFile]:
    """What may be removed to make room for a segment, in that order.

    Files set aside go first, then what nobody goes on writing, then segments of the same split's
    older sources, then those that nobody used for the longest time. Segments of the same cache key
    stay: an epoch reads them in turn, so the least recently used one is the next that it wants,
    and a cache that is smaller than an epoch would never be of any use.

    Args:
        files: what there is; what others are writing may be among it.
        writing: what room is made for.
        now_s: seconds since 1970.
    """
    groups: tuple[list[CacheFile], ...] = ([], [], [], [])
    for file in sorted(files, key=lambda file: (file.used_s, file.path)):
        if file.kind is Kind.ASIDE:
            groups[0].append(file)
        elif file.kind is Kind.PARTIAL:
            if file.used_s < now_s - ABANDONED_AFTER_S:
                groups[1].append(file)
        elif file.name.cache_key != writing.cache_key:
            groups[3].append(file)
        elif file.name.split == writing.split and file.name != writing:
            groups[2].append(file)
    return [file for group in groups for file in group]


def read_at(descriptor: int, offset: int, nbytes: int) -> bytes:
    """So many bytes of a file from there on, fewer at its end.

    Raises:
        OSError: it cannot be read.
    """
    data = os.pread(descriptor, nbytes, offset)
    while 0 < len(data) < nbytes:  # a call returns 2 GiB at most
        more = os.pread(descriptor, nbytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
