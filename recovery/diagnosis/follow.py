"""Follows files that are still being written, and tells of failures as they come (see `watch`).

A file may be renamed and made anew, cut to nothing, or not be there yet. Where nothing is new, the
next look is a bounded interval later: a file cannot be waited for without asking each system in
its own way. Standard input can, and is.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from typing import TYPE_CHECKING

from ...errors import UsageError
from .scanner import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .watch import Told, Watch

_READ_BYTES = 1 << 20


class Tail:
    """What is new in one file; or in an open pipe, which ends.

    Args:
        path: the file, which may come later.
        descriptor: the pipe; then the path is only its name.

    Raises:
        UsageError: it is there, and cannot be read.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self._path = path
        self.pipe = descriptor
        self._file = -1
        self._position = 0
        self.ended = False
        self._leaving = False
        self._lines = Lines()
        if descriptor is None:
            try:
                self._open()
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error.strerror}") from error

    def _open(self) -> bool:
        try:
            opened = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        if os.path.isdir(self._path):
            os.close(opened)
            raise IsADirectoryError(21, "it is a directory")
        self.close()
        self._file, self._position = opened, 0
        return True

    def read(self) -> tuple[list[bytes], bool]:
        """New lines, and whether the file was replaced or cut after them."""
        if self.pipe is not None:
            return self._from_pipe(), False
        if block := self._block():
            return self._lines.feed(block), False
        return (self._lines.end(), True) if self._begins_anew() else ([], False)

    def _from_pipe(self) -> list[bytes]:
        assert self.pipe is not None
        if self.ended or not select.select([self.pipe], [], [], 0)[0]:
            return []
        block = os.read(self.pipe, _READ_BYTES)
        self.ended = not block
        return self._lines.feed(block) if block else self._lines.end()

    def _block(self) -> bytes:
        if self._file < 0:
            return b""
        try:
            block = os.read(self._file, _READ_BYTES)
        except BlockingIOError:  # a pipe with a name, into which nobody writes now
            return b""
        except OSError:  # of a file system that has lost it: it is opened again
            self.close()
            return b""
        self._position += len(block)
        return block

    def _begins_anew(self) -> bool:
        """At the end of the file: whether it was cut, or another one has taken its place."""
        try:
            if self._file < 0:
                self._open()
                return False
            mine = os.fstat(self._file)
            if stat.S_ISREG(mine.st_mode) and mine.st_size < self._position:
                self._position = os.lseek(self._file, 0, os.SEEK_SET)
                return True
            replaced = not os.path.samestat(os.stat(self._path), mine)
            if not replaced or not self._leaving:
                # Who writes may not know yet: the old one is read once more.
                self._leaving = replaced
                return False
            self._leaving = False
            return self._open()
        except OSError:  # it is gone, or not to be read: it may come back
            return False

    def close(self) -> None:
        """Gives the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def follow(
    tails: Sequence[Tail],
    watch: Watch,
    *,
    interval_s: float,
    stop: threading.Event | None = None,
) -> Iterator[Told]:
    """Failures, as they are told; ends when all pipes have, and at once when it is stopped.

    Args:
        tails: what is followed, in the order of the watch's logs.
        watch: decides what is told.
        interval_s: how often is looked at what does not end.
        stop: set by another thread.

    Raises:
        KeyboardInterrupt: the user has had enough; `watch.finish` knows what was not told yet.
    """
    stop = stop or threading.Event()
    while not stop.is_set():
        busy = False
        for log, tail in enumerate(tails):
            lines, anew = tail.read()
            if lines:
                busy = True
                watch.feed(log, lines, time.monotonic())
            if anew:
                busy = True
                watch.begins_anew(log)
        if told := watch.due(time.monotonic()):
            yield told
        if all(tail.ended for tail in tails):
            break
        if not busy:
            open_pipes = [one.pipe for one in tails if one.pipe is not None and not one.ended]
            _wait(open_pipes, interval_s, stop)
    if told := watch.finish():
        yield told


def _wait(pipes: Sequence[int], interval_s: float, stop: threading.Event) -> None:
    if pipes:
        select.select(pipes, [], [], interval_s)
    else:
        stop.wait(interval_s)
