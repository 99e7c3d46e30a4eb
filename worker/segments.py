"""The Put/Get cache on this worker's disk: segments that are written once and read many times.

A segment holds the encoded elements of one split of a pipeline's cached part. Any number of workers
may share a directory. `put` writes one (`partial`), `get` opens one (`segment`); what each file is
called, `cache_files` says, and what stands in it, `segment_file`. A segment is there whole or not
at all. One that is damaged, or that nobody could read here, is renamed, for people to look at, and
never read again: the split is produced once more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..failpoints import failpoint
from .cache_files import (
    DAMAGED,
    STORE_NAME,
    UNUSABLE,
    Kind,
    files_in,
    files_of,
    owner_of,
    partial_path,
    remove,
    segment_path,
    sync_directory,
    written_elsewhere,
)
from .cache_room import CapacityError, Room
from .leftover import claim, settle
from .partial import PartialSegment, begin
from .segment import Segment, SegmentReport, verify
from .segment_file import DamagedSegmentError, Head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .segment_file import SegmentName

__all__ = [
    "CapacityError",
    "PartialSegment",
    "Segment",
    "SegmentReport",
    "SegmentStore",
    "verify",
]

logger = logging.getLogger(__name__)

#: Files set aside that are kept.
ASIDE_MAX = 4
#: What others did not finish is removed when nobody has gone on with it for so long.
LEFT_AFTER_S = 24 * 3600.0
#: How often a directory may be removed by others just when a file is to be made in it.
_TRIALS = 16


class SegmentStore:
    """The segments in one directory, as one worker reads and writes them. Thread-safe.

    Args:
        root: the directory that was given; made if it is not there. Others may use it, too.
        owner: the address under which clients reach this worker.
        limit: bytes that all files in it together may have.
        tensorflow: the release that runs; segments of others are set aside.
        changed: told of each segment that is there from now on (True), or is not any more (False),
            because of this store; in whichever thread, but not before the store is made. It must
            not raise.

    Attributes:
        directory: where the files are.
        store_id: 32 hexadecimal digits, the same for all that use the directory.

    Raises:
        UsageError: the directory cannot be used, or the limit is none.
    """

    def __init__(
        self,
        root: Path,
        owner: str,
        limit: int,
        tensorflow: str,
        changed: Callable[[SegmentName, bool], None] = lambda name, present: None,
    ) -> None:
        if limit <= 0:
            raise UsageError(f"--cache-limit takes a size above 0, not {limit}")
        self.directory = root
        self._owner = owner_of(owner)
        self._tensorflow = tensorflow
        self._changed = changed
        self._room = Room(root, self._owner, limit, lambda name: changed(name, False))
        self._guard = threading.Lock()
        self._writing: dict[SegmentName, PartialSegment] = {}
        self._closed = False
        self._refused = ""
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError("this user cannot write in it")
            self.store_id = _store_id(root)
            self._sweep()
        except OSError as error:
            raise UsageError(f"--cache-dir {root}: {error}") from error

    def close(self) -> None:
        """Lets go of what is being written, for the next life to go on with; `put` is over."""
        with self._guard:
            self._closed = True
            writing = list(self._writing.values())
        for partial in writing:
            partial.release()

    def get(self, name: SegmentName) -> Segment | None:
        """Opens a segment; None if it is not there, or had to be set aside."""
        path = segment_path(self.directory, name)
        try:
            failpoint("worker.get.before_read")
            segment = Segment(path, name)
        except FileNotFoundError:
            return None
        except DamagedSegmentError as error:
            self.set_aside(name, str(error))
            return None
        except OSError as error:
            logger.warning("segment %s cannot be read: %s", path, error)
            return None
        if segment.tensorflow != self._tensorflow:
            segment.close()
            why = f"TensorFlow {segment.tensorflow} wrote it, {self._tensorflow} runs"
            self._set_aside(name, UNUSABLE, why)
            return None
        with contextlib.suppress(OSError):  # it counts as not used lately, no more
            os.utime(segment.fileno())
        return segment

    def put(self, name: SegmentName) -> PartialSegment | None:
        """Claims a segment for writing, and goes on where an earlier life of this worker was.

        Returns:
            None if it is there, somebody is writing it, or the disk or the limit refuse.
        """
        with self._guard:
            if self._closed or not self._room.claim(name):
                return None
        partial = None
        try:
            partial = self._put(name)
            if partial is not None:
                self._refused = ""
        except (OSError, CapacityError) as error:
            self._refuse(name, error)
        finally:
            if partial is None:
                self._room.free(name)
        if partial is not None:
            with self._guard:
                self._writing[name] = partial
                closed = self._closed
            if closed:
                partial.release()
                return None
        return partial

    def set_aside(self, name: SegmentName, why: str) -> None:
        """Renames a segment that is of no use, and says so; never raises.

        Args:
            name: of it.
            why: for the log, such as the text of a `DamagedSegmentError`.
        """
        self._set_aside(name, DAMAGED, why)

    def inventory(self) -> dict[str, dict[int, int]]:
        """What is there: for each cache key the splits, and how many bytes their segments have.

        Raises:
            OSError: the directory cannot be listed.
        """
        found: dict[str, dict[int, int]] = {}
        for file in files_in(self.directory):
            if file.kind is Kind.SEGMENT:
                splits = found.setdefault(file.name.cache_key, {})
                splits[file.name.split] = splits.get(file.name.split, 0) + file.nbytes
        return found

    def total_bytes(self) -> int:
        """How many bytes all files have, whoever wrote them.

        Raises:
            OSError: the directory cannot be listed.
        """
        return sum(file.nbytes for file in files_in(self.directory))

    def charge(self, name: SegmentName, nbytes: int) -> None:
        """Makes room for a segment that is being written; see `Room.charge`."""
        self._room.charge(name, nbytes)

    def ended(self, name: SegmentName, *, present: bool) -> None:
        """A segment is not being written any more; it is there now if `present`."""
        self._room.free(name)
        with self._guard:
            self._writing.pop(name, None)
        if present:
            self._changed(name, True)
            self._sweep_partials(name)

    def _sweep_partials(self, name: SegmentName) -> None:
        """Removes what others, who died, had written of a segment that is there now."""
        for file in files_of(self.directory, name.cache_key):
            if file.kind is Kind.PARTIAL and file.name == name:
                with contextlib.suppress(OSError):  # another user's, for example
                    remove(file)

    def _put(self, name: SegmentName) -> PartialSegment | None:
        target = segment_path(self.directory, name)
        path = partial_path(self.directory, name, self._owner)
        if target.exists() or written_elsewhere(self.directory, name, self._owner):
            return None
        descriptor = _claim(path)
        if descriptor is None:
            return None
        head = Head(name, secrets.token_hex(8), self._tensorflow)
        partial = begin(self, path, target, descriptor, head)
        if partial is None:
            self._changed(name, True)
        return partial

    def _refuse(self, name: SegmentName, error: Exception) -> None:
        """Says why nothing is cached, once and not for each of the segments."""
        kind = type(error).__name__
        if self._refused != kind:
            logger.warning("%s is not cached: %s", name, error)
        self._refused = kind

    def _set_aside(self, name: SegmentName, suffix: str, why: str) -> None:
        path = segment_path(self.directory, name)
        target = path.with_name(path.name + suffix)
        why = why.removeprefix(f"segment {path}: ")
        logger.warning("segment %s is set aside as %s: %s", path, target.name, why)
        try:
            os.utime(path)  # so that it is the newest of those aside
            path.replace(target)
            aside = [file for file in files_in(self.directory) if file.kind is Kind.ASIDE]
            aside.sort(key=lambda file: file.used_s)
            for old in aside[:-ASIDE_MAX]:
                remove(old)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            logger.warning("segment %s could not be set aside: %s", path, error)
            return
        self._changed(name, False)

    def _sweep(self) -> None:
        """Puts right what earlier lives left, and removes what nobody will go on with."""
        before = time.time() - LEFT_AFTER_S
        for path in self.directory.glob(f"{STORE_NAME}.*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
        for file in files_in(self.directory):
            if file.kind is not Kind.PARTIAL:
                continue
            try:
                if file.owner == self._owner:
                    target = segment_path(self.directory, file.name)
                    settle(file.path, target, file.name, self._tensorflow)
                elif file.used_s < before and remove(file):
                    logger.info("removed %s: for a day nobody went on with it", file.path)
            except OSError as error:
                logger.warning("%s is left as it is: %s", file.path, error)


def _claim(path: Path) -> int | None:
    """As `leftover.claim`, in a directory that is made if it is not there."""
    for _ in range(_TRIALS):
        path.parent.mkdir(exist_ok=True)
        try:
            return claim(path)
        except FileNotFoundError:  # another worker has just removed the last file in it
            continue
    raise FileNotFoundError(errno.ENOENT, "its directory is removed again and again", str(path))


def _store_id(root: Path) -> str:
    """The id of a cache's directory, made by whoever comes first.

    Raises:
        OSError: it can be neither read nor made.
    """
    path = root / STORE_NAME
    if not path.exists():
        temporary = root / f"{STORE_NAME}.{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(f"{secrets.token_hex(16)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(root)
    with path.open("rb") as file:
        found = re.fullmatch(rb"([0-9a-f]{32})\n", file.read(64))
    if found is None:
        raise OSError(f"{path} is not the id of a cache; if nothing else needs it, remove it")
    return found[1].decode()
