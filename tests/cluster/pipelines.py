"""Pipelines that the cluster tests run, and what a plain local run of each gives."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


def numbers(count: int, work: int = 0) -> tf.data.Dataset:
    """`count` pairs (i, i²) by a map, which multiplies small matrices `work` times first."""

    def square(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        matrix = tf.eye(64) * tf.cast(i % 7, tf.float32)
        for _ in range(work):
            matrix = matrix @ tf.eye(64)
        zero = tf.cast(tf.reduce_sum(matrix) * 0.0, tf.int64)
        return i, i * i + zero

    return tf.data.Dataset.range(count).map(square, num_parallel_calls=2)


def shuffled_numbers(count: int, work: int = 0) -> tf.data.Dataset:
    """`numbers`, shuffled."""
    return numbers(count, work).shuffle(64)


def write_lines(directory: Path, files: int, lines: int) -> list[str]:
    """Text files of distinct lines of varying length."""
    paths = []
    for number in range(files):
        path = directory / f"lines-{number}.txt"
        path.write_text("".join(f"{number}:{i}:{'x' * (i % 50)}\n" for i in range(lines)))
        paths.append(str(path))
    return paths


def fingerprint_of(element: Any) -> str:
    """A hash of an element (tensors in any nesting), made without penstock."""
    hasher = hashlib.sha256()
    for component in tf.nest.flatten(element, expand_composites=True):
        array = np.asarray(component)
        content = repr(array.tolist()) if array.dtype == object else array.tobytes()
        hasher.update(repr((array.dtype.str, array.shape, content)).encode())
    return hasher.hexdigest()


def sequence_of(dataset: tf.data.Dataset) -> list[str]:
    """The elements of one iteration, in order, as fingerprints."""
    return [fingerprint_of(element) for element in dataset]


def multiset_of(dataset: tf.data.Dataset) -> Counter[str]:
    """The elements of one iteration, without their order."""
    return Counter(sequence_of(dataset))
