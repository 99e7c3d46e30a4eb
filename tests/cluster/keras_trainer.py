"""A training that is killed and started again: the process of `test_keras`.

It says every step on its standard output, and a hash of all weights and the optimiser at the end.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

import penstock

BATCH, EXAMPLES, EPOCHS = 16, 320, 3
STEPS = EPOCHS * -(-EXAMPLES // BATCH)


def _example(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    x = tf.random.stateless_normal([8], [i, 7]) + 0.1 * tf.random.normal([8])
    return x, tf.reduce_sum(x[:4], keepdims=True)


class Say(keras.callbacks.Callback):
    """Says each step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        print("step", int(self.model.optimizer.iterations), flush=True)


def forget_torn(backup: Path) -> None:
    """Removes a first backup that a kill has cut: Keras keeps none before it."""
    weights = backup / "latest.weights.h5"
    if weights.exists() and not weights.with_name(weights.name + ".bkp").exists():
        try:
            h5py.File(weights).close()
        except OSError:
            weights.unlink()


def main() -> None:
    """The process: `service`, `directory`, steps between two backups."""
    service, directory, save_freq = sys.argv[1], sys.argv[2], int(sys.argv[3])
    forget_torn(Path(directory) / "backup")
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    local = tf.data.Dataset.range(EXAMPLES).shuffle(64).map(_example).batch(BATCH)
    served = local.apply(penstock.distribute(service, seed=3, lanes=4, resumable=True))
    layers = [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    saving = [
        keras.callbacks.BackupAndRestore(
            f"{directory}/backup", save_freq=save_freq, delete_checkpoint=False
        ),
        keras.callbacks.ModelCheckpoint(f"{directory}/best.weights.h5", save_weights_only=True),
        Say(),
    ]
    callbacks = penstock.keras_callbacks(served.penstock, f"{directory}/input", saving)
    model.fit(served, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    served.penstock.close()
    hasher = hashlib.sha256()
    for value in [*model.weights, *model.optimizer.variables]:
        hasher.update(np.asarray(value).tobytes())
    print("weights", int(model.optimizer.iterations), hasher.hexdigest(), flush=True)


if __name__ == "__main__":
    main()
