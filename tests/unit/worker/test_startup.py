"""A worker's TensorFlow comes without Keras, and is TensorFlow all the same."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from penstock.worker.startup import load_tensorflow
tf = load_tensorflow()
assert tf is sys.modules["tensorflow"] is load_tensorflow()
assert "keras" not in sys.modules
assert [int(number) for number in tf.data.Dataset.range(3)] == [0, 1, 2]
assert tf.keras.layers.Dense(1)(tf.ones((2, 3))).shape == (2, 1)
assert "keras" in sys.modules
"""


def test_tensorflow_is_loaded_without_keras_which_can_still_be_had() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
