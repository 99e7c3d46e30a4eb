"""Keras' preprocessing layers, whose seeds are variables, draw the same again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import analyse

from .draws import drawn, reproducible, said

Dataset = tf.data.Dataset
layers = tf.keras.layers
N = 640
LAYERS: dict[str, Any] = {
    "flip": lambda: layers.RandomFlip(),
    "crop": lambda: layers.RandomCrop(5, 5),
    "rotation": lambda: layers.RandomRotation(0.2),
    "zoom": lambda: layers.RandomZoom(0.3),
    "translation": lambda: layers.RandomTranslation(0.3, 0.3),
    "contrast": lambda: layers.RandomContrast(0.5),
    "brightness": lambda: layers.RandomBrightness(0.2, value_range=(0, 1)),
    "hue": lambda: layers.RandomHue(0.3, value_range=(0, 1)),
    "noise": lambda: layers.GaussianNoise(0.1),
    "dropout": lambda: layers.Dropout(0.5),
    "several": lambda: tf.keras.Sequential([layers.RandomFlip(), layers.RandomCrop(5, 5)]),
    "many": lambda: layers.RandAugment(value_range=(0, 1)),
}


def image(x: Any) -> Any:
    return tf.reshape(tf.cast(tf.range(192) + tf.cast(x, tf.int32), tf.float32) / 999, [8, 8, 3])


def augmented(layer: Any, **options: Any) -> Any:
    return Dataset.range(N).map(lambda x: layer(image(x), training=True), **options)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_reproducible(name: str) -> None:
    layer = LAYERS[name]()
    stream = reproducible(augmented(layer))
    once = drawn(stream, 1)
    assert once == drawn(stream, 1)
    assert once == drawn(reproducible(augmented(layer, num_parallel_calls=4)), 1)
    for other in ({"epoch": 1}, {"seed": 2}):
        assert once != drawn(stream, 1, **other)
    assert [what for _, what in said(analyse(augmented(layer)), "random")] == [
        "a Keras seed generator"
    ]


def test_a_layer_used_twice_draws_twice() -> None:
    layer = layers.GaussianNoise(1.0)

    def twice(x: Any) -> Any:
        return layer(image(0), training=True), layer(image(0), training=True)

    ds = Dataset.range(N).map(twice)
    assert all(one != two for one, two in drawn(reproducible(ds)))


def test_a_layer_within_a_function_and_a_branch() -> None:
    layer = layers.GaussianNoise(1.0)
    inner = tf.function(lambda x: layer(image(x), training=True))
    ds = Dataset.range(N).map(lambda x: tf.cond(x % 2 == 0, lambda: inner(x), lambda: inner(x)))
    once = drawn(reproducible(ds))
    assert once == drawn(reproducible(ds))
    assert len(set(map(repr, once))) == len(once)


def test_other_variables_keep_their_values_and_their_warning() -> None:
    held = tf.Variable([5, 6], dtype=tf.int64)
    ds = Dataset.range(N).map(lambda x: (held + x, tf.random.uniform([])))
    assert [e[0] for e in drawn(reproducible(ds))] == drawn_values(ds)

    def counting(x: Any) -> Any:
        return held.assign_add([1, 1]) + x

    plan = analyse(Dataset.range(N).map(counting))
    assert not plan.streams[0].replayable
    assert said(plan, "replay")


def drawn_values(ds: Any) -> list[Any]:
    return [((2,), value.numpy().tobytes()) for value, _ in ds.take(10)]


_PROGRAM = """
import tensorflow as tf
from penstock.graph import analyse
layer = tf.keras.layers.RandomFlip()
ds = tf.data.Dataset.range(640).map(lambda x: layer(tf.zeros([8, 8, 3]), training=True))
print(analyse(ds).streams[0].fingerprint)
"""


def test_the_fingerprint_does_not_hold_the_seed_that_a_layer_happened_to_get() -> None:
    made = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for _ in range(2)
    ]
    assert made[0] == made[1] != ""
