"""The trainings of case `insitu`, in numpy and in Keras, and the process that is started anew.

`python -m penstock.bench.insitu_programs KIND CHECKPOINT` is the program as it restarts: it loads
what it needs, builds the model, restores the checkpoint, passes over the data that was trained on,
trains one step and says so. What a program does in place is the same step again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROWS, FEATURES, HIDDEN, CLASSES = 64, 784, 256, 10
#: Steps before the one that a restarted program trains.
STEPS = 100
READY = "step"


class Batches:
    """The same batches in each iteration: rows of one array, in place of a local file."""

    def __init__(self, steps: int = STEPS + 1) -> None:
        chance = np.random.default_rng(1)
        self._x = chance.normal(size=(ROWS * 8, FEATURES)).astype(np.float32)
        self._y = chance.integers(0, CLASSES, ROWS * 8)
        self._steps = steps

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for step in range(self._steps):
            at = step % 8 * ROWS
            yield self._x[at : at + ROWS], self._y[at : at + ROWS]


class NumpyTraining:
    """Two layers, by hand; 1.6 MB of weights and momentum."""

    def __init__(self) -> None:
        chance = np.random.default_rng(2)
        shapes = ((FEATURES, HIDDEN), (HIDDEN, CLASSES))
        self.weights = [0.05 * chance.normal(size=s).astype(np.float32) for s in shapes]
        self.momentum = [np.zeros(s, np.float32) for s in shapes]

    def step(self, batch: Any) -> None:
        """Trains on a batch."""
        x, y = batch
        first, second = self.weights
        hidden = np.maximum(x @ first, 0)
        chances = np.exp(hidden @ second)
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(ROWS), y] -= 1
        back = chances @ second.T * (hidden > 0)
        for weight, past, gradient in zip(
            self.weights, self.momentum, (x.T @ back, hidden.T @ chances), strict=True
        ):
            past *= 0.9
            past += gradient / ROWS
            weight -= 0.01 * past

    def snapshot(self) -> list[NDArray[Any]]:
        """A copy of all that a step changes."""
        return [array.copy() for array in (*self.weights, *self.momentum)]

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Sets it again."""
        for array, old in zip((*self.weights, *self.momentum), state, strict=True):
            np.copyto(array, old)

    def save(self, path: Path) -> None:
        """Writes a checkpoint."""
        np.savez(path, *self.weights, *self.momentum)

    def load(self, path: Path) -> None:
        """Restores a checkpoint."""
        with np.load(path) as stored:
            self.restore([stored[name] for name in stored.files])


def keras_model() -> Any:
    """The same network in Keras."""
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES, "softmax")]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def restart_numpy(path: Path) -> None:
    """The numpy program after a restart."""
    training = NumpyTraining()
    training.load(path)
    for number, batch in enumerate(Batches()):
        if number == STEPS:
            training.step(batch)


def restart_keras(path: Path) -> None:
    """The Keras program after a restart."""
    model = keras_model()
    model.load_weights(path)
    for number, (x, y) in enumerate(Batches()):
        if number == STEPS:
            model.fit(x, y, batch_size=ROWS, epochs=1, verbose=0)


RESTARTS = {"numpy": restart_numpy, "keras": restart_keras}
#: What Keras calls the file decides its format.
NAMES = {"numpy": "checkpoint.npz", "keras": "checkpoint.weights.h5"}


if __name__ == "__main__":
    RESTARTS[sys.argv[1]](Path(sys.argv[2]))
    print(READY, flush=True)
