"""Who of this process writes which segment, and room for what they write.

What a segment will have when it is finished is counted while it is written, so that finishing one
never needs more room. The directory is listed only when an allowance is used up, and the allowance
is a 64th of the limit at most: by so much a worker can be mistaken about what the others that
share the directory have written meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from ..errors import PenstockError
from .cache_files import Kind, evictable, files_in, remove

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .cache_files import CacheFile
    from .segment_file import SegmentName

logger = logging.getLogger(__name__)

_ALLOWANCES = 64


class CapacityError(PenstockError):
    """The limit of the cache leaves no room for a segment, and nothing may be removed for it."""


class Room:
    """Claims of this process, and the limit. Thread-safe.

    Args:
        root: the cache's directory.
        owner: how this worker is called in names of files.
        limit: bytes that all files together may have.
        removed: told of each segment that was removed to make room, when no lock is held.
    """

    def __init__(
        self, root: Path, owner: str, limit: int, removed: Callable[[SegmentName], None]
    ) -> None:
        self._root = root
        self._owner = owner
        self._limit = limit
        self._removed = removed
        self._guard = threading.Lock()
        self._charged: dict[SegmentName, int] = {}
        self._allowance = 0

    def claim(self, name: SegmentName) -> bool:
        """Claims a segment for writing; False if somebody of this process has it."""
        with self._guard:
            if name in self._charged:
                return False
            self._charged[name] = 0
            return True

    def free(self, name: SegmentName) -> None:
        """Gives a claim up."""
        with self._guard:
            self._charged.pop(name, None)

    def charge(self, name: SegmentName, nbytes: int) -> None:
        """Makes room for a claimed segment, so that it may have so many bytes in all.

        Raises:
            CapacityError: there is none, and removing whatever may be removed would not do; so
                nothing was.
            OSError: the directory cannot be listed.
        """
        evicted: list[CacheFile] = []
        try:
            with self._guard:
                more = nbytes - self._charged[name]
                if more > self._allowance:
                    self._make_room(name, more, evicted)
                self._allowance -= more
                self._charged[name] = nbytes
        finally:
            self._tell(name, evicted)

    def _make_room(self, name: SegmentName, needed: int, evicted: list[CacheFile]) -> None:
        # What is being written here counts as what it is going to be, whichever name it has now.
        files = [file for file in files_in(self._root) if not self._is_ours(file)]
        taken = sum(file.nbytes for file in files) + sum(self._charged.values())
        free = self._limit - taken
        wanted = max(needed, self._limit // _ALLOWANCES)
        if free < needed:
            candidates = evictable(files, name, time.time())
            if free + sum(file.nbytes for file in candidates) < needed:
                raise CapacityError(
                    f"there is no room: {needed} bytes more are needed, {max(free, 0)} of"
                    f" {self._limit} are left, and what else there is may not be removed for it"
                )
            for file in candidates:
                if free >= wanted:
                    break
                if _removed(file):
                    free += file.nbytes
                    evicted.append(file)
            if free < needed:
                raise CapacityError("there is no room: files of the cache cannot be removed")
        self._allowance = min(free, wanted)

    def _is_ours(self, file: CacheFile) -> bool:
        if file.name not in self._charged or file.kind is Kind.ASIDE:
            return False
        return file.kind is Kind.SEGMENT or file.owner == self._owner

    def _tell(self, name: SegmentName, evicted: list[CacheFile]) -> None:
        if evicted:
            nbytes = sum(file.nbytes for file in evicted)
            logger.info("removed %d segments, %d bytes, to cache %s", len(evicted), nbytes, name)
        for file in evicted:
            if file.kind is Kind.SEGMENT:
                self._removed(file.name)


def _removed(file: CacheFile) -> bool:
    try:
        return remove(file)
    except OSError as error:
        logger.warning("%s cannot be removed to make room: %s", file.path, error)
        return False
