"""The soak's pipelines: small, of many kinds, on generated data; and a plain local run of each.

Everything that an element holds is a function of its source, never of the job's seed, so that every
epoch of every job has the multiset of a plain local run. The hash here is made of dtype, shape and
bytes with hashlib; it shares no code with the digests that penstock computes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tensorflow as tf

HASH_BYTES = 16
FILES = 8
_LINES = 500
_IMAGES = 150
_NUMBERS = 6000
_CROP = 48


def write_data(directory: Path) -> None:
    """Writes text files and TFRecord files of numbers and of JPEG images into `directory`."""
    import tensorflow as tf

    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed=0)
    for number in range(FILES):
        lines = "".join(f"{number}:{i}:{'x' * (i * 7 % 90)}é\n" for i in range(_LINES))
        (directory / f"lines-{number}.txt").write_text(lines)
        with tf.io.TFRecordWriter(str(directory / f"numbers-{number}.tfrecord")) as writer:
            for i in range(_LINES):
                writer.write(np.array([number, i, i * i], np.int64).tobytes())
        with tf.io.TFRecordWriter(str(directory / f"images-{number}.tfrecord")) as writer:
            for _ in range(_IMAGES):
                image = picture(random, _CROP + 8, 2 * _CROP)
                writer.write(tf.io.encode_jpeg(image, quality=80).numpy())


def picture(random: np.random.Generator, least: int, most: int) -> np.ndarray[Any, Any]:
    """Smooth colours and some noise, as in a photograph.

    Args:
        random: decides everything.
        least: pixels that a side has at least.
        most: and less than these.

    Returns:
        An array of uint8, height × width × 3.
    """
    height, width = (int(side) for side in random.integers(least, most, size=2))
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(random.uniform(0.02, 0.2) * (x + random.integers(99)) + y / 9) for _ in "rgb"]
    noise = random.normal(0.0, 8.0, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) * 90 + 128 + noise, 0, 255).astype(np.uint8)


def pipelines(directory: Path) -> dict[str, Callable[[], tf.data.Dataset]]:
    """The pipelines by name, over the files that `write_data` made in `directory`."""
    import tensorflow as tf

    def paths(kind: str) -> list[str]:
        return sorted(str(path) for path in directory.glob(f"{kind}-*"))

    def worked(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        matrix = tf.eye(64) * tf.cast(i % 7, tf.float32)
        for _ in range(10):
            matrix = matrix @ tf.eye(64)
        return i, i * i + tf.cast(tf.reduce_sum(matrix) * 0.0, tf.int64)

    def grown(line: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.split(line, ":")
        return {"line": line, "words": words, "long": tf.strings.join([line] * 5)}

    def decoded(record: tf.Tensor) -> tf.Tensor:
        image = tf.image.decode_jpeg(record, channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        # The crop is chosen by the content: the same in every epoch, as ground truth needs it.
        seed = tf.stack([tf.strings.to_hash_bucket_fast(record, 1 << 30), 7])
        return tf.image.stateless_random_crop(image, [_CROP, _CROP, 3], seed)

    def repeated(i: tf.Tensor) -> tf.data.Dataset:
        def product(j: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return i, j, i * j

        return tf.data.Dataset.range(i % 7).map(product)

    def tripled(i: tf.Tensor) -> tf.Tensor:
        return i * 3

    def kept(i: tf.Tensor) -> tf.Tensor:
        return i % 4 != 0

    def integers(record: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_raw(record, tf.int64)

    numbers = tf.data.Dataset.range
    return {
        "shuffle": lambda: numbers(_NUMBERS).map(worked, num_parallel_calls=2).shuffle(500),
        "filter": lambda: numbers(3 * _NUMBERS).map(tripled).filter(kept),
        "strings": lambda: tf.data.TextLineDataset(paths("lines")).map(grown).shuffle(100),
        "records": lambda: tf.data.TFRecordDataset(paths("numbers")).map(integers),
        "jpeg": lambda: (
            tf.data.TFRecordDataset(paths("images"))
            .shuffle(200)
            .map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        ),
        "flat_map": lambda: numbers(_NUMBERS // 3).flat_map(repeated),
        "interleave": lambda: tf.data.Dataset.from_tensor_slices(paths("lines")).interleave(
            tf.data.TextLineDataset, cycle_length=3, block_length=5
        ),
    }


def hash_of(element: Any) -> bytes:
    """A hash of an element as `as_numpy_iterator` gives it: a nest of arrays, scalars and bytes."""
    import tensorflow as tf

    hasher = hashlib.blake2b(digest_size=HASH_BYTES)
    for component in tf.nest.flatten(element, expand_composites=True):
        array = np.asarray(component, object if isinstance(component, bytes) else None)
        hasher.update(f"{array.dtype.str}{array.shape}".encode())
        # Strings are arrays of objects: each by its length and bytes.
        for value in array.flat if array.dtype == object else (array.tobytes(),):
            hasher.update(len(value).to_bytes(8, "little") + value)
    return hasher.digest()


def ground_truth(dataset: tf.data.Dataset) -> Counter[bytes]:
    """How often each element (by `hash_of`) occurs in a plain local run."""
    return Counter(hash_of(element) for element in dataset.as_numpy_iterator())
