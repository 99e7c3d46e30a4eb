"""Which splits a worker can continue from a checkpoint on its own disk.

Offers are the word of live workers, of the moment and never journaled: a worker makes them when it
registers, and they go with it. A checkpoint is named by content (dataset, seed, epoch, split),
because a split's elements are a function of these four, whatever job or attempt they are made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Epoch
    from .state import State

#: (dataset, seed, epoch, split)
Offer = tuple[str, int, int, int]


def wanted_places(state: State, offers: Iterable[Offer]) -> list[int]:
    """The places of the offers whose split may still be asked for, in ascending order.

    That is one that an open epoch has not delivered yet.
    """
    open_epochs: dict[tuple[str, int, int], list[tuple[Epoch, int]]] = {}
    for job, epoch in state.open_epochs():
        dataset = state.dataset_of(job, epoch.stream)
        key = (dataset.fingerprint, job.seed, epoch.epoch)
        open_epochs.setdefault(key, []).append((epoch, dataset.num_splits))
    return [
        place
        for place, (dataset, seed, number, split) in enumerate(offers)
        if any(
            split < num_splits and split not in epoch.delivered
            for epoch, num_splits in open_epochs.get((dataset, seed, number), ())
        )
    ]


class Offers:
    """What the live workers offer.

    Attributes:
        by_worker: the offers of each worker that has any; only wanted ones are kept.
    """

    def __init__(self) -> None:
        self.by_worker: dict[str, set[Offer]] = {}

    def set(self, state: State, worker: str, offers: list[Offer]) -> list[int]:
        """These are the offers of a worker, and no others.

        Returns:
            The places of the wanted ones.
        """
        places = wanted_places(state, offers)
        self.by_worker.pop(worker, None)
        if places:
            self.by_worker[worker] = {offers[place] for place in places}
        return places

    def forget(self, worker: str) -> None:
        """The worker is gone, and its disk with it as far as we know."""
        self.by_worker.pop(worker, None)

    def prune(self, state: State) -> None:
        """Drops what is not wanted any more."""
        for worker, offers in list(self.by_worker.items()):
            self.set(state, worker, list(offers))
