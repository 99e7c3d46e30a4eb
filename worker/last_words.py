"""Last words: what a worker is doing, in a file that its successor reads.

Theory of operation. A process that the kernel kills for its memory can say nothing, so it says
beforehand what it runs: the file is written whenever an attempt begins or ends, and, where
elements are made one by one, for each of them. A clean stop says so. The successor, started with
the same file, knows what was running, and its supervisor may tell it how the process ended
(`--last-exit`). If that was memory, it runs with half the slots and half the buffers, and half
again the next time; the dispatcher is told what was running, so that an element that kills one
worker after the other is found.

The file is written for a process that dies, not for a machine that does: without fsync.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from .messages import Assignment

logger = logging.getLogger(__name__)

#: How a process ends that the kernel kills: as shells, containers and Python say it.
KILLED = (137, 9, -9)
MEMORY_LIMIT_MIN = 1 << 20
_FILE_BYTES_MAX = 1 << 20
_DEATHS_MAX = 32
_MEMORY_ERRORS = ("MemoryError", "_ArrayMemoryError", "ResourceExhaustedError")


@dataclass(frozen=True, slots=True)
class Doing:
    """An attempt that was running.

    Attributes:
        job, stream, epoch, split: which one.
        elements: how many it had made, if that is known exactly.
        exact: whether it is: elements were made one by one.
    """

    job: str
    stream: int
    epoch: int
    split: int
    elements: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Former:
    """What the process before this one left behind.

    Attributes:
        deaths: how many before it, one after the other, had died of memory.
        doing: what it was running.
        memory: that it had run out of memory, in words; "" if it said nothing of that.
    """

    deaths: int = 0
    doing: tuple[Doing, ...] = ()
    memory: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a worker takes on.

    Attributes:
        slots: attempts at once ahead of need.
        memory_limit: bytes of all buffers together.
        deaths: deaths of memory in a row that it follows.
        reason: why it is less than was asked for, in words; "" if it is not.
    """

    slots: int
    memory_limit: int
    deaths: int = 0
    reason: str = ""


def limits_after(former: Former, last_exit: int, slots: int, memory_limit: int) -> Limits:
    """What a worker takes on after the process before it.

    Args:
        former: what that process left behind.
        last_exit: its exit code, as far as a supervisor has told; 0 if not.
        slots, memory_limit: what was asked for.
    """
    cause = former.memory or (f"exit code {last_exit}" if last_exit in KILLED else "")
    deaths = min(_DEATHS_MAX, former.deaths + bool(cause))
    if not deaths:
        return Limits(slots, memory_limit)
    fewer = max(1, slots >> deaths)
    smaller = max(min(memory_limit, MEMORY_LIMIT_MIN), memory_limit >> deaths)
    reason = (
        f"{deaths} deaths of memory{f' (the last one: {cause})' if cause else ''}: {fewer} slots"
        f" instead of {slots}, {smaller >> 20} MiB of buffers instead of {memory_limit >> 20}"
    )
    return Limits(fewer, smaller, deaths, reason)


def read_former(path: Path) -> Former:
    """What is in the file; nothing if there is none, or it is not one of ours."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return Former()
    except OSError as error:
        logger.warning("last words cannot be read: %s", error)
        return Former()
    try:
        return _parsed(content)
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("last words in %s are not understood: %s", path, error)
        return Former()


def _parsed(content: bytes) -> Former:
    if len(content) > _FILE_BYTES_MAX:
        raise ValueError(f"more than {_FILE_BYTES_MAX} bytes")
    said = json.loads(content)
    deaths, memory = said["deaths"], said["memory"]
    if type(deaths) is not int or not 0 <= deaths <= _DEATHS_MAX or type(memory) is not str:
        raise ValueError("deaths or memory are not what they should be")
    return Former(deaths, tuple(_doing(item) for item in said["doing"]), memory)


def _doing(item: dict[str, Any]) -> Doing:
    doing = Doing(**item)
    numbers = (doing.stream, doing.epoch, doing.split, doing.elements)
    fits = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    if not fits or type(doing.job) is not str or type(doing.exact) is not bool:
        raise ValueError("an attempt is not what it should be")
    return doing


def is_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is of missing memory."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in _MEMORY_ERRORS:
            return True
        seen = seen.__cause__
    return False


class LastWords:
    """Writes what this worker is doing. Thread-safe; a disk that refuses is said once.

    Args:
        path: of the file.
        deaths: deaths of memory in a row that this process follows.
    """

    def __init__(self, path: Path, deaths: int) -> None:
        self._path = path
        self._deaths = deaths
        self._lock = threading.Lock()
        self._doing: dict[int, Doing] = {}
        self._memory = ""
        self._refused = False
        self._file: io.FileIO | None = None
        self._length = 0
        self._closed = False
        self._write()

    def began(self, assignment: Assignment) -> None:
        """An attempt is run."""
        one_by_one = assignment.trial > 1 or bool(assignment.bad)
        self.made(assignment, 0, making=one_by_one)

    def made(self, assignment: Assignment, elements: int, *, making: bool) -> None:
        """An attempt has made so many elements.

        Args:
            assignment: of the attempt.
            elements: how many.
            making: it makes the next one now, and no other beside it.
        """
        at = assignment
        with self._lock:
            self._doing[at.attempt] = Doing(at.job, at.stream, at.epoch, at.split, elements, making)
            self._write()

    def ended(self, assignment: Assignment, error: BaseException | None) -> None:
        """An attempt is over."""
        with self._lock:
            self._doing.pop(assignment.attempt, None)
            if error is not None and is_memory(error):
                self._memory = f"{type(error.__cause__ or error).__name__} in {assignment}"
            self._write()

    def close(self) -> None:
        """This process stops cleanly: its successor has nothing to fear."""
        with self._lock:
            self._doing.clear()
            self._deaths, self._memory = 0, ""
            self._write()
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _write(self) -> None:
        if self._closed:
            return  # of a run that was left behind
        said = {
            "deaths": self._deaths,
            "memory": self._memory,
            "doing": [asdict(doing) for doing in self._doing.values()],
        }
        content = json.dumps(said).encode()
        # One write of one page or so: a kill leaves the words before it or these. What is left of
        # longer ones is overwritten with blanks.
        self._length = max(self._length, len(content))
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            self._file.seek(0)
            self._file.write(content.ljust(self._length))
        except OSError as error:
            if not self._refused:
                self._refused = True
                logger.warning("last words cannot be written: %s", error)
