"""The ways of consuming: each counts every element of every kind of dataset."""

from __future__ import annotations

import pytest
import tensorflow as tf

from penstock import digest_of
from penstock.bench.child import Child
from penstock.bench.pipelines import RECORDS, Pipeline, Sizes, by_name, payload_bytes
from penstock.bench.ways import WAYS, consume_batches, consume_dataset

MADE = [name for name, pipeline in by_name().items() if not pipeline.files]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MADE)
def test_every_element_is_counted(name: str, way: str, tmp_path) -> None:
    pipeline = by_name()[name]
    dataset = pipeline.dataset(10, tmp_path, inner=True)
    seen = consume_dataset(dataset, way, batch=3, inner=False)
    assert seen.elements == 10
    assert seen.begin_s < seen.end_s
    assert (seen.first_s is None) == (way == "reduce")
    assert seen.first_s is None or 0 < seen.first_s <= seen.end_s - seen.begin_s


@pytest.mark.parametrize("way", WAYS)
def test_of_batches_that_the_pipeline_makes_the_elements_are_counted(way: str, tmp_path) -> None:
    def pairs(elements: int, _: object) -> tf.data.Dataset:
        return tf.data.Dataset.range(elements).map(lambda number: ({"n": number}, number))

    pipeline = Pipeline("pairs", "", pairs, Sizes(0, 0, 0), inner=4)
    dataset = pipeline.dataset(10, tmp_path, inner=True)
    flat = dataset.map(lambda features, number: (number, features["n"]))
    assert consume_dataset(flat, way, batch=128, inner=True).elements == 10
    whole = pipeline.dataset(10, tmp_path, inner=False)
    assert len(list(whole)) == 10


def test_nothing_is_read_of_what_is_empty() -> None:
    seen = consume_batches(iter(()), None)
    assert (seen.elements, seen.first_s) == (0, None)


@pytest.mark.parametrize("name", [name for name in MADE if name != "scaling"])
def test_a_child_tells_the_truth_about_a_pipeline(name: str, tmp_path) -> None:
    dataset = by_name()[name].dataset(12, tmp_path, inner=False)
    truth = digest_of(dataset)
    told = Child().answer({"do": "truth", "pipeline": name, "elements": 12, "directory": ""})
    assert (told["count"], told["total"]) == (truth.count, truth.total)
    assert told["nbytes"] == payload_bytes(dataset) > 0


def test_bytes_are_those_of_the_tensors() -> None:
    numbers = tf.data.Dataset.from_tensors((tf.zeros([3, 2], tf.float32), tf.constant(b"four")))
    assert payload_bytes(numbers.repeat(2)) == 2 * (24 + 4)
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1, 2], [3]], tf.int32))
    assert payload_bytes(ragged) == 3 * 4 + 3 * 8  # values, and the splits of two rows


def test_elements_do_not_compress(tmp_path) -> None:
    import zlib

    for name in ("vectors", "images", "batches"):
        (element,) = by_name()[name].dataset(1, tmp_path, inner=False)
        raw = element[0].numpy().tobytes()
        assert len(zlib.compress(raw, 1)) > 0.8 * len(raw)


def test_pictures_are_read_by_files_and_counted_as_pictures(tmp_path) -> None:
    child = Child()
    said = child.answer({"do": "pictures", "directory": str(tmp_path), "files": 2, "records": 20})
    assert len(said["paths"]) == 2
    jpeg, raw = by_name()["jpeg"], by_name()["tfrecord-raw"]
    assert len(list(raw.dataset(RECORDS, tmp_path, inner=True))) == 20  # of one file
    seen = consume_dataset(
        jpeg.dataset(2 * RECORDS, tmp_path, inner=True), "eager", batch=128, inner=True
    )
    assert seen.elements == 40


def test_what_a_child_cannot_do_is_its_answer() -> None:
    said = Child().answer({"do": "truth", "pipeline": "none", "elements": 1, "directory": ""})
    assert said["exit_code"] == 1
    assert "none" in said["error"]
