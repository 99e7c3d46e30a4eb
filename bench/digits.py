"""What an order does to a training: scikit-learn's digits, sorted by class, read once.

A linear softmax is trained by plain SGD in the order in which samples came, in one pass, and
judged by a part that was held out. Nothing is random but the order: the weights begin at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

CLASSES = 10
PIXELS = 64
SMALL = 100
SEVERAL = 40
_HELD_OUT = 4
_BATCH = 16
_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Digits:
    """Samples are rows of 64 pixels, 0 to 16, and their class.

    Attributes:
        train: sorted by class.
        held_out: every fourth of each class.
    """

    train: Pixels
    held_out: Pixels

    @classmethod
    def load(cls) -> Digits:
        """Loads them from scikit-learn, which has them in its package.

        Raises:
            ImportError: scikit-learn is not installed.
        """
        from sklearn.datasets import load_digits

        pixels, classes = load_digits(return_X_y=True)
        rows = np.column_stack([pixels, classes]).astype(np.uint8)
        rows = rows[np.argsort(classes, kind="stable")]
        out = np.arange(len(rows)) % _HELD_OUT == 0
        return cls(rows[~out], rows[out])

    def write(self, directory: Path) -> dict[str, list[str]]:
        """Writes the training part twice: a file for each class, and several files of a size.

        Returns:
            The paths of each way's files, in the order of the classes.
        """
        directory.mkdir(parents=True)
        bounds = np.searchsorted(self.train[:, PIXELS], np.arange(1, CLASSES))
        ways = {
            "classes": np.split(self.train, bounds),
            "files": np.array_split(self.train, SEVERAL),
        }
        return {name: _write(directory / name, parts) for name, parts in ways.items()}


def pipelines(digits: Digits, paths: dict[str, list[str]]) -> dict[str, Callable[[int, int], Any]]:
    """Pipelines by name, each given the size of its shuffle buffer and a seed for a local run."""
    import tensorflow as tf

    def index(size: int, seed: int) -> Any:
        return tf.data.Dataset.from_tensor_slices(digits.train).shuffle(size, seed=seed)

    def read(names: list[str]) -> Callable[[int, int], Any]:
        return lambda size, seed: (
            tf.data.TFRecordDataset(names).map(_decode).shuffle(size, seed=seed)
        )

    return {"index": index} | {name: read(names) for name, names in paths.items()}


def accuracy(samples: Pixels, held_out: Pixels) -> float:
    """The part of `held_out` that is recognised after one pass over `samples`, in their order.

    Args:
        samples: `(n, 65)`: pixels and the class.
        held_out: the same.
    """
    weights = np.zeros((PIXELS + 1, CLASSES))
    for start in range(0, len(samples), _BATCH):
        rows = samples[start : start + _BATCH]
        inputs, classes = _inputs(rows), rows[:, PIXELS]
        scores = inputs @ weights
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(rows)), classes] -= 1.0
        weights -= _RATE * inputs.T @ chances / len(rows)
    guessed = (_inputs(held_out) @ weights).argmax(axis=1)
    return float((guessed == held_out[:, PIXELS]).mean())


def _inputs(rows: Pixels) -> NDArray[np.float64]:
    scaled = rows[:, :PIXELS].astype(np.float64) / 16.0
    return np.column_stack([scaled, np.ones(len(rows))])


def _write(directory: Path, parts: list[Pixels]) -> list[str]:
    import tensorflow as tf

    directory.mkdir()
    paths = [str(directory / f"part-{number:03d}.tfrecord") for number in range(len(parts))]
    for path, rows in zip(paths, parts, strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for row in rows:
                writer.write(row.tobytes())
    return paths


def _decode(record: Any) -> Any:
    import tensorflow as tf

    return tf.ensure_shape(tf.io.decode_raw(record, tf.uint8), [PIXELS + 1])
