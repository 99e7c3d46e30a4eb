"""For Keras: callbacks around those that save a model, so that its input goes on with it.

Keras' `BackupAndRestore` and `ModelCheckpoint` save weights, optimiser included, which count the
steps (`optimizer.iterations`). A file here says the position after each step, written *before* the
weights of that step can be; after weights were loaded, whichever, it is looked up by their step. So
the two belong together whatever the moment at which the process dies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from ..errors import PositionError, UsageError
from ..proto.position import Position
from .restoring import checked_consumed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .reader import Reader

_NAME = "positions"
#: The file is written anew when it has so many lines; as many are kept as are asked for.
_LINES_MAX = 4096


class _Positions:
    """The file: a line `step epoch position` for each step, the newest last."""

    def __init__(self, directory: Path, kept: int) -> None:
        self._path = directory / _NAME
        self._kept = kept
        self._lines: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            text = self._path.read_text()
            # What a kill has cut is of a step of which no weights were saved.
            self._lines = text.splitlines()[-kept:] if text.endswith("\n") else []
            self._lines = self._lines or text.splitlines()[:-1][-kept:]
            self._rewrite()

    def append(self, step: int, epoch: int, position: Position) -> None:
        """Says a position, durably."""
        self._lines.append(f"{step} {epoch} {position}")
        if len(self._lines) > self._kept + _LINES_MAX:
            self._lines = self._lines[-self._kept :]
            self._rewrite()
            return
        with self._path.open("a") as file:
            file.write(self._lines[-1] + "\n")
            file.flush()
            os.fsync(file.fileno())

    def find(self, step: int) -> tuple[int, Position] | None:
        """The epoch and the position after a step; the last word about it counts."""
        for line in reversed(self._lines):
            number, epoch, text = line.split(" ")
            if int(number) == step:
                return int(epoch), Position.parse(text)
        return None

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            file.writelines(line + "\n" for line in self._lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


class _Save(keras.callbacks.Callback):  # type: ignore[misc]
    """Comes before whatever saves weights."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._shared.save(self.model, self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._shared.go_on(self.model)
        self._shared.save(self.model, epoch)


class _Restore(keras.callbacks.Callback):  # type: ignore[misc]
    """Comes after whatever loads weights."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared

    def on_train_begin(self, logs: Any = None) -> None:
        self._shared.restore(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._shared.end_short_epoch(self.model)


class _Shared:
    """What both know."""

    def __init__(self, reader: Reader, positions: _Positions, batch: int) -> None:
        self._reader, self._positions, self._batch = reader, positions, batch
        self._first: int | None = None
        self._begun_at = 0  # the data's epoch, less Keras'
        self._short: int | None = None  # the data's epoch that is resumed in its middle
        self._reached = 0  # the data's epoch after the last step
        self._stopped = False

    def save(self, model: Any, epoch: int) -> None:
        step = int(model.optimizer.iterations)
        assert self._first is not None, "training has begun"
        position = self._reader.position(step - self._first, batch=self._batch)
        # After the last batch of an epoch, its end is all that is left of it.
        over = position.epoch - self._begun_at > epoch
        self._positions.append(step, epoch + over, position)
        self._reached = position.epoch

    def end_short_epoch(self, model: Any) -> None:
        """Ends Keras' epoch with the last batch of a resumed one.

        Keras would ask for as many batches as a whole epoch has, and a step that gets none may
        count in `optimizer.iterations` all the same: that op does not wait for the batch.
        """
        if self._short is not None and self._reached > self._short and not model.stop_training:
            self._short, self._stopped, model.stop_training = None, True, True

    def go_on(self, model: Any) -> None:
        """That was the end of an epoch, not of the training."""
        if self._stopped:
            self._stopped, model.stop_training = False, False

    def restore(self, model: Any) -> None:
        optimizer = model.optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        step = self._first = int(optimizer.iterations)
        found = self._positions.find(step)
        if found is None and step:
            raise PositionError(
                f"the weights are those of step {step}, and no position of it was kept: they were"
                " saved by another training, or by one without these callbacks"
            )
        if found is not None:
            epoch, position = found
            self._reader.restore(position)
            self._begun_at = position.epoch - epoch
            self._short = position.epoch if position.consumed else None
            self._reached = position.epoch
            # Keras' own metadata is wrong after a second failure in the same epoch.
            model._initial_epoch = epoch


def keras_callbacks(
    reader: Reader,
    directory: str | os.PathLike[str],
    callbacks: Sequence[Any] = (),
    *,
    batch: int = 1,
    kept: int = 1024,
) -> list[Any]:
    """Callbacks for `model.fit` that make its input go on where loaded weights were saved.

        save = keras.callbacks.BackupAndRestore("backup", save_freq=10)
        around = penstock.keras_callbacks(served.penstock, "backup-input", [save])
        model.fit(served, epochs=3, callbacks=around)

    The model is to be built before, and the dataset `resumable`, with a number of batches that is
    known. Weights may also be loaded by hand (of `ModelCheckpoint`) before `fit`.

    Args:
        reader: of the dataset: `served.penstock`.
        directory: where to keep the positions; not the directory of `BackupAndRestore`, which
            removes its own at the end.
        callbacks: those that save or load weights, and any others.
        batch: elements of a batch, if batches are made after the service.
        kept: so many steps back weights may be loaded.

    Returns:
        All of `callbacks` between two others.

    Raises:
        UsageError: an argument is not accepted.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise UsageError(f"directory must be a path, not {directory!r:.80}")
    positions = _Positions(Path(os.fsdecode(directory)), checked_consumed("kept", kept, 1))
    shared = _Shared(reader, positions, checked_consumed("batch", batch, 1))
    return [_Save(shared), *callbacks, _Restore(shared)]
