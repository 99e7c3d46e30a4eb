"""The README's example runs as it is printed, but for the addresses of files and dispatcher."""

from __future__ import annotations

import re
from pathlib import Path

import tensorflow as tf

from penstock import LocalCluster

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_of_the_readme_runs(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    image = tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    for number in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"train-{number}.tfrecord")) as writer:
            for label in range(20):
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (source,) = blocks
    source = source.replace("/data/train-*", f"{tmp_path}/train-*")
    source = source.replace("head:5050", shared_cluster.address).replace(
        "...", "seen.append(labels)"
    )
    seen: list[tf.Tensor] = []
    exec(compile(source, str(README), "exec"), {"seen": seen})
    labels = sorted(int(label) for batch in seen for label in batch)
    assert labels == sorted(list(range(20)) * 9)
