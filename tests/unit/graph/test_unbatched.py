"""Runs become elements again, also where TensorFlow's own unbatch would crash."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from penstock.graph import unbatched


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
