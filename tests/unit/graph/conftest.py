"""Small files for the pipelines under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tensorflow as tf

if TYPE_CHECKING:
    from pathlib import Path

tf.autograph.set_verbosity(0)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six TFRecord files of 0 to 5 records, record j of file i being `i-j`."""
    folder = tmp_path_factory.mktemp("records")
    names = [str(folder / f"{i}.tfrecord") for i in range(6)]
    for i, name in enumerate(names):
        with tf.io.TFRecordWriter(name) as writer:
            for j in range(i):
                writer.write(b"%d-%d" % (i, j))
    return names


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four text files of 3 to 6 lines."""
    folder: Path = tmp_path_factory.mktemp("texts")
    names = [folder / f"{i}.txt" for i in range(4)]
    for i, name in enumerate(names):
        name.write_text("".join(f"{i}-{j}\n" for j in range(i + 3)))
    return [str(name) for name in names]


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three files of four-byte records behind a two-byte header."""
    folder: Path = tmp_path_factory.mktemp("binaries")
    names = [folder / f"{i}.bin" for i in range(3)]
    for i, name in enumerate(names):
        name.write_bytes(b"##" + b"".join(b"%d%03d" % (i, j) for j in range(i + 2)))
    return [str(name) for name in names]
