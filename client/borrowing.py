"""Slots that a worker on this machine lends: mapped here, and returned when nobody looks at them.

As for the buffers of `BufferPool`, all views of a slot refer to the array of its memory, so nobody
looks at it any more when nothing but this does. Except for a process that was forked meanwhile,
which does not have a copy of this memory but the memory: what was lent then is never returned.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError
from ..proto.slots import SLOTS_MAX, DescriptorReader, map_slot

if TYPE_CHECKING:
    import socket

    import numpy as np
    from numpy.typing import NDArray

#: What `sys.getrefcount` says of an array that only a dict and the question refer to.
_FREE = 2
#: One slot in so many.
_MANY = 4
#: Of the whole process, as are the calls that Python makes at a fork.
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(before=_count_fork, after_in_parent=_count_fork)


class Borrower:
    """The slots of one connection, for the one thread that reads it.

    Args:
        sock: a Unix socket; all of it is to be read by `recv_into`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._reader = DescriptorReader(sock)
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._lent: set[int] = set()
        self._forks = _forks
        self.recv_into = self._reader.recv_into

    def learn(self, header: dict[str, Any]) -> None:
        """Gets to know the slot of a SLOT frame, and forgets those that it replaces.

        Raises:
            ProtocolError: it is not one, or has come already.
            OSError: it cannot be mapped.
        """
        number, nbytes, dropped = (header.get(key) for key in ("slot", "nbytes", "dropped"))
        if type(number) is not int or type(nbytes) is not int or not isinstance(dropped, list):
            raise ProtocolError("a SLOT frame does not say which slot it is of")
        descriptor = self._reader.take()
        try:
            if number in self._memory:
                raise ProtocolError(f"slot {number} has come already")
            for old in dropped:
                if old in self._lent or self._memory.pop(old, None) is None:
                    raise ProtocolError(f"slot {old!r:.40} was dropped, and is not free")
            self._memory[number] = map_slot(descriptor, nbytes)
        finally:
            os.close(descriptor)

    def payload(self, header: dict[str, Any]) -> memoryview:
        """The payload of a CHUNK frame that says in which slot it is; lent from now on.

        Raises:
            ProtocolError: there is no such slot, or it is lent already.
        """
        number, nbytes = header.get("slot"), header.get("nbytes")
        memory = self._memory.get(number) if isinstance(number, int) else None
        if number is None or memory is None or number in self._lent:
            raise ProtocolError(f"a chunk is said to be in slot {number!r:.40}, which is not free")
        if type(nbytes) is not int or not 0 <= nbytes <= len(memory):
            raise ProtocolError(f"a chunk of {nbytes!r:.40} bytes is said to be in slot {number}")
        self._lent.add(number)
        return memory[:nbytes].data

    def returnable(self, *, wanted: bool) -> list[int]:
        """Slots that nobody looks at any more; they count as returned.

        Args:
            wanted: the worker has none left; otherwise there are some only when they are many,
                since each time that they are returned wakes it.
        """
        memory = self._memory
        if self._forks != _forks:
            self._forks = _forks
            for number in self._lent:
                del memory[number]
            self._lent.clear()
        free = [number for number in self._lent if sys.getrefcount(memory[number]) == _FREE]
        if not wanted and len(free) * _MANY < len(memory):
            return []
        del free[SLOTS_MAX:]
        self._lent.difference_update(free)
        return free

    def close(self) -> None:
        """The connection is over. What is looked at lives on."""
        self._reader.close()
        self._memory.clear()
