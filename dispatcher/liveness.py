"""Who was heard of when, and what to make of it when this process itself was paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..timing import Timing

#: A held call is answered after this part of its peer's timeout at the latest.
HOLD = 0.5
#: In so many parts of its timeout a worker is heard of once at least.
_HEARTBEATS = 4
#: All workers together are to take this time for a heartbeat each at least: a heartbeat costs
#: about a third of it.
_WORKER_S = 0.001


def heartbeat_s(timing: Timing) -> float:
    """How long a worker may leave the dispatcher without a call, seconds."""
    return min(timing.heartbeat_s, timing.worker_timeout_s / _HEARTBEATS)


def worker_hold_s(timing: Timing, hold_ms: int, workers: int) -> float:
    """How long a worker's call is held, seconds.

    Args:
        timing: intervals and deadlines.
        hold_ms: what the worker asks for; 0: it is answered at once.
        workers: how many there are. With many their calls are held longer than they ask for.
    """
    share_s = min(_WORKER_S * workers, timing.worker_timeout_s / _HEARTBEATS) if hold_ms else 0.0
    return min(max(hold_ms / 1000, share_s), HOLD * timing.worker_timeout_s)


class Liveness:
    """When each worker and each job's client was heard of last.

    Attributes:
        heard_s: monotonic time by id.
        mistakes: by worker, how often it counted as dead lately and was alive.
    """

    def __init__(self) -> None:
        self.heard_s: dict[str, float] = {}
        self.mistakes: dict[str, int] = {}
        self._mistaken_s: dict[str, float] = {}

    def hear(self, peer: str, now_s: float) -> None:
        """The peer is alive at this moment."""
        self.heard_s[peer] = now_s

    def forget(self, peer: str) -> None:
        """The peer is none of our business any more."""
        self.heard_s.pop(peer, None)

    def mistaken(self, worker: str, now_s: float) -> None:
        """A worker that counted as dead is back: it was only slow."""
        self.mistakes[worker] = self.mistakes.get(worker, 0) + 1
        self._mistaken_s[worker] = now_s

    def forget_mistakes(self, before_s: float) -> None:
        """Forgets the mistakes about workers of whom the last one was made before then."""
        for worker in [name for name, at_s in self._mistaken_s.items() if at_s < before_s]:
            del self.mistakes[worker], self._mistaken_s[worker]

    def forgive(self, now_s: float, left_s: float) -> None:
        """Treats everybody as heard of at most `left_s` ago.

        For after this process was paused: its peers went on calling, and their calls have not
        been looked at yet, so their silence is ours.
        """
        earliest = now_s - left_s
        for peer, heard_s in self.heard_s.items():
            self.heard_s[peer] = max(heard_s, earliest)
