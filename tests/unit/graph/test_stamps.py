"""What a cached split was read from: a stamp that changes when one of its files does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from penstock.errors import UsageError
from penstock.graph import stamps

from .caches import loaded, numbers, plus

Dataset = tf.data.Dataset


def record_files(folder: Path, count: int = 4) -> list[Path]:
    names = [folder / f"{i}.tfrecord" for i in range(count)]
    for i, name in enumerate(names):
        with tf.io.TFRecordWriter(str(name)) as writer:
            writer.write(b"%d" % i)
    return names


def every_stamp(ds: Any, **options: Any) -> list[str | None]:
    stream = loaded(ds, **options)
    return [stream.stamp(split) for split in range(stream.num_splits)]


def texts(names: list[Path]) -> list[str]:
    return [str(name) for name in names]


def test_a_stamp_changes_with_the_file_of_its_split_alone(tmp_path: Path) -> None:
    names = record_files(tmp_path)
    ds = tf.data.TFRecordDataset(texts(names)).cache()
    before = every_stamp(ds)
    assert len(set(before)) == 4
    assert every_stamp(ds) == before
    with names[2].open("ab") as file:
        file.write(b"more")
    after = every_stamp(ds)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]


def test_a_stamp_changes_with_the_time_of_change_to_the_nanosecond(tmp_path: Path) -> None:
    names = record_files(tmp_path)
    ds = Dataset.from_tensor_slices(texts(names)).interleave(tf.data.TFRecordDataset).cache()
    before = every_stamp(ds)
    now_ns = names[0].stat().st_mtime_ns
    os.utime(names[0], ns=(now_ns, now_ns + 1))
    assert every_stamp(ds)[0] != before[0]
    os.utime(names[0], ns=(now_ns, now_ns))
    assert every_stamp(ds) == before


def test_a_stamp_is_hexadecimal_and_zero_where_nothing_is_read(tmp_path: Path) -> None:
    assert every_stamp(numbers.cache())[0] == "0"
    (first, *_) = every_stamp(tf.data.TFRecordDataset(texts(record_files(tmp_path))).cache())
    assert first is not None
    assert int(first, 16) > 0
    assert len(first) == 32


def test_a_file_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    names = record_files(tmp_path)
    ds = tf.data.TFRecordDataset(texts(names)).cache()
    names[1].unlink()
    assert [stamp is None for stamp in every_stamp(ds)] == [False, True, False, False]


def test_one_split_of_all_files_has_the_stamp_of_all(tmp_path: Path) -> None:
    names = record_files(tmp_path)
    files = Dataset.from_tensor_slices(texts(names))
    ds = files.interleave(tf.data.TFRecordDataset, cycle_length=2).cache().map(tf.strings.length)
    (before,) = every_stamp(ds, lanes=1)
    assert before not in (None, "0")
    with names[3].open("ab") as file:
        file.write(b"more")
    assert every_stamp(ds, lanes=1) != [before]
    swapped = Dataset.from_tensor_slices(texts([names[1], names[0], *names[2:]]))
    swapped = swapped.interleave(tf.data.TFRecordDataset, cycle_length=2).cache()
    assert every_stamp(swapped, lanes=1) != every_stamp(ds, lanes=1)


def test_a_single_file_and_a_saved_dataset_are_looked_at(tmp_path: Path) -> None:
    (name,) = record_files(tmp_path, 1)
    Dataset.range(5).save(str(tmp_path / "saved"))
    for path in [name, *(tmp_path / "saved").rglob("*")]:
        os.utime(path, (1, 1))  # so long ago that any clock tells the difference
    kept = [tf.data.TFRecordDataset(str(name)), Dataset.load(str(tmp_path / "saved"))]
    stamps_before = [every_stamp(ds.cache()) for ds in kept]
    assert all(len(found) == 1 and found[0] not in (None, "0") for found in stamps_before)
    with name.open("ab") as file:
        file.write(b"more")
    Dataset.range(6).save(str(tmp_path / "saved"))
    stamps_after = [every_stamp(ds.cache()) for ds in kept]
    assert all(a != b for a, b in zip(stamps_before, stamps_after, strict=True))


def test_files_that_a_map_opens_are_looked_at_by_their_rows(tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.png" for i in range(5)]
    for name in names:
        name.write_bytes(b"pixels")
    labels = [f"label {i}" for i in range(5)]
    pairs = Dataset.from_tensor_slices((labels, texts(names))).shuffle(5)
    ds = pairs.map(lambda label, name: (label, tf.io.read_file(name))).cache()
    before = every_stamp(ds)
    assert len(set(before)) == 5
    assert None not in before
    names[3].write_bytes(b"other pixels")
    after = every_stamp(ds)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert set(every_stamp(pairs.map(lambda label, name: name).cache())) == {"0"}


def test_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = texts(record_files(tmp_path))
    files = Dataset.from_tensor_slices(names).interleave(tf.data.TFRecordDataset, cycle_length=2)
    monkeypatch.setattr(stamps, "_FILES_MAX", 3)
    assert every_stamp(files.cache(), lanes=1) == [None]


def test_a_stream_without_a_cache_point_has_no_stamps() -> None:
    with pytest.raises(UsageError, match="no cache point"):
        loaded(Dataset.range(3).map(plus)).stamp(0)
    with pytest.raises(UsageError, match="does not exist"):
        loaded(numbers.cache()).stamp(1000)
