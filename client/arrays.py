"""An endless iterator of numpy arrays, ready for JAX, with a state: `ArrayIterator`.

Nothing here imports TensorFlow, if the reader reads by fingerprint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PositionError, UsageError
from .restoring import checked_consumed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..proto.position import Position
    from .reader import Reader

#: The one key of a state.
STATE_KEY = "penstock_position"


class ArrayIterator:
    """The elements of a reader, epoch after epoch, alone or stacked to batches.

    `state_dict()` says where the next element comes from, `load_state_dict()` goes on there. What
    a prefetch between this and the trainer has taken counts as taken.

    Args:
        reader: what to read.
        structure: how the components of one that is read by fingerprint are nested, with numbers
            for the components: `{"image": 0, "label": 1}`. By default as the reader has them.
        batch: stack so many elements, of equal shapes; None gives single ones.
        drop_remainder: leave out the batch at an epoch's end that is not full.
        epochs: end after the epoch of this number minus one, counted from the job's first; None
            goes on for ever.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        structure: Any = None,
        batch: int | None = None,
        drop_remainder: bool = False,
        epochs: int | None = None,
    ) -> None:
        self._reader = reader
        self._structure = structure
        self._batch = None if batch is None else checked_consumed("batch", batch, 1)
        self._drop = drop_remainder
        self._epochs = None if epochs is None else checked_consumed("epochs", epochs)
        self._elements: Iterator[Any] | None = None
        self._taken = 0

    def __iter__(self) -> ArrayIterator:
        return self

    def __next__(self) -> Any:
        while True:
            if self._elements is None:
                if self._epochs is not None and self.position().epoch >= self._epochs:
                    raise StopIteration
                self._elements = iter(self._reader)
            found = self._next_of(self._elements)
            if found is not None:
                return found[0]
            self._elements = None

    def position(self) -> Position:
        """Where the next element comes from."""
        return self._reader.position(self._taken)

    def commit(self) -> Position:
        """Has the position journaled; see `Reader.commit`."""
        return self._reader.commit(self._taken)

    def state_dict(self) -> dict[str, str]:
        """The position, in a form that any checkpoint can hold."""
        return {STATE_KEY: str(self.position())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called, in whatever process that was.

        Raises:
            PositionError: it is no such state, or one of something else.
        """
        if STATE_KEY not in state:
            raise PositionError(
                f"a state has the key {STATE_KEY!r}, this one {sorted(state)!r:.80}"
            )
        self._reader.restore(state[STATE_KEY])
        self._elements, self._taken = None, 0

    def _next_of(self, elements: Iterator[Any]) -> tuple[Any] | None:
        """The next element or batch of an epoch, or None at its end."""
        rows: list[Any] = []
        for element in elements:
            self._taken += 1
            rows.append(element)
            if len(rows) == (self._batch or 1):
                break
        if not rows or (self._drop and len(rows) < (self._batch or 1)):
            return None
        if self._batch is None:
            return (nested(self._structure, rows[0]),)
        return (nested(self._structure, stacked(rows)),)


def nested(structure: Any, element: Any) -> Any:
    """The components of an element as the structure has them.

    Raises:
        UsageError: the structure names a component that there is not.
    """
    if structure is None:
        return element
    if isinstance(structure, dict):
        return {key: nested(inner, element) for key, inner in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(nested(inner, element) for inner in structure)
    if not isinstance(structure, int) or not 0 <= structure < len(element):
        raise UsageError(
            f"structure must hold numbers from 0 to {len(element) - 1}, one for a component,"
            f" not {structure!r:.80}"
        )
    return element[structure]


def stacked(rows: list[Any]) -> Any:
    """Elements of equal structure and shapes as one, with a leading dimension."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple):
        columns = [stacked(list(column)) for column in zip(*rows, strict=True)]
        # A named tuple takes its fields one by one.
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return np.stack([np.asarray(row) for row in rows])
