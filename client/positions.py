"""From a number of elements that a trainer took to a `Position`, and back.

A trainer counts elements of the distributed dataset, the end of its pipeline included, since its
reader was made or restored, over as many epochs as it likes. Here that becomes a number of elements
of one epoch of each stream, which `history` turns into cursors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..proto.position import Position
from .history import differences, place_of, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.position import StreamPosition
    from .epoch import StreamInfo
    from .history import History, Visit
    from .opened import OpenedJob


@dataclass(frozen=True, slots=True)
class Counting:
    """How elements of a pipeline are counted.

    Attributes:
        dataset: fingerprint of the pipeline.
        rates: `graph.resumption.Rate` of each stream; None if epochs are read from their beginning.
        reason: why.
        random: the client's part draws anew in every epoch.
        repeats: an iteration is many epochs.
        cardinality: elements of an iteration; negative if that is not known, or no number.
    """

    dataset: str
    rates: tuple[Any, ...] | None = None
    reason: str = ""
    random: bool = False
    repeats: bool = False
    cardinality: int = -2

    def least(self, stream: int) -> int:
        """Elements of a stream without which the rest of an epoch would give nothing."""
        if self.rates is None or len(self.rates) > 1:
            return 0  # several streams have to stay in step
        rate = self.rates[stream]
        return next(n for n in range(1, rate.per + 1) if rate.results(n))


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate of a stream that is read as it is; see `graph.resumption.Rate` for others."""

    per: int = 1

    def results(self, elements: int) -> int:
        return elements


def counting_of(plan: Any, fingerprint: str) -> Counting:
    """How the elements of a reader are counted; `plan` is None when read by fingerprint."""
    if plan is None:
        return Counting(fingerprint, (Rate(),))
    from ..graph.resumption import resumption

    found = resumption(plan)
    return Counting(
        plan.fingerprint,
        found.rates,
        found.reason,
        found.random,
        found.repeats,
        plan.cardinality,
    )


class Positions:
    """Makes the positions of one life of a reader.

    Args:
        history: what was opened and delivered.
        counting: how the pipeline's elements are counted.
        start: where this life began, if it was restored.
        rebuilt: the client's part is made anew for each epoch, so that what it draws is known.
    """

    def __init__(
        self, history: History, counting: Counting, start: Position | None, *, rebuilt: bool
    ) -> None:
        self._history = history
        self._counting = counting
        self._start = start
        self._rebuilt = rebuilt

    def at(self, consumed: int, epoch: int | None, batch: int) -> Position:
        """The position after `consumed` batches of `batch` elements each.

        Args:
            consumed: counted from the beginning of `epoch`, or of this life if that is None.
            epoch: the epoch.
            batch: elements of each; 1 counts elements.

        Raises:
            UsageError: there is no telling; the message says what can be told.
        """
        if self._counting.rates is None:
            return self._replayed(consumed * batch, epoch)
        visits = self._visits()
        if epoch is not None:
            at = [number for number, found in enumerate(visits) if found[0].epoch == epoch]
            return self._within(consumed * batch, epoch, visits[at[0]] if at else None)
        left = consumed
        for number, visit in enumerate(visits):
            base = self._base(visit)
            if not self._is_over(visit) and number + 1 < len(visits):
                raise UsageError(
                    f"epoch {visit[0].epoch} was not read to its end, so consumed={consumed} does"
                    " not say where the trainer is: pass epoch= and count from its beginning"
                )
            results = self._results(visit)
            if results is not None:
                steps = -(-(results - base) // batch)
                if left >= steps:
                    left -= steps
                    continue
                return self._within(base + left * batch, visit[0].epoch, visit)
            return self._within(base + left * batch, visit[0].epoch, visit)
        if left:
            raise UsageError(f"consumed={consumed} is {left} more than was delivered so far")
        epoch = visits[-1][0].epoch + 1 if visits else self._history.first_epoch(0)
        return self._within(0, epoch, None) if visits or self._start is None else self._start

    def _visits(self) -> list[list[Visit]]:
        """The epochs that were opened, each with its visit by every stream."""
        streams = range(len(self._history.job.streams))
        rows = [self._history.visits(stream) for stream in streams]
        return [self._counted(list(row)) for row in zip(*rows, strict=False)]

    def _counted(self, visit: list[Visit]) -> list[Visit]:
        """The same, in elements that the trainer counts: see `_skew`."""
        out = []
        for stream, seen in enumerate(visit):
            skew = self._skew(visit, stream)
            total = None if seen.total is None else seen.total - skew
            out.append(replace(seen, delivered=seen.delivered - skew, total=total))
        return out

    def _skew(self, visit: list[Visit], stream: int) -> int:
        """Elements that a stream's epoch began after, and that are nobody's count.

        Those of other consumers, whose lanes this one was given in the middle of splits.
        """
        assert self._counting.rates is not None
        per: int = self._counting.rates[stream].per
        return visit[stream].base - self._base(visit) * per

    def _base(self, visit: list[Visit]) -> int:
        """Elements of the epoch that were consumed in other lives."""
        start = self._start
        same = start is not None and not start.replayed and start.epoch == visit[0].epoch
        return start.consumed if start is not None and same else 0

    def _is_over(self, visit: list[Visit]) -> bool:
        """Whether all of an epoch was delivered; Keras does not always ask for the end itself."""
        assert self._counting.rates is not None
        if any(seen.total is not None for seen in visit):
            return True
        results = self._results(visit)
        return results is not None and all(
            rate.results(seen.delivered) >= results
            for rate, seen in zip(self._counting.rates, visit, strict=True)
        )

    def _results(self, visit: list[Visit]) -> int | None:
        """Elements of the result in an epoch, if that is known."""
        assert self._counting.rates is not None
        known = [
            rate.results(seen.total)
            for rate, seen in zip(self._counting.rates, visit, strict=True)
            if seen.total is not None
        ]
        if not self._counting.repeats and self._counting.cardinality >= 0:
            known.append(self._counting.cardinality)
        return min(known, default=None)

    def _within(self, consumed: int, epoch: int, visit: list[Visit] | None) -> Position:
        """`consumed` elements of an epoch; the end of one is the beginning of the next."""
        assert self._counting.rates is not None
        results = self._results(visit) if visit is not None else None
        if results is not None and consumed >= results:
            consumed, epoch, visit = 0, epoch + 1, None
        places = []
        for stream, rate in enumerate(self._counting.rates):
            number = visit[stream].epoch if visit is not None else epoch
            total = visit[stream].total if visit is not None else None
            wanted = consumed * rate.per
            wanted = wanted if total is None else min(wanted, total)
            wanted += self._skew(visit, stream) if visit is not None else 0
            places.append(self._history.place(stream, number, wanted))
        return position_in(self._history.job, self._counting.dataset, epoch, consumed, places)

    def _replayed(self, consumed: int, epoch: int | None) -> Position:
        """A position in an epoch that has to be read from its beginning."""
        counting, start = self._counting, self._start
        first = start.epoch if start is not None else self._history.first_epoch(0)
        if epoch is None:
            consumed += start.consumed if start is not None else 0
            epoch = first
            if counting.cardinality > 0:
                iterations, consumed = divmod(consumed, counting.cardinality)
                epoch += iterations
            elif counting.cardinality == -2 and len(self._history.visits(0)) > 1:
                raise UsageError(
                    f"this pipeline has to be read from an epoch's beginning ({counting.reason}),"
                    " and it is not known how many elements that has: pass epoch="
                )
        if counting.repeats and epoch > first:
            raise UsageError(
                f"a position after the first iteration of a dataset that repeats inside cannot be"
                f" kept ({counting.reason}): put the repeat after distribute(...)"
            )
        if counting.random and not self._rebuilt and epoch > 0:
            raise UsageError(
                f"the client's part of the pipeline draws at random ({counting.reason}), so a"
                f" position in epoch {epoch} cannot be kept: shuffle before what makes it the"
                " client's, or iterate over the Reader itself"
            )
        places = [place_of(info, epoch) for info in self._history.job.streams]
        return position_in(
            self._history.job, counting.dataset, epoch, consumed, places, replayed=consumed > 0
        )


def position_in(
    job: OpenedJob,
    dataset: str,
    epoch: int,
    consumed: int,
    places: Sequence[StreamPosition],
    *,
    replayed: bool = False,
) -> Position:
    """A position in a job's epoch; see `Position` for the arguments."""
    return Position(
        dataset=dataset[:32],
        seed=job.seed,
        lanes=job.lanes,
        block=job.block,
        ordered=job.ordered,
        deterministic=job.deterministic,
        epoch=epoch,
        consumed=consumed,
        replayed=replayed,
        streams=tuple(places),
        consumer=job.consumer,
    )


def check_options(position: Position, counting: Counting, options: Any) -> None:
    """Refuses a position that is not one of this pipeline, read in this way.

    Raises:
        PositionError: every difference is spelled out.
    """
    found = []
    if position.dataset != counting.dataset[:32]:
        found.append(
            f"the pipeline is {counting.dataset[:12]}, the position is of {position.dataset[:12]}"
        )
    for name in ("seed", "lanes", "block"):
        have, want = getattr(options, name), getattr(position, name)
        if have is not None and have != want:
            found.append(f"{name} is {have}, it was {want}")
    for name in ("ordered", "deterministic"):
        have, want = getattr(options, name), getattr(position, name)
        if have != want:
            found.append(f"{name} is {have}, it was {want}")
    if position.consumer is None or options.consumer is None:
        if (position.consumer, options.consumer) != (None, None):
            found.append(
                f"this is {options.consumer or 'the only consumer'}, it was"
                f" {position.consumer or 'the only one'}"
            )
    elif position.consumer.row()[:2] != options.consumer.row()[:2]:
        found.append(
            f"this is {options.consumer}, it was {position.consumer}: pass"
            ' restore="committed" to go on after a resize'
        )
    if counting.rates is not None and position.replayed:
        found.append("the end of the pipeline could not begin in the middle, and now it can")
    refuse(found)


def check_streams(position: Position, streams: Sequence[StreamInfo]) -> None:
    """Refuses a position of other streams than those of a job.

    Raises:
        PositionError: every difference is spelled out.
    """
    found: list[str] = []
    if len(position.streams) != len(streams):
        found.append(f"there are {len(streams)} streams, there were {len(position.streams)}")
    else:
        for number, (info, at) in enumerate(zip(streams, position.streams, strict=True)):
            found += differences(info, at, number)
    refuse(found)
