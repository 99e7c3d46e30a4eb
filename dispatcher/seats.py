"""Who has room for an attempt: all workers that may get work, the least loaded first.

To look at a thousand workers for every decision costs more than the decisions. So whoever decides
again and again keeps the seats, and says which workers' loads may have changed; only when workers
come, go or change what they hold on their disks are new ones made.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .failover import takes_work

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .facts import Facts
    from .offers import Offer
    from .records import Worker
    from .state import State


#: The heap is made anew when it holds so many times as many seats as there are workers.
_STALE = 8


@dataclass(slots=True, order=True)
class Seat:
    """A worker in the heap: the least loaded first, then the one that registered first."""

    fill: float
    order: int
    load: int = field(compare=False)
    worker: Worker = field(compare=False)

    @property
    def free(self) -> bool:
        return self.load < self.worker.slots

    @property
    def room(self) -> int:
        return max(0, self.worker.slots - self.load)

    def taken(self) -> Seat:
        load = self.load + 1
        return Seat(load / self.worker.slots, self.order, load, self.worker)


class Seats:
    """All workers that may get work, the least loaded first.

    A seat that was taken out of its turn stays in the heap until it comes up; what counts is
    `_now`.

    Args:
        state: the state.
        facts: of the moment.

    Attributes:
        free: how many attempts there is room for.
    """

    def __init__(self, state: State, facts: Facts) -> None:
        self._now: dict[str, Seat] = {}
        for order, worker in enumerate(state.workers.values()):
            if takes_work(state, worker):
                self._now[worker.worker] = _seat(worker, order, facts)
        self._heap = list(self._now.values())
        heapq.heapify(self._heap)
        self._offering: dict[Offer, list[str]] = {}
        for name, offers in facts.offers.items():
            if name in self._now:
                for offer in offers:
                    self._offering.setdefault(offer, []).append(name)
        self._stored: dict[str, list[str]] = {}
        for name, seat in self._now.items():
            self._stored.setdefault(seat.worker.store, []).append(name)
        self.free = sum(seat.room for seat in self._heap)

    def update(self, facts: Facts, workers: Iterable[str]) -> None:
        """Looks again at workers whose attempts may have changed; others' names are passed over."""
        for name in workers:
            old = self._now.get(name)
            if old is None:
                continue
            new = _seat(old.worker, old.order, facts)
            if new.load != old.load:
                self.free += new.room - old.room
                self._now[name] = new
                heapq.heappush(self._heap, new)
        if len(self._heap) > _STALE * len(self._now) + _STALE:
            self._heap = list(self._now.values())
            heapq.heapify(self._heap)

    def loads(self) -> dict[str, int]:
        """What each worker has to do; for checks."""
        return {name: seat.load for name, seat in self._now.items()}

    def __bool__(self) -> bool:
        return bool(self._now)

    def offering(self, offer: Offer, shunned: Collection[str], *, ahead: bool) -> Seat | None:
        """The least loaded worker that can continue the split; a free one for a split ahead."""
        return self._best(self._offering.get(offer, ()), shunned, ahead=ahead)

    def caching(
        self, stores: Iterable[str], shunned: Collection[str], *, ahead: bool
    ) -> Seat | None:
        """The least loaded worker that has one of these stores; a free one for a split ahead."""
        names = [name for store in stores for name in self._stored.get(store, ())]
        return self._best(names, shunned, ahead=ahead)

    def _best(self, names: Iterable[str], shunned: Collection[str], *, ahead: bool) -> Seat | None:
        seats = [self._now[name] for name in names if name not in shunned]
        return min((seat for seat in seats if seat.free or not ahead), default=None)

    def least(self, failed_on: Collection[str], avoided: Collection[str]) -> Seat:
        """The least loaded worker, of those that are least objectionable; `take` or `leave` it."""
        passed: list[Seat] = []
        best: Seat | None = None
        best_rank = 4
        while self._heap and best_rank > 0:
            seat = heapq.heappop(self._heap)
            name = seat.worker.worker
            if self._now[name] is not seat:
                continue
            passed.append(seat)
            rank = 2 * (name in avoided) + (name in failed_on)
            if rank < best_rank:
                best, best_rank = seat, rank
        assert best is not None, "there is at least one worker"
        for seat in passed:
            if seat is not best:
                heapq.heappush(self._heap, seat)
        return best

    def leave(self, seat: Seat) -> None:
        """The worker that `least` found gets nothing."""
        heapq.heappush(self._heap, seat)

    def take(self, seat: Seat) -> None:
        """The worker gets one more attempt."""
        self.free -= seat.free
        taken = self._now[seat.worker.worker] = seat.taken()
        heapq.heappush(self._heap, taken)


def _seat(worker: Worker, order: int, facts: Facts) -> Seat:
    load = len(worker.attempts) - len(facts.produced.get(worker.worker, ()))
    return Seat(load / worker.slots, order, load, worker)
