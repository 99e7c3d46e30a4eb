"""G3 for augmentation: what is drawn is the same on any number of workers, and after a kill."""

from __future__ import annotations

import signal
from typing import Any

import tensorflow as tf

import penstock

from .conftest import ClusterMaker
from .pipelines import fingerprint_of, sequence_of

COUNT = 600


def augmented() -> Any:
    """Small images that are flipped, brightened and cropped at random."""

    def augment(number: tf.Tensor) -> tf.Tensor:
        pixels = tf.range(32 * 32 * 3) + tf.cast(number, tf.int32)
        image = tf.cast(tf.reshape(pixels % 255, [32, 32, 3]), tf.float32)
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_brightness(image, 0.3)
        return tf.image.random_crop(image, [16, 16, 3])

    images = tf.data.Dataset.range(COUNT).shuffle(100)
    return images.map(augment, num_parallel_calls=tf.data.AUTOTUNE)


def test_augmentation_is_the_same_on_any_number_of_workers_and_after_a_kill(
    make_cluster: ClusterMaker,
) -> None:
    alone = augmented().apply(penstock.distribute(make_cluster(workers=1).address, seed=5))
    reference = [sequence_of(alone) for _ in range(2)]
    assert len({*reference[0], *reference[1]}) == 2 * COUNT  # nothing is drawn twice
    cluster = make_cluster(workers=3)
    served = augmented().apply(penstock.distribute(cluster.address, seed=5, memory_limit=1 << 16))
    assert served.penstock.plan.streams[0].replayable
    assert sequence_of(served) == reference[0]
    seen = []
    for image in served:
        seen.append(fingerprint_of(image))
        if len(seen) == COUNT // 3:
            cluster.workers[0].send_signal(signal.SIGKILL)
            cluster.workers[0].kill()
    assert seen == reference[1]
