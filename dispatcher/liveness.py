"""Who was heard of when, and what to make of it when this process itself was paused."""

from __future__ import annotations


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
