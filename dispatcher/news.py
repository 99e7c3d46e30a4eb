"""Long polls: who is to be told something, and the calls that are held until there is something.

A peer (a worker's or a job's id) has a version that grows whenever its view changes. Its call is
held while the version is the one it has seen. At most one call of a peer is held: a newer one
releases the older, whose reply nobody waits for any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Shorter pauses are not worth a timer.
_GAP_S_MIN = 0.005


@dataclass(slots=True)
class _Peer:
    version: int = 1
    held: asyncio.Future[None] | None = None
    told_s: float = float("-inf")  # on the loop's clock

    def release(self) -> None:
        if self.held is not None and not self.held.done():
            self.held.set_result(None)
        self.held = None


class News:
    """The versions of all peers, and their held calls. Belongs to one event loop."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._closed = False

    def version(self, peer: str) -> int:
        """The version of a peer's view; 0 for one that never had any."""
        known = self._peers.get(peer)
        return known.version if known else 0

    def bump(self, peers: Iterable[str], *, quietly: bool = False) -> None:
        """The views of these peers have changed.

        Args:
            peers: who.
            quietly: what is held is not released for it; they learn of it with the next answer.
        """
        for name in sorted(peers):  # the same run in every process, whatever strings hash to
            peer = self._peers.get(name)
            if peer is None:
                self._peers[name] = _Peer()
            else:
                peer.version += 1
                if not quietly:
                    peer.release()

    def forget(self, peer: str) -> None:
        """The peer is gone; its held call is released."""
        known = self._peers.pop(peer, None)
        if known is not None:
            known.release()

    async def hold(self, peer: str, seen_version: int, hold_s: float) -> None:
        """Waits until the peer's version is not `seen_version`, for at most `hold_s` seconds.

        Returns early when a newer call of the peer comes, or everything is closed.
        """
        known = self._peers.setdefault(peer, _Peer())
        known.release()
        if known.version != seen_version or hold_s <= 0 or self._closed:
            return
        loop = asyncio.get_running_loop()
        held: asyncio.Future[None] = loop.create_future()
        known.held = held
        timer = loop.call_later(hold_s, known.release)
        try:
            await held
        finally:
            timer.cancel()
            if known.held is held:
                known.held = None

    async def pace(self, peer: str, gap_s: float) -> None:
        """Waits until the peer was not told anything for `gap_s` seconds; it will be told now."""
        known = self._peers.get(peer)
        if known is None:
            return
        loop = asyncio.get_running_loop()
        wait_s = known.told_s + gap_s - loop.time()
        if gap_s >= _GAP_S_MIN and wait_s > 0 and not self._closed:
            await asyncio.sleep(wait_s)
        known.told_s = loop.time()

    def close(self) -> None:
        """Releases every held call, and holds none any more."""
        self._closed = True
        for peer in self._peers.values():
            peer.release()
