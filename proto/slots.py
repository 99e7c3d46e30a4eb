"""Slots: memory that a worker and a client on one machine share.

A worker puts a chunk's payload into a slot and sends only the header; the client's arrays are views
of the slot, and when the last of them has died it tells the worker, which fills the slot again. So
a payload is copied once, between two processes' memory, instead of into the kernel and out of it.

A slot is a memory file whose descriptor travels over the Unix socket. It is sealed: its size cannot
change any more, or whoever truncates it could kill everybody who reads it.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import socket
import weakref
from collections import deque
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from ..errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Smaller payloads are sent: the frame that tells of a slot costs as much as a short copy.
SLOT_BYTES_MIN = 64 << 10
#: Ids of slots in one frame, at most.
SLOTS_MAX = 64

AVAILABLE = hasattr(os, "memfd_create")

_DESCRIPTORS_MAX = 16
#: A program that the trainer starts meanwhile does not get the memory.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def is_unix(sock: object) -> TypeGuard[socket.socket]:
    """Whether descriptors can travel over a connection: a plain Unix socket."""
    return isinstance(sock, socket.socket) and sock.family == socket.AF_UNIX


def capacity_of(nbytes: int) -> int:
    """The size of the buffers that hold so many bytes, at most a quarter more.

    Chunks of similar sizes so share buffers.
    """
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


def make_slot(nbytes: int) -> tuple[int, NDArray[np.uint8]]:
    """A new slot of so many bytes.

    Returns:
        Its descriptor, which belongs to the caller, and its memory, which lives on without it.

    Raises:
        OSError: there is no memory, or no descriptor is free.
    """
    descriptor = os.memfd_create("penstock-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # Memory that is only promised may be missing when it is written: SIGBUS, not an error.
        os.posix_fallocate(descriptor, 0, nbytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _seals() | fcntl.F_SEAL_SEAL)
        return descriptor, _mapped(descriptor, nbytes)
    except OSError:
        os.close(descriptor)
        raise


def map_slot(descriptor: int, nbytes: int) -> NDArray[np.uint8]:
    """The memory of a slot that another process has made.

    Raises:
        ProtocolError: it has another size, or its size could change.
        OSError: it cannot be mapped.
    """
    size = os.fstat(descriptor).st_size
    if size != nbytes or nbytes <= 0:
        raise ProtocolError(f"a slot of {nbytes} bytes was announced, and has {size}")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ProtocolError(f"a slot is no memory file: {error}") from error
    if seals & _seals() != _seals():
        raise ProtocolError("a slot came whose size could change")
    return _mapped(descriptor, nbytes)


def send_with_descriptor(
    sock: socket.socket, parts: Sequence[bytes | memoryview], descriptor: int
) -> None:
    """Sends buffers over a Unix socket, and a descriptor with the first byte of them.

    Raises:
        OSError: from the socket.
    """
    data = b"".join(parts)
    rights = array.array("i", [descriptor])
    sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    sock.sendall(data[sent:])


class DescriptorReader:
    """Reads a Unix socket and keeps the descriptors that come with the bytes, in their order.

    Args:
        sock: blocking; all of it is to be read here.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._descriptors: deque[int] = deque()

    def recv_into(self, buffer: memoryview) -> int:
        """As that of a socket.

        Raises:
            ProtocolError: more descriptors came than anybody waits for.
            OSError: from the socket.
        """
        space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array.array("i").itemsize)
        got, ancillary, flags, _ = self._sock.recvmsg_into([buffer], space, _CLOSE_ON_EXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                came = array.array("i")
                came.frombytes(data[: len(data) - len(data) % came.itemsize])
                self._descriptors.extend(came)
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > _DESCRIPTORS_MAX:
            raise ProtocolError("more descriptors came than were announced")
        return got

    def take(self) -> int:
        """The next descriptor, which belongs to the caller then.

        Raises:
            ProtocolError: none has come.
        """
        if not self._descriptors:
            raise ProtocolError("a slot was announced without its descriptor")
        return self._descriptors.popleft()

    def close(self) -> None:
        """Closes what nobody has taken."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def _mapped(descriptor: int, nbytes: int) -> NDArray[np.uint8]:
    """Maps a slot, all of its pages at once, which costs less than a fault for each.

    Not by `mmap.mmap`: that keeps a descriptor of its own for each mapping, and there may be more
    slots than a process may have files.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_POPULATE
    address = libc.mmap(None, nbytes, protection, flags, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    memory = (ctypes.c_uint8 * nbytes).from_address(address)
    weakref.finalize(memory, libc.munmap, address, nbytes).atexit = False  # the kernel does it then
    return np.ctypeslib.as_array(memory)
