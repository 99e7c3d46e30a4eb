"""Runs become elements again, also where TensorFlow's own unbatch would crash."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import singles, unbatched


@pytest.mark.parametrize("shape", [(None, None), (None, 0)])
def test_elements_without_any_bytes_come_through(shape: tuple[int | None, ...]) -> None:
    runs = tf.data.Dataset.from_generator(
        lambda: iter([(np.zeros((2, 0), np.int32),), (np.zeros((0, 0), np.int32),)]),
        output_signature=(tf.TensorSpec(shape, tf.int32),),
    )
    assert [element.shape for (element,) in unbatched(runs)] == [(0,), (0,)]


def test_elements_of_a_fixed_shape_are_unbatched_as_ever() -> None:
    runs = tf.data.Dataset.from_tensors((tf.constant([[1, 2], [3, 4]]),))
    assert [element.numpy().tolist() for (element,) in unbatched(runs)] == [[1, 2], [3, 4]]


def test_lone_elements_lose_their_leading_dimension_and_keep_their_memory() -> None:
    rows = np.arange(64, dtype=np.float32).reshape(2, 32)
    buffer = np.zeros(64 + 16, np.float32)
    begin = -buffer.ctypes.data % 64 // 4
    aligned = buffer[begin : begin + 64].reshape(2, 32)
    aligned[:] = rows
    nothing = np.zeros((0, 32), np.float32), np.zeros(0, np.int64)
    runs = tf.data.Dataset.from_generator(
        lambda: iter([nothing, (aligned[:1], np.array([7])), (aligned[1:], np.array([8]))]),
        output_signature=(tf.TensorSpec((None, 32)), tf.TensorSpec((None,), tf.int64)),
    )
    made = list(singles(runs))
    assert singles(runs).element_spec == (tf.TensorSpec((32,)), tf.TensorSpec((), tf.int64))
    assert [(x.numpy().tolist(), int(n)) for x, n in made] == [
        (rows[0].tolist(), 7),
        (rows[1].tolist(), 8),
    ]
    assert [np.asarray(x).ctypes.data for x, _ in made] == [row.ctypes.data for row in aligned]
