"""The demo's data: JPEG crops of two real photographs in TFRecord files, and a small model.

The photographs are the ones that scikit-learn carries (`china.jpg`, `flower.jpg`), so nothing is
downloaded. A record is a `tf.train.Example` with `id` (int64), `image` (JPEG bytes) and `label`
(0 or 1: which photograph). Everything is a function of the record's number, so the data is the
same on every machine, and the augmentation is keyed by the id, so that every epoch has the same
elements and can be checked against a plain local run.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
CROP = 72
SIZE = 64


def write_records(directory: Path, *, files: int, records_per_file: int) -> list[str]:
    """Writes the TFRecord files, ImageNet style.

    Args:
        directory: an existing directory.
        files: number of files.
        records_per_file: records in each.

    Returns:
        The paths of the files, in order.
    """
    import tensorflow as tf

    # Read from the package's files: scikit-learn's own loader would need another image library.
    images = importlib.resources.files("sklearn.datasets") / "images"
    photographs = [tf.io.decode_jpeg((images / name).read_bytes()).numpy() for name in PHOTOGRAPHS]
    random = np.random.default_rng(seed=0)
    paths = []
    for number in range(files):
        path = directory / f"crops-{number:03d}-of-{files:03d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in range(number * records_per_file, (number + 1) * records_per_file):
                label = record % 2
                photograph = photographs[label]
                top = random.integers(0, photograph.shape[0] - CROP)
                left = random.integers(0, photograph.shape[1] - CROP)
                crop = photograph[top : top + CROP, left : left + CROP]
                writer.write(_example(tf, record, tf.io.encode_jpeg(crop).numpy(), label))
        paths.append(str(path))
    return paths


def pipeline(paths: list[str]) -> tf.data.Dataset:
    """The input pipeline: read, decode, crop, flip and jitter.

    Returns:
        A dataset of dicts `id` (int64 scalar), `image` (float32, 64 × 64 × 3, in [0, 1]) and
        `label` (int64 scalar).
    """
    import tensorflow as tf

    features = {
        "id": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        image = tf.image.decode_jpeg(example["image"], channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        seed = tf.stack([example["id"], tf.constant(7, tf.int64)])
        image = tf.image.stateless_random_crop(image, [SIZE, SIZE, 3], seed)
        image = tf.image.stateless_random_flip_left_right(image, seed)
        image = tf.image.stateless_random_brightness(image, 0.2, seed)
        return {
            "id": example["id"],
            "image": tf.clip_by_value(image, 0.0, 1.0),
            "label": example["label"],
        }

    return (
        tf.data.TFRecordDataset(paths)
        .shuffle(512)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def small_model() -> Any:
    """A small convolutional network that tells the two photographs apart."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(8, 5, strides=4, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.005), loss=loss)
    return model


def _example(tf: Any, record: int, image: bytes, label: int) -> bytes:
    def integer(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    picture = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    feature = {"id": integer(record), "image": picture, "label": integer(label)}
    serialized: bytes = tf.train.Example(
        features=tf.train.Features(feature=feature)
    ).SerializeToString()
    return serialized
