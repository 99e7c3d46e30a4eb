"""What a timer sleeps on: until a moment, or until somebody has news for it."""

from __future__ import annotations

import asyncio
import time


class Alarm:
    """Wakes one sleeper. Belongs to one event loop."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._deadline_s = float("inf")

    def ring(self) -> None:
        """There is news for the sleeper."""
        self._news.set()

    def ring_if_before(self, at_s: float) -> None:
        """There is something to do at that moment, for which the sleeper may not be awake."""
        if at_s < self._deadline_s:
            self._news.set()

    async def sleep_until(self, deadline_s: float) -> None:
        """Sleeps until then, or until there is news.

        Not with `asyncio.wait_for`, which drops a cancellation that comes together with the news.
        """
        self._news.clear()
        self._deadline_s = deadline_s
        timer: asyncio.TimerHandle | None = None
        if deadline_s < float("inf"):
            delay_s = max(0.0, deadline_s - time.monotonic())
            timer = asyncio.get_running_loop().call_later(delay_s, self._news.set)
        try:
            await self._news.wait()
        finally:
            if timer is not None:
                timer.cancel()
