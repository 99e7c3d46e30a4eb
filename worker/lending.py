"""Slots that a worker lends to one client: which are free, which are out, how much there may be.

Nothing ever waits for a slot. If none is free and there may be no more, because the trainer keeps
what it was given or because other clients have them, a payload is sent over the socket.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..proto.slots import (
    SLOT_BYTES_MIN,
    SLOTS_MAX,
    capacity_of,
    make_slot,
    send_with_descriptor,
)
from ..proto.wire import FrameType, encode_frame, send_frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..proto.budget import Budget
    from .messages import Piece

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        id: by which both sides call it; never used again.
        memory: bytes.
        descriptor: to be sent to the client, which then knows the slot; None once it was.
        dropped: ids of slots that the client is to forget when it gets to know this one.
    """

    id: int
    memory: NDArray[np.uint8]
    descriptor: int | None
    dropped: tuple[int, ...] = ()

    def close_descriptor(self) -> None:
        """The client has it, or never will."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Lender:
    """The slots of one connection. Two threads: one lends, another one hears what is free again.

    Args:
        sock: of the connection, a Unix socket.
        budget: of all connections.
    """

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget
        self._lock = threading.Lock()
        self._free: list[Slot] = []
        self._out: dict[int, Slot] = {}
        self._dropped: list[int] = []
        self._next = 1
        self._closed = False

    def send(self, piece: Piece) -> bool:
        """Sends a CHUNK frame whose payload is in a slot; False if there is no slot for it.

        Raises:
            OSError: from the socket, or from the file that the payload lies in.
        """
        slot = self.lend(piece.nbytes) if piece.nbytes >= SLOT_BYTES_MIN else None
        if slot is None:
            return False
        try:
            fill(slot.memory, piece)
            self._introduce(slot)
        finally:
            slot.close_descriptor()
        where = {"slot": slot.id, "nbytes": piece.nbytes}
        send_frame(self._sock, FrameType.CHUNK, {**piece.header, **where})
        return True

    def _introduce(self, slot: Slot) -> None:
        if slot.descriptor is not None:
            about = {"slot": slot.id, "nbytes": len(slot.memory), "dropped": list(slot.dropped)}
            send_with_descriptor(self._sock, encode_frame(FrameType.SLOT, about), slot.descriptor)

    def lend(self, nbytes: int) -> Slot | None:
        """A slot that holds so many bytes, until its id is returned; None if there is none."""
        capacity = capacity_of(nbytes)
        with self._lock:
            if self._closed:
                return None
            slot = self._fitting(nbytes) or self._new(capacity)
            if slot is not None:
                self._out[slot.id] = slot
            return slot

    def returned(self, ids: Iterable[int]) -> bool:
        """The client needs these no more; False if one of them was not lent."""
        with self._lock:
            for number in ids:
                slot = self._out.pop(number, None)
                if slot is None:
                    return False
                self._free.append(slot)
        return True

    def close(self) -> None:
        """The client is gone, or keeps for itself what it still looks at; the sender has ended."""
        with self._lock:
            self._closed = True
            slots = [*self._free, *self._out.values()]
            self._free, self._out = [], {}
        for slot in slots:
            self._budget.give_back(len(slot.memory))

    def _fitting(self, nbytes: int) -> Slot | None:
        fitting = (slot for slot in self._free if len(slot.memory) >= nbytes)
        smallest = min(fitting, key=lambda slot: len(slot.memory), default=None)
        if smallest is not None:
            self._free.remove(smallest)
        return smallest

    def _new(self, capacity: int) -> Slot | None:
        while not self._budget.take(capacity):
            # Those that are free are too small, or one of them would have been taken; they go only
            # if that makes room.
            free = sum(len(slot.memory) for slot in self._free)
            if not free or free + self._budget.left < capacity:
                return None
            slot = self._free.pop()
            self._budget.give_back(len(slot.memory))
            self._dropped.append(slot.id)
        try:
            descriptor, memory = make_slot(capacity)
        except OSError as error:
            logger.warning("no slot of %d bytes: %s; payloads are sent instead", capacity, error)
            self._budget.give_back(capacity)
            return None
        number, self._next = self._next, self._next + 1
        dropped = tuple(self._dropped[:SLOTS_MAX])
        del self._dropped[:SLOTS_MAX]
        return Slot(number, memory, descriptor, dropped)


def fill(memory: NDArray[np.uint8], piece: Piece) -> None:
    """Puts a piece's payload at the beginning of a slot.

    Raises:
        OSError: from the file that it lies in; also if that has become shorter.
    """
    at, stored = 0, piece.stored
    if stored is None:
        for buffer in piece.buffers:
            part = np.frombuffer(buffer, np.uint8)
            memory[at : at + len(part)] = part  # numpy lets other threads run meanwhile
            at += len(part)
        return
    while at < stored.nbytes:
        view = memory[at : stored.nbytes].data
        got = os.preadv(stored.descriptor, [view], stored.offset + at)
        if not got:
            raise OSError(errno.EIO, "a segment became shorter while it was read")
        at += got
