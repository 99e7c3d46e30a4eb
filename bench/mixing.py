"""The pipelines whose mixing is measured: every element is its own source position.

File pipelines read TFRecord files whose records hold one int64 each, file number × records +
record: eight bytes, so that a lane's block is as long as blocks get, and mixing at its worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: A shuffle buffer for an index source, and one for files.
SMALL, LARGE = 100, 1024
CYCLE = 16


@dataclass(frozen=True, slots=True)
class Source:
    """What pipelines read.

    Attributes:
        directory: where the files are, named so that their order is the source's.
        files: number of files.
        records: in each.
    """

    directory: Path
    files: int
    records: int

    @property
    def elements(self) -> int:
        """Of an epoch, of files or not."""
        return self.files * self.records

    @property
    def paths(self) -> list[str]:
        """The files in the source's order."""
        return [str(self.directory / f"part-{k:04d}.tfrecord") for k in range(self.files)]

    def write(self) -> None:
        """Writes the files; the directory is made."""
        import tensorflow as tf

        self.directory.mkdir(parents=True)
        for number, path in enumerate(self.paths):
            with tf.io.TFRecordWriter(path) as writer:
                for position in range(number * self.records, (number + 1) * self.records):
                    writer.write(np.int64(position).tobytes())


def pipelines() -> dict[str, Callable[[Source, int], Any]]:
    """The usual pipelines by name; each is given the source and a seed for a local run."""
    return {
        "range": _range,
        "slices": _slices,
        "records": _records,
        "list-files": _list_files,
        "interleave": _interleave,
        "interleave-only": _interleave_only,
        "file-order": _file_order,
        "sampled": _sampled,
    }


def read_order(dataset: Any) -> Any:
    """The positions of one epoch as they come."""
    batches = list(dataset.batch(1024).as_numpy_iterator())
    return np.concatenate(batches) if batches else np.empty(0, np.int64)


def _range(source: Source, seed: int) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.range(source.elements).shuffle(SMALL, seed=seed)


def _slices(source: Source, seed: int) -> Any:
    import tensorflow as tf

    numbers = np.arange(source.elements)
    return tf.data.Dataset.from_tensor_slices(numbers).shuffle(SMALL, seed=seed)


def _records(source: Source, seed: int) -> Any:
    import tensorflow as tf

    return tf.data.TFRecordDataset(source.paths).map(_decode).shuffle(LARGE, seed=seed)


def _list_files(source: Source, seed: int) -> Any:
    import tensorflow as tf

    return tf.data.TFRecordDataset(_listed(source, seed)).map(_decode).shuffle(LARGE, seed=seed)


def _interleave(source: Source, seed: int) -> Any:
    return _interleave_only(source, seed).shuffle(LARGE, seed=seed)


def _interleave_only(source: Source, seed: int) -> Any:
    import tensorflow as tf

    paths = tf.data.Dataset.from_tensor_slices(source.paths)
    return paths.interleave(tf.data.TFRecordDataset, cycle_length=CYCLE).map(_decode)


def _file_order(source: Source, seed: int) -> Any:
    import tensorflow as tf

    return _listed(source, seed).flat_map(tf.data.TFRecordDataset).map(_decode)


def _sampled(source: Source, seed: int) -> Any:
    import tensorflow as tf

    half = source.elements // 2
    parts = [tf.data.Dataset.range(half), tf.data.Dataset.range(half, source.elements)]
    shuffled = [part.shuffle(SMALL, seed=seed) for part in parts]
    return tf.data.Dataset.sample_from_datasets(shuffled, [0.5, 0.5], seed=seed)


def _listed(source: Source, seed: int) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.list_files(str(source.directory / "part-*.tfrecord"), seed=seed)


def _decode(record: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(tf.io.decode_raw(record, tf.int64), [])
