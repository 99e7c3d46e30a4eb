"""For TensorFlow trainers: a position that a `tf.train.Checkpoint` saves and restores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import UsageError
from .restoring import checked_consumed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..proto.position import Position
    from .reader import Reader


class InputState(tf.train.experimental.PythonState):  # type: ignore[misc]
    """Where a reader is, as a part of a checkpoint: saved with the model, restored with it.

        state = penstock.InputState(served.penstock)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, input=state)
        for batch in state.counted(served):
            step(batch)
            checkpoint.save(...)

    Restoring the checkpoint restores the reader, which has to be `resumable`, or have given no
    dataset yet; the next iteration of the dataset is the rest of the epoch.

    Args:
        reader: what is read; `dataset.penstock` for a distributed dataset.
        batch: elements of a batch that is made after the service.
        commit: also have each position that is saved journaled; see `Reader.commit`.

    Attributes:
        consumed: batches that were taken since the reader was made or restored.
    """

    def __init__(self, reader: Reader, *, batch: int = 1, commit: bool = False) -> None:
        super().__init__()
        self._reader = reader
        self._batch = checked_consumed("batch", batch, 1)
        self._commit = commit
        self.consumed = 0

    def advance(self, steps: int = 1) -> None:
        """The trainer has taken so many batches (or elements) more."""
        self.consumed += checked_consumed("steps", steps)

    def counted(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """The elements of a dataset, each counted when the trainer gets it."""
        for element in dataset:
            self.advance()
            yield element

    def position(self) -> Position:
        """Where the trainer is."""
        return self._reader.position(self.consumed, batch=self._batch)

    def serialize(self) -> str:
        """What a checkpoint holds; called by TensorFlow."""
        position = self.position()
        if self._commit:
            self._reader.commit(position)
        return json.dumps({"position": str(position)})

    def deserialize(self, string_value: Any) -> None:
        """Goes on where the checkpoint was saved; called by TensorFlow.

        Raises:
            PositionError: the checkpoint is one of something else.
            UsageError: the reader's dataset cannot be restored.
        """
        try:
            text = json.loads(string_value)["position"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"the checkpoint holds no position: {error!r}") from None
        self._reader.restore(text)
        self.consumed = 0
