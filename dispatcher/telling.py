"""Who is told of an event, and whether at once.

A held call that is answered costs its peer another call, and with many workers these calls are most
of what a dispatcher does. So an attempt that is far ahead of need, on a worker that has enough to
do, is told with that worker's next answer: at its next heartbeat, when half of its work is done
(`worker/tidings.py`), or as soon as the attempt is not far ahead any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import AttemptAssigned, SplitDelivered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .events import Event
    from .news import News
    from .state import State

#: An attempt with so many splits of its lane before it is not needed soon.
FAR = 8


class Telling:
    """Tells peers of events.

    Args:
        state: read only.
        news: of all peers.
        produced: by worker, those of its attempts that are known to be produced whole.
    """

    def __init__(self, state: State, news: News, produced: Mapping[str, set[int]]) -> None:
        self._state = state
        self._news = news
        self._produced = produced
        self._untold: dict[str, set[int]] = {}  # by worker

    def tell(self, event: Event, touched: set[str]) -> None:
        """The event was applied, and has changed the views of these peers."""
        if isinstance(event, AttemptAssigned):
            self._news.bump(touched, quietly=self._is_far(event))
        elif isinstance(event, SplitDelivered):
            # Who said so is being answered, and its worker has nothing to do for it any more.
            self._news.bump(touched, quietly=True)
            self._news.bump(self._coming_near(event))
        else:
            self._news.bump(touched)

    def told(self, worker: str) -> None:
        """A worker is being answered: with all that it should hold."""
        self._untold.pop(worker, None)

    def _is_far(self, attempt: AttemptAssigned) -> bool:
        """Whether the attempt is not needed soon, and its worker has enough to do meanwhile."""
        state, name = self._state, attempt.worker
        epoch = state.epoch(attempt.epoch_key)
        assert epoch is not None, "it was assigned just now"
        if state.book(state.jobs[attempt.job], epoch).ahead(attempt.split) < FAR:
            return False
        worker = state.workers[name]
        untold = self._untold.get(name, set()).intersection(worker.attempts)
        known = len(worker.attempts) - len(untold) - 1
        if 2 * (known - len(self._produced.get(name, ()))) < worker.slots:
            return False
        self._untold[name] = {*untold, attempt.attempt}
        return True

    def _coming_near(self, delivered: SplitDelivered) -> list[str]:
        """The worker of the attempt that is not far ahead any more, if it does not know of it."""
        state = self._state
        epoch = state.epoch((delivered.job, delivered.stream, delivered.epoch))
        if not self._untold or epoch is None or epoch.book is None:
            return []
        near = epoch.book.running_at(epoch.book.lane_of(delivered.split), FAR - 1)
        split = epoch.splits.get(near) if near is not None else None
        attempt = state.attempts.get(split.attempt) if split is not None else None
        if attempt is None or attempt.attempt not in self._untold.get(attempt.worker, ()):
            return []
        return [attempt.worker]
