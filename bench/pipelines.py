"""The pipelines whose speed is measured, and how much of each is read.

Elements are functions of their number, so that every run can be compared with a local one. Their
content is what does not compress: random bytes that are shifted or cut for each element, because
data made of one repeated number would let a service that compresses look faster than it is. They
are made cheaply, so that what is measured is the transport, but for `jpeg`.

Nothing here imports TensorFlow before a pipeline is built: the process that compares does not
need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tensorflow as tf

#: Records of a file of pictures: elements of a case that reads them are a multiple of it.
RECORDS = 1000
SLEEP_S = 0.02
_SIDE = 64
_BATCH_BYTES = _SIDE * _SIDE * _SIDE * 3 * 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many elements each kind of contestant reads: rates differ by more than 100 times.

    Attributes:
        stock: stock tf.data service, which takes a request for every element.
        loop: penstock and the local run, element by element in eager Python.
        bulk: the same, many elements at once.
    """

    stock: int
    loop: int
    bulk: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline of any number of elements.

    Attributes:
        name: what `--case` calls it.
        title: what an element is.
        make: its dataset, given the number of elements and the directory of the pictures' files.
        sizes: how much is read.
        batch: elements that the consumption `batched` puts together.
        inner: elements that the pipeline itself puts together, at its end, 0 for none. They are
            what is counted all the same; `batched` does without it.
        files: number of files of pictures that it needs.
    """

    name: str
    title: str
    make: Callable[[int, Path], tf.data.Dataset]
    sizes: Sizes
    batch: int = 128
    inner: int = 0
    files: int = 0

    def dataset(self, elements: int, directory: Path, *, inner: bool) -> tf.data.Dataset:
        """The dataset, with its own batches at the end or without them."""
        made = self.make(elements, directory)
        return made.batch(self.inner) if inner and self.inner else made

    def rounded(self, elements: int) -> int:
        """The nearest number of elements that there can be, and at least some."""
        step = RECORDS if self.files else 1
        return max(1, elements // step) * step


def pictures(directory: Path, elements: int) -> list[str]:
    """The paths of the files that hold the first `elements` records."""
    return [str(path) for path in sorted(directory.glob("pictures-*.tfrecord"))][
        : elements // RECORDS
    ]


def _scalars(elements: int, _: Path) -> tf.data.Dataset:
    import tensorflow as tf

    return tf.data.Dataset.range(elements)


def _dense(*shape: int) -> Callable[[int, Path], tf.data.Dataset]:
    """Pairs of a float32 tensor of that shape and the element's number."""

    def make(elements: int, _: Path) -> tf.data.Dataset:
        import tensorflow as tf

        # Large tensors repeat a small one, which a compressor that looks 64 KiB back does not see.
        whole = int(np.prod(shape))
        part = min(whole, _SIDE * _SIDE * 3 * 2)
        noise = np.random.default_rng(seed=0).random(part, np.float32)

        def element(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shifted = tf.constant(noise) + tf.cast(number, tf.float32)
            return tf.reshape(tf.tile(shifted, [whole // part]), shape), number

        return tf.data.Dataset.range(elements).map(element, num_parallel_calls=2)

    return make


def _strings(elements: int, _: Path) -> tf.data.Dataset:
    import tensorflow as tf

    noise = np.random.default_rng(seed=0).bytes(64 << 10)

    def element(number: tf.Tensor) -> tf.Tensor:
        scattered = tf.cast(number * 7919 % 9001, tf.int32)  # 1,000 to 10,000 bytes
        return tf.strings.substr(tf.constant(noise), scattered * 6, 1000 + scattered)

    return tf.data.Dataset.range(elements).map(element, num_parallel_calls=2)


def _ragged(elements: int, _: Path) -> tf.data.Dataset:
    import tensorflow as tf

    noise = np.random.default_rng(seed=0).random(4096, np.float32)

    def element(number: tf.Tensor) -> tf.RaggedTensor:
        rows = tf.cast(number % 16 + 1, tf.int32)  # of 1 to 31 numbers each
        lengths = 1 + (tf.range(rows) * 7 + tf.cast(number % 31, tf.int32)) % 31
        values = tf.constant(noise)[: tf.reduce_sum(lengths)] + tf.cast(number, tf.float32)
        return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)

    return tf.data.Dataset.range(elements).map(element, num_parallel_calls=2)


def _tfrecord_raw(elements: int, directory: Path) -> tf.data.Dataset:
    import tensorflow as tf

    return tf.data.TFRecordDataset(pictures(directory, elements))


def _jpeg(elements: int, directory: Path) -> tf.data.Dataset:
    import tensorflow as tf

    files = tf.data.TFRecordDataset(pictures(directory, elements))
    return files.map(_decoded, num_parallel_calls=tf.data.AUTOTUNE)


def _decoded(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a picture, crops it and flips it or not, at random by its number."""
    import tensorflow as tf

    features = {
        "id": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.string),
    }
    example = tf.io.parse_single_example(record, features)
    image = tf.io.decode_jpeg(example["image"], channels=3)
    seed = tf.stack([example["id"], tf.constant(7, tf.int64)])
    crop = tf.image.stateless_random_crop(image, [_SIDE, _SIDE, 3], seed)
    return tf.image.stateless_random_flip_left_right(crop, seed), example["id"]


def sleeping(elements: int, _: Path) -> tf.data.Dataset:
    """Numbers, each of which takes 20 ms without any work: input that waits for a disk or a net."""
    import tensorflow as tf
    from tensorflow.python.data.experimental.ops import testing  # has no public name

    return tf.data.Dataset.range(elements).apply(testing.sleep(int(SLEEP_S * 1e6)))


def by_name() -> dict[str, Pipeline]:
    """Every pipeline by its name, in the order in which people think of them."""
    floats = "float32, and its number"
    every = (
        Pipeline("scalars", "one int64", _scalars, Sizes(5_000, 50_000, 2_000_000)),
        Pipeline("vectors", f"784 {floats}", _dense(784), Sizes(5_000, 50_000, 80_000)),
        Pipeline("images", f"64×64×3 {floats}", _dense(64, 64, 3), Sizes(4_000, 20_000, 20_000)),
        Pipeline(
            "batches",
            f"64×64×64×3 {floats}: {_BATCH_BYTES / 1e6:.1f} MB",
            _dense(64, 64, 64, 3),
            Sizes(500, 3_000, 3_000),
            batch=4,
        ),
        Pipeline(
            "jpeg",
            "a picture: decode, crop, flip, batch(32)",
            _jpeg,
            # Long enough that what a split costs to begin does not hide what a picture costs.
            Sizes(4_000, 64_000, 64_000),
            inner=32,
            files=64,
        ),
        Pipeline("strings", "1 to 10 KB", _strings, Sizes(4_000, 40_000, 60_000)),
        Pipeline("ragged", "1 to 16 rows of float32", _ragged, Sizes(4_000, 20_000, 20_000)),
        Pipeline(
            "tfrecord-raw",
            "a record of about 5 KB, not parsed",
            _tfrecord_raw,
            Sizes(4_000, 16_000, 16_000),
            files=16,
        ),
        Pipeline("scaling", "a number after 20 ms", sleeping, Sizes(0, 3_200, 3_200)),
    )
    return {pipeline.name: pipeline for pipeline in every}


def payload_bytes(dataset: Any) -> int:
    """Bytes of all elements of a finite dataset: of tensors, without any framing."""
    import tensorflow as tf

    def size(part: tf.Tensor) -> tf.Tensor:
        if part.dtype == tf.string:
            return tf.reduce_sum(tf.cast(tf.strings.length(part), tf.int64))
        return tf.size(part, tf.int64) * part.dtype.size

    def add(total: tf.Tensor, element: Any) -> tf.Tensor:
        return total + tf.add_n([size(p) for p in tf.nest.flatten(element, expand_composites=True)])

    return int(dataset.reduce(tf.constant(0, tf.int64), add).numpy())
