"""Sends buffers whole over a blocking socket: from their own memory, in as few calls as may be."""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Without vectored sends (TLS), buffers up to this size are joined to fill records.
_JOIN_BYTES_MAX = 1 << 16


class SendSocket(Protocol):
    """The part of a blocking socket that is needed."""

    def sendmsg(self, buffers: Iterable[bytes | memoryview], /) -> int: ...
    def sendall(self, data: bytes | memoryview, /) -> None: ...


def send_buffers(sock: SendSocket, parts: Sequence[bytes | memoryview]) -> int:
    """Sends buffers one after the other.

    Args:
        sock: a blocking socket, TLS or not.
        parts: of bytes; none is empty.

    Returns:
        The number of bytes sent.

    Raises:
        OSError: from the socket.
    """
    pending = deque(memoryview(part) for part in parts)
    try:
        while pending:
            # No more than the kernel takes in one call.
            sent = sock.sendmsg(list(itertools.islice(pending, _iov_max())))
            _drop(pending, sent)
    except NotImplementedError:  # what TLS connections raise: they seal one buffer a time
        for joined in _joined(parts):
            sock.sendall(joined)
    return sum(map(len, parts))


@functools.cache
def _iov_max() -> int:
    try:
        return max(16, os.sysconf("SC_IOV_MAX"))
    except (ValueError, OSError, AttributeError):
        return 16  # the least that POSIX allows


def _drop(pending: deque[memoryview], sent: int) -> None:
    while sent:
        first = pending[0]
        if sent < len(first):
            pending[0] = first[sent:]
            return
        sent -= len(first)
        pending.popleft()


def _joined(parts: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    small = bytearray()
    for part in parts:
        if small and len(small) + len(part) > _JOIN_BYTES_MAX:
            yield bytes(small)
            small.clear()
        if len(part) > _JOIN_BYTES_MAX:
            yield part
        else:
            small += part
    if small:
        yield bytes(small)
