"""A dispatcher that waits for another one's journal.

It does not listen meanwhile: an address that accepts connections and answers nothing would hold
peers up, one that refuses them sends them on to the next address at once. But it keeps its port
from others by a socket that is bound and does not listen.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from ..errors import AddressInUseError, UsageError
from ..journal import Standby
from .announce import announce

if TYPE_CHECKING:
    from ..journal import Lease
    from .server import DispatcherOptions

logger = logging.getLogger(__name__)


async def stand_by(options: DispatcherOptions, stopping: asyncio.Event) -> Lease | None:
    """Waits until this dispatcher may have the journal.

    Args:
        options: of the dispatcher.
        stopping: ends the waiting.

    Returns:
        The lease of the journal; None if `stopping` was set first.

    Raises:
        UsageError: there is no journal to wait for, or no port that peers could know.
        AddressInUseError: the address is taken.
        JournalError: the journal's directory cannot be used.
    """
    if options.journal is None:
        raise UsageError("--standby needs --journal DIR, the directory of the other dispatcher")
    if options.port == 0:
        raise UsageError(
            "--standby needs a --port that is not 0: workers and clients are given its address "
            "before it serves"
        )
    address = f"{options.host}:{options.port}"

    def tell() -> None:
        if options.announce:
            announce(options.announce, address, standby=True)

    timing = options.timing
    standby = Standby(options.journal, timing.lease_s, timing.warn_after_s)
    with _reserved(options.host, options.port):
        waiting = asyncio.ensure_future(asyncio.to_thread(standby.wait, tell))
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        standby.stop()
        lease = await waiting
    if lease is None:
        logger.info("stopped")
    return lease


def _reserved(host: str, port: int) -> socket.socket:
    """A socket that keeps an address from others without listening; use it as a context."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind, protocol)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise AddressInUseError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another --host or --port"
        ) from error
    return reserved
