"""Whether this process leaves the processors idle."""

from __future__ import annotations

import os
import time

#: A shorter time says nothing about how busy they are, and a longer one nothing about now.
_WINDOW_S = (0.1, 1.0)
#: Share of the processors' time below which they count as idle.
_IDLE_SHARE = 0.6


class Processors:
    """The processors that this process may use, and how much it uses them. One thread at a time."""

    def __init__(self) -> None:
        self._count = len(os.sched_getaffinity(0))
        self._since_s, self._used_s = time.monotonic(), time.process_time()

    def idle(self) -> bool:
        """Whether this process has used little of them since the last time that it was asked.

        False where that was just now, or long ago. Processors that others keep busy count as idle,
        too: there is nothing that this process could do about it.
        """
        now_s, used_s = time.monotonic(), time.process_time()
        past_s, spent_s = now_s - self._since_s, used_s - self._used_s
        shortest_s, longest_s = _WINDOW_S
        if past_s < shortest_s:
            return False
        self._since_s, self._used_s = now_s, used_s
        return past_s < longest_s and spent_s < _IDLE_SHARE * self._count * past_s
