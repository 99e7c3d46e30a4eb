"""Loads TensorFlow into a worker, which is most of the time that one takes to start."""

from __future__ import annotations

import os
import sys
from typing import Any


def load_tensorflow() -> Any:
    """TensorFlow, without what a worker has no use for.

    Importing it loads Keras too, and what Keras finds installed (scikit-learn, for one): a third of
    the time or more. It gets along without, and `tf.keras` still loads it when it is asked for.
    The accelerators belong to the trainer.

    Returns:
        The module.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    hidden = "keras" not in sys.modules
    if hidden:
        sys.modules["keras"] = None  # type: ignore[assignment]  # how Python says: not importable
    try:
        import tensorflow as tf
    finally:
        if hidden:
            del sys.modules["keras"]
    return tf
