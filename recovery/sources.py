"""Where the batches of a session come from, and what of it can be opened again at a place.

Theory of operation. A session counts the batches that it has handed out in an epoch. A source opens
an iterator of what follows after so many. So a fault in an iterator's `__next__` costs nothing: the
next iterator begins at the very batch that was not delivered. What can only be iterated once cannot
be opened again; there the same iterator is asked again, and an end right after its fault is not
believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ..errors import InSituError, UsageError


class Source(Protocol):
    """What a session reads.

    Attributes:
        replays: it can be opened again at any place of this epoch, and gives the same again.
    """

    replays: bool

    def open(self, epoch: int, taken: int) -> Iterator[Any]:
        """An iterator of an epoch's batches after the first `taken`.

        Args:
            epoch: number of the epoch within the session.
            taken: batches of it that are done with.
        """

    def end(self) -> None:
        """The open epoch is over, or what is left of it is not wanted."""

    def position(self, epoch: int, taken: int) -> str:
        """Where that is, for people and reports."""

    def commit(self, epoch: int, taken: int) -> None:
        """The trainer's checkpoint holds everything before this place."""

    def skipped(self, epoch: int, taken: int, why: str) -> None:
        """The batch at this place was left out, and why."""


class LocalSource:
    """Batches of this process: a sequence, or an iterable that can be iterated again.

    Args:
        batches: a sequence is opened at a place by its indices; any other iterable by passing over
            what was taken.
    """

    replays = True

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def open(self, epoch: int, taken: int) -> Iterator[Any]:
        """See `Source`.

        Raises:
            InSituError: there are fewer batches now than were taken.
        """
        if isinstance(self._batches, Sequence):
            return _indexed(self._batches, taken)
        iterator = iter(self._batches)
        for number in range(taken):
            if next(iterator, _END) is _END:
                raise InSituError(
                    f"the data had at least {taken} batches in epoch {epoch}, and opened again it"
                    f" has {number}: it cannot be replayed"
                )
        return iterator

    def end(self) -> None:
        """See `Source`."""

    def position(self, epoch: int, taken: int) -> str:
        """See `Source`."""
        return f"epoch {epoch}, batch {taken}"

    def commit(self, epoch: int, taken: int) -> None:
        """See `Source`; there is nobody to tell."""

    def skipped(self, epoch: int, taken: int, why: str) -> None:
        """See `Source`; there is nobody to tell."""


class OnceSource(LocalSource):
    """Batches that can be iterated once: a generator, or another iterator."""

    replays = False

    def __init__(self, batches: Iterator[Any]) -> None:
        super().__init__(batches)
        self._iterator = batches

    def open(self, epoch: int, taken: int) -> Iterator[Any]:
        """The one iterator; where it is, is not known."""
        return self._iterator


class StatefulSource(LocalSource):
    """Batches of an object that says by `state_dict()` where it is and goes on there.

    Its state is asked for before each batch. Iterating over it again goes on where it is.

    Args:
        batches: with `state_dict`, `load_state_dict` and `__iter__`.
    """

    def __init__(self, batches: Any) -> None:
        super().__init__(batches)
        self._object = batches
        self._states: dict[tuple[int, int], Any] = {}
        self._committed: tuple[tuple[int, int], Any] | None = None
        self._opened = self._ended = False

    def open(self, epoch: int, taken: int) -> Iterator[Any]:
        """See `Source`.

        Raises:
            InSituError: no state of that place is known.
        """
        if self._opened and not (self._ended and taken == 0):
            place = (epoch, taken)
            states = dict([self._committed]) if self._committed is not None else {}
            if place not in (states := states | self._states):
                raise InSituError(
                    f"the state at epoch {epoch}, batch {taken} is not known any more"
                )
            self._object.load_state_dict(states[place])
        self._opened, self._ended = True, False
        return self._iterate(epoch, taken)

    def end(self) -> None:
        """See `Source`."""
        self._ended = True

    def commit(self, epoch: int, taken: int) -> None:
        """See `Source`; there is nobody to tell."""
        place = epoch, taken
        # While the batch that comes next is in hand, the object is behind it.
        known = place in self._states
        self._committed = place, self._states[place] if known else self._object.state_dict()

    def _iterate(self, epoch: int, taken: int) -> Iterator[Any]:
        iterator = iter(self._object)
        while True:
            # Of two places: that of the batch in hand, and that of the next one.
            last = self._states.get((epoch, taken - 1))
            self._states = {(epoch, taken): self._object.state_dict()}
            if last is not None:
                self._states[epoch, taken - 1] = last
            batch = next(iterator, _END)
            if batch is _END:
                return
            taken += 1
            yield batch


def source_of(batches: object) -> Source:
    """A source of batches.

    Raises:
        UsageError: it is nothing that could be iterated.
    """
    methods = ("open", "end", "position", "commit", "skipped")
    if all(callable(getattr(batches, name, None)) for name in methods):
        return batches  # type: ignore[return-value]
    if callable(getattr(batches, "load_state_dict", None)) and isinstance(batches, Iterable):
        return StatefulSource(batches)
    if isinstance(batches, Iterator):
        return OnceSource(batches)
    if isinstance(batches, Iterable):
        return LocalSource(batches)
    raise UsageError(f"batches must be a sequence, an iterable, or a Source, not {batches!r:.80}")


def _indexed(batches: Sequence[Any], taken: int) -> Iterator[Any]:
    index = taken
    while index < len(batches):
        yield batches[index]
        index += 1


_END = object()
