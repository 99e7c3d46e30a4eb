"""The pipeline of the fault tests, its generated data, and what a plain local run of it gives.

As an ImageNet input pipeline, but smaller: TFRecord files of JPEG pictures with labels; shuffle,
parse, decode, crop and flip on the workers, batches at the client. Crop and flip are chosen by the
content of the record, so every epoch has the same elements and can be compared with a local run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..soak.data import HASH_BYTES, hash_of, picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tensorflow as tf

    from ..proto.hashing import Digest

FILES = 10
RECORDS = 200
ELEMENTS = FILES * RECORDS
BATCH = 192
_CROP = 64
_SHUFFLE = 1024
_LABELS = 1000
#: Different motifs; the pictures are made of them, as making one takes longer than its JPEG.
_MOTIFS = 64


@dataclass(frozen=True, slots=True)
class Truth:
    """What a plain local run gives.

    Attributes:
        elements: how often each element occurs, by its hash.
        batches: the sizes of the batches, in order.
        digest: by penstock's own hashing: a second check.
    """

    elements: Counter[bytes]
    batches: tuple[int, ...]
    digest: Digest


def write_records(directory: Path) -> list[str]:
    """Writes the TFRecord files.

    Args:
        directory: where; made if it is not there.

    Returns:
        The paths of the files, in order.
    """
    import tensorflow as tf

    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed=0)
    motifs = [picture(random, _CROP + 8, 2 * _CROP) for _ in range(_MOTIFS)]
    paths = []
    for number in range(FILES):
        path = directory / f"pictures-{number:03d}-of-{FILES:03d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(RECORDS):
                motif = motifs[random.integers(_MOTIFS)]
                turned = np.roll(motif, random.integers(0, _CROP, size=2), axis=(0, 1))
                image = np.clip(turned * random.uniform(0.5, 1.2), 0, 255).astype(np.uint8)
                jpeg = tf.io.encode_jpeg(image, quality=85).numpy()
                writer.write(_example(jpeg, int(random.integers(_LABELS))))
        paths.append(str(path))
    return paths


def pipeline(paths: Sequence[str], *, cached: bool = False) -> tf.data.Dataset:
    """The part of the input pipeline before the batches.

    Args:
        paths: of the TFRecord files.
        cached: with `.cache()` at its end.

    Returns:
        A dataset of dicts `image` (float32, 64 × 64 × 3, in [0, 1]) and `label` (int64 scalar).
    """
    import tensorflow as tf

    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decoded(record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(example["image"], channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        seed = tf.stack([tf.strings.to_hash_bucket_fast(record, 1 << 30), 7])
        image = tf.image.stateless_random_crop(image, [_CROP, _CROP, 3], seed)
        image = tf.image.stateless_random_flip_left_right(image, seed)
        return {"image": image, "label": example["label"]}

    made = (
        tf.data.TFRecordDataset(list(paths))
        .shuffle(_SHUFFLE)
        .map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
    )
    return made.cache() if cached else made


def hashes_of(batch: dict[str, Any]) -> list[bytes]:
    """The hash of each element of a batch, over its image and its label.

    Args:
        batch: of `pipeline(…).batch(…)`, as arrays.
    """
    rows = zip(batch["image"], batch["label"], strict=True)
    return [hash_of({"image": image, "label": label}) for image, label in rows]


def split_hashes(content: bytes) -> list[bytes]:
    """Hashes that were written one after the other; a kill may have cut the last one: it goes."""
    stop = len(content) - len(content) % HASH_BYTES
    return [content[start : start + HASH_BYTES] for start in range(0, stop, HASH_BYTES)]


def truth_of(paths: Sequence[str]) -> Truth:
    """Runs the pipeline here, without penstock."""
    from ..client.groundtruth import digest_of

    elements: Counter[bytes] = Counter()
    batches = []
    for batch in pipeline(paths).batch(BATCH).as_numpy_iterator():
        elements.update(hashes_of(batch))
        batches.append(len(batch["label"]))
    return Truth(elements, tuple(batches), digest_of(pipeline(paths)))


def _example(jpeg: bytes, label: int) -> bytes:
    import tensorflow as tf

    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    features = tf.train.Features(feature=feature)
    serialized: bytes = tf.train.Example(features=features).SerializeToString()
    return serialized
