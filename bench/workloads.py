"""The pipelines that benchmarks run, their generated data, and what a plain local run gives.

Nothing is downloaded: TensorFlow encodes the pictures. A record is a `tf.train.Example` with `id`
(int64) and `image` (JPEG, 96 × 96 × 3, about 5 KB), as an ImageNet shard has them, but smaller.
Everything is a function of the record's number, so every epoch has the same elements and can be
compared with a plain local run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..client.groundtruth import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    import tensorflow as tf

    from ..proto.hashing import Digest
    from .harness import Show

SIDE = 96
CROP = 64
#: Different pictures; records share them, so that encoding does not take longer than measuring.
_PICTURES = 256
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Workload:
    """A pipeline and what each of its epochs has to deliver.

    Attributes:
        name: for people.
        dataset: the `tf.data.Dataset`, not distributed.
        truth: the digest of a plain local run; of it, `count` and `total` do not depend on order.
    """

    name: str
    dataset: Any
    truth: Digest

    @property
    def elements(self) -> int:
        """Elements of an epoch."""
        return self.truth.count


def cheap(elements: int, show: Show, *, shuffle: int = 0) -> Workload:
    """Numbers and their squares: next to no work, so that every overhead shows.

    Args:
        elements: of an epoch.
        show: is told what happens.
        shuffle: size of the shuffle buffer; 0 for none.
    """
    import tensorflow as tf

    plain = tf.data.Dataset.range(elements).map(_square, num_parallel_calls=2)
    name = f"cheap-shuffle{shuffle}" if shuffle else "cheap"
    show.said(f"{name}: {elements:,} elements; running the pipeline once without penstock")
    return Workload(name, plain.shuffle(shuffle) if shuffle else plain, digest_of(plain))


def jpeg(paths: list[str], show: Show, *, shuffles: tuple[int, ...] = (1024,)) -> list[Workload]:
    """TFRecords of JPEG pictures: shuffle, parse, decode, crop at random to 64 × 64.

    Args:
        paths: the files, from `write_pictures`.
        show: is told what happens.
        shuffles: sizes of the shuffle buffer, one workload for each.
    """
    import tensorflow as tf

    parallel = tf.data.AUTOTUNE
    plain = tf.data.TFRecordDataset(paths).map(_decode, num_parallel_calls=parallel)
    show.said("jpeg: running the pipeline once without penstock")
    truth = digest_of(plain)  # in whatever order: shuffling does not change what there is
    return [
        Workload(
            "jpeg" if size == shuffles[0] else f"jpeg-shuffle{size}",
            tf.data.TFRecordDataset(paths).shuffle(size).map(_decode, num_parallel_calls=parallel),
            truth,
        )
        for size in shuffles
    ]


def write_pictures(directory: Path, show: Show, *, files: int, records: int) -> list[str]:
    """Writes TFRecord files of JPEG pictures.

    Args:
        directory: an existing directory.
        show: is told what happens.
        files: number of files.
        records: records in each.

    Returns:
        The paths of the files, in order.
    """
    import tensorflow as tf

    pictures = _pictures()
    nbytes = sum(map(len, pictures)) // len(pictures) * files * records
    show.said(f"writing {files * records:,} JPEG records, {nbytes / 1e6:,.0f} MB, in {files} files")
    paths = []
    for number in range(files):
        show.step("writing pictures", number, files)
        path = directory / f"pictures-{number:03d}-of-{files:03d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in range(number * records, (number + 1) * records):
                writer.write(_example(record, pictures[record % _PICTURES]))
        paths.append(str(path))
    show.step("writing pictures", files, files)
    return paths


def _pictures() -> list[bytes]:
    """Soft shapes with some grain: they compress about as well as photographs do."""
    import tensorflow as tf

    random = np.random.default_rng(seed=0)
    pictures = []
    for _ in range(_PICTURES):
        shapes = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        soft = tf.image.resize(shapes, [SIDE, SIDE], method="bicubic").numpy()
        grain = random.normal(0.0, 8.0, (SIDE, SIDE, 1))
        pixels = np.clip(soft + grain, 0, 255).astype(np.uint8)
        pictures.append(tf.io.encode_jpeg(pixels, quality=_QUALITY).numpy())
    return pictures


def _example(record: int, picture: bytes) -> bytes:
    import tensorflow as tf

    feature = {
        "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[record])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture])),
    }
    features = tf.train.Features(feature=feature)
    serialized: bytes = tf.train.Example(features=features).SerializeToString()
    return serialized


def _square(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return number, number * number


def _decode(record: tf.Tensor) -> dict[str, tf.Tensor]:
    import tensorflow as tf

    features = {
        "id": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.string),
    }
    example = tf.io.parse_single_example(record, features)
    image = tf.io.decode_jpeg(example["image"], channels=3)
    seed = tf.stack([example["id"], tf.constant(7, tf.int64)])
    crop = tf.image.stateless_random_crop(image, [CROP, CROP, 3], seed)
    return {"id": example["id"], "image": crop}
