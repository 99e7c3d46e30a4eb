"""One run's checkpoints: where it begins, and when it takes one. Runs in the producing thread."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorflow as tf

from ..failpoints import failpoint
from .checkpoint_file import Checkpoint, Header, Layout
from .checkpointing import Schedule, may_take, usable
from .checkpoints import UNUSABLE
from .iterators import StateError, options_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proto.hashing import Hashes
    from .checkpointing import Cost
    from .iterators import Elements
    from .keeper import Keeper
    from .messages import Assignment

logger = logging.getLogger(__name__)


class Place(Protocol):
    """What a run can ask and tell of where it is."""

    def cursor(self, *, patient: bool) -> int | None:
        """Waits for the first element that a client wants, long or a moment, and for its turn."""

    def hold(self, iterator: object) -> None:
        """Frees the iterator, but not before the run's end was told."""

    def begin(self, hashes: Hashes) -> None:
        """The run begins after elements that have these hashes."""

    def save(self, elements: int, take: Callable[[int, Hashes], None]) -> None:
        """Calls `take` with what is acknowledged and the hashes so far, if the run goes on."""


class Recorder:
    """Begins a run from a checkpoint, if there is one that helps, and takes new ones.

    Args:
        keeper: writes them; None: there are none, neither to begin from nor to take.
        cost: of the run's dataset.
        place: of the run.
        assignment: of the run.
        prepare: makes durable what a checkpoint of this moment relies on; in another thread.

    Attributes:
        restored: the element at which the run began, if that was a checkpoint's.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        cost: Cost,
        place: Place,
        assignment: Assignment,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._keeper = keeper
        self._cost = cost
        self._place = place
        self._assignment = assignment
        self._prepare = prepare
        self.restored = 0
        self._schedule: Schedule | None = None

    def begin(
        self,
        fits: Callable[[Layout], bool],
        make: Callable[[Layout | None], Elements],
    ) -> tuple[Elements, Hashes]:
        """Makes the source of the run's elements, restored if that helps.

        Args:
            fits: whether the run can go on from a state of a source with that layout.
            make: makes one from the split's beginning; without a layout, with one of its choice.

        Returns:
            The source, and the hashes of the elements before its first.
        """
        found = None
        keeper = self._keeper
        restorable = keeper is not None and bool(keeper.store.elements(self._assignment.key))
        # Without a checkpoint, too: who has to make again what its client has waits for its turn.
        cursor = self._place.cursor(patient=restorable)
        if keeper is not None and restorable:
            found = self._restore(keeper, cursor, fits, make)
        source, hashes = found or (make(None), np.empty(0, np.uint64))
        self.restored = len(hashes)
        self._place.hold(source)
        self._place.begin(hashes)
        if self._keeper is not None and not self._cost.interval.off:
            self._schedule = Schedule(self._cost, time.monotonic())
        return source, hashes

    def pause(self) -> None:
        """What follows is not the pipeline's time."""
        if self._schedule is not None:
            self._schedule.pause(time.monotonic())

    def resume(self, elements: int, source: Elements) -> None:
        """The run goes on, after a checkpoint if one is due.

        Args:
            elements: made so far: exactly those that `source` has yielded.
            source: between two of its elements.
        """
        if self._schedule is None:
            return
        if self._schedule.due():
            self._take(elements, source, self._schedule)
        self._schedule.resume(time.monotonic())

    def _restore(
        self,
        keeper: Keeper,
        cursor: int | None,
        fits: Callable[[Layout], bool],
        make: Callable[[Layout | None], Elements],
    ) -> tuple[Elements, Hashes] | None:
        assignment, key = self._assignment, self._assignment.key
        if cursor is None:
            logger.info("%s: no client in time, started from its beginning", assignment)
            return None
        for elements in usable(keeper.store.elements(key), cursor):
            try:
                found = self._restored(keeper, elements, fits, make)
            except OSError as error:
                logger.warning("%s: not restored at element %d: %s", assignment, elements, error)
                continue
            if found is not None:
                logger.info(
                    "%s: restored at element %d, wanted from %d on", assignment, elements, cursor
                )
                # This run will make new ones there.
                keeper.forget(key, above=elements)
                return found
        keeper.forget(key)
        return None

    def _restored(
        self,
        keeper: Keeper,
        elements: int,
        fits: Callable[[Layout], bool],
        make: Callable[[Layout | None], Elements],
    ) -> tuple[Elements, Hashes] | None:
        key = self._assignment.key
        checkpoint = keeper.store.read(key, elements)
        if checkpoint is None or not fits(checkpoint.header.layout):
            return None
        header = checkpoint.header
        if header.options != options_name():
            why = f"made with {header.options}, not {options_name()}"
            keeper.store.set_aside(key, elements, UNUSABLE, why)
            return None
        try:
            source = make(header.layout)
            source.restore(checkpoint.state)
        except StateError as error:
            keeper.store.set_aside(key, elements, UNUSABLE, str(error))
            return None
        failpoint("worker.restore.after_restore")
        return source, checkpoint.hashes

    def _take(self, elements: int, source: Elements, schedule: Schedule) -> None:
        keeper, key = self._keeper, self._assignment.key
        assert keeper is not None
        room: list[bool] = []
        self._place.save(0, lambda base, _: room.append(may_take(keeper.store.elements(key), base)))
        if keeper.busy(key) or not any(room):
            return  # the disk is slow, or the client; the next piece asks again
        began = time.monotonic()
        try:
            state = source.capture()
        except StateError as error:
            if self._cost.refuse(str(error)):
                logger.warning(
                    "dataset %s cannot be checkpointed, its splits replay: %s", key.dataset, error
                )
            return
        schedule.taken()
        news = self._cost.learn(time.monotonic() - began, len(state) + 8 * elements)
        if news:
            logger.info("dataset %s: %s", key.dataset, news)
        if self._cost.period_s() < float("inf"):
            header = Header(key, elements, source.layout, tf.__version__, options_name())
            self._place.save(
                elements,
                lambda base, hashes: keeper.save(
                    Checkpoint(header, hashes, state), base, self._prepare
                ),
            )
