"""Every random op of TensorFlow's API draws the same again, and as well as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.errors import NotShippableError
from penstock.graph import analyse, load_stream, seeds, split

from .draws import drawn, numbers, reproducible, said
from .random_recipe import elements

Dataset = tf.data.Dataset
N = 640
BOXES = [[[0.1, 0.1, 0.9, 0.9]]]


def image(x: Any) -> Any:
    return tf.reshape(tf.cast(tf.range(192) + tf.cast(x, tf.int32), tf.float32) / 255, [8, 8, 3])


def pixels(x: Any) -> Any:
    return tf.cast(image(x) * 255, tf.uint8)


#: All of tf.image.random_*.
IMAGE: dict[str, Any] = {
    "random_brightness": lambda x: tf.image.random_brightness(image(x), 0.3),
    "random_contrast": lambda x: tf.image.random_contrast(image(x), 0.2, 0.8),
    "random_crop": lambda x: tf.image.random_crop(image(x), [4, 4, 3]),
    "random_flip_left_right": lambda x: tf.image.random_flip_left_right(image(x)),
    "random_flip_up_down": lambda x: tf.image.random_flip_up_down(tf.stack([image(x)] * 3)),
    "random_hue": lambda x: tf.image.random_hue(image(x), 0.2),
    "random_jpeg_quality": lambda x: tf.image.random_jpeg_quality(pixels(x), 5, 95),
    "random_saturation": lambda x: tf.image.random_saturation(image(x), 0.5, 1.5),
}
#: All of tf.random that draws from a state of its own and can be keyed.
DRAWS: dict[str, Any] = {
    "uniform": lambda x: tf.random.uniform([2, 3]),
    "uniform of float64": lambda x: tf.random.uniform([], dtype=tf.float64),
    "uniform of float16": lambda x: tf.random.uniform([4], dtype=tf.float16),
    "uniform of int32": lambda x: tf.random.uniform([2], 5, 1 << 20, tf.int32),
    "uniform of int64": lambda x: tf.random.uniform([2], -(1 << 40), 1 << 40, tf.int64),
    "uniform of a drawn shape": lambda x: tf.random.uniform(tf.random.uniform([2], 1, 9, tf.int32)),
    "normal": lambda x: tf.random.normal([2], 5.0, 2.0),
    "truncated_normal": lambda x: tf.random.truncated_normal([3]),
    "categorical": lambda x: tf.random.categorical([[0.1, 0.2, 0.3]] * 4, 8),
    "gamma": lambda x: tf.random.gamma([2], [[0.5], [2.0]], [1.0, 3.0]),
    "gamma of float64": lambda x: tf.random.gamma([], 2.0, dtype=tf.float64),
    "poisson": lambda x: tf.random.poisson([3], [5.0, 900.0]),
    "shuffle": lambda x: tf.random.shuffle(tf.range(12)),
    "shuffle of strings": lambda x: tf.random.shuffle(tf.strings.as_string(tf.range(9))),
    "shuffle of rows": lambda x: tf.random.shuffle(tf.reshape(tf.range(24), [8, 3])),
    "shuffle of an unknown shape": lambda x: tf.random.shuffle(
        tf.reshape(tf.range(12), tf.random.uniform([2], 1, 2, tf.int32) * [12, 1])
    ),
    "a box": lambda x: tf.image.sample_distorted_bounding_box([99, 99, 3], BOXES),
    "a box as it was": lambda x: tf.raw_ops.SampleDistortedBoundingBox(
        image_size=[99, 99, 3], bounding_boxes=BOXES
    ),
}
#: What has a state that cannot be keyed.
REST: dict[str, Any] = {
    "candidates": lambda x: tf.random.uniform_candidate_sampler([[1]], 1, 3, False, 100)[0],
    "unigrams": lambda x: tf.random.fixed_unigram_candidate_sampler(
        [[1]], 1, 2, False, 3, unigrams=[0.2, 0.3, 0.5]
    )[0],
}


@pytest.mark.parametrize("name", [n for n in dir(tf.image) if n.startswith("random_")])
def test_every_random_op_of_images_is_reproducible(name: str) -> None:
    check(IMAGE[name])


@pytest.mark.parametrize("name", DRAWS)
def test_every_random_op_is_reproducible(name: str) -> None:
    check(DRAWS[name])


def check(draw: Any) -> None:
    """Same for the same key, whatever runs at once; another one for another key."""
    stream = reproducible(Dataset.range(N).map(draw))
    once = drawn(stream, 1)
    assert len(once) == 10
    assert once == drawn(stream, 1)
    assert once == drawn(reproducible(Dataset.range(N).map(draw, num_parallel_calls=4)), 1)
    assert len(set(map(repr, once))) > 1
    for other in ({"split": 2}, {"epoch": 1}, {"seed": 2}):
        assert once != drawn(stream, **{"split": 1, **other})


@pytest.mark.parametrize("name", [*IMAGE, *DRAWS])
def test_elements_are_what_a_local_run_could_draw(name: str) -> None:
    ds = Dataset.range(N).map({**IMAGE, **DRAWS}[name])
    (local,) = [e for e in ds.take(1)]
    dataset = reproducible(ds).split_dataset(0, seed=1, epoch=0)
    for element in dataset:
        for part, like in zip(element, tf.nest.flatten(local), strict=True):
            assert part.dtype == like.dtype
            assert part.shape.rank == like.shape.rank
            if "drawn shape" not in name and "unknown shape" not in name:
                assert part.shape == like.shape


@pytest.mark.parametrize("name", REST)
def test_what_cannot_be_keyed_is_named_and_refused_if_strict(name: str) -> None:
    ds = Dataset.range(N).map(lambda x: (REST[name](x), tf.random.uniform([])))
    plan = analyse(ds)
    assert not plan.streams[0].replayable
    assert said(plan, "random") == [("map_lambda", "RandomUniform")]
    assert [where for where, _ in said(plan, "replay")] == ["map_lambda"]
    with pytest.raises(NotShippableError, match="CandidateSampler"):
        analyse(ds, strict=True)


def test_a_generator_object_is_named() -> None:
    generator = tf.random.Generator.from_seed(3)
    plan = analyse(Dataset.range(N).map(lambda x: generator.normal([])))
    assert not plan.streams[0].replayable
    assert said(plan, "replay")


def test_stateless_ops_are_left_alone() -> None:
    ds = Dataset.range(N).map(lambda x: tf.random.stateless_uniform([], [x, 3]))
    plan = analyse(ds)
    assert not said(plan, "random")
    got = elements(load_stream(plan.streams[0].blob).split_dataset(0, seed=1, epoch=5))
    assert got == elements(ds.map(lambda x: (x,)).take(10))


def test_what_is_drawn_is_what_its_key_says() -> None:
    def draw(x: Any) -> Any:
        return tf.random.uniform([4]), tf.random.normal([2], dtype=tf.float64)

    dataset = reproducible(Dataset.range(N).map(draw)).split_dataset(7, seed=3, epoch=2)
    for number, (flat, normal) in enumerate(dataset.as_numpy_iterator()):
        keys = [seeds.derive("draw", 3, 2, 7, op) for op in range(2)]
        one, two = ([first, second ^ number] for first, second in keys)
        want = tf.raw_ops.StatelessRandomUniform(shape=[4], seed=one)
        assert flat.tolist() == want.numpy().tolist()
        want = tf.raw_ops.StatelessRandomNormal(shape=[2], seed=two, dtype=tf.float64)
        assert normal.tolist() == want.numpy().tolist()


def test_shuffling_keeps_rows_and_scalars_as_they_are() -> None:
    def draw(x: Any) -> Any:
        rows = tf.reshape(tf.range(30), [10, 3])
        return (
            tf.random.shuffle(rows),
            tf.random.shuffle(tf.constant(5)),
            tf.random.shuffle([0][:0]),
        )

    for rows, scalar, empty in reproducible(Dataset.range(N).map(draw)).split_dataset(
        0, seed=1, epoch=0
    ):
        assert sorted(rows.numpy().tolist()) == np.arange(30).reshape(10, 3).tolist()
        assert (int(scalar), empty.shape) == (5, (0,))


def test_ops_with_the_same_seeds_of_the_user_draw_the_same_as_in_a_local_run() -> None:
    def flipped(x: Any) -> Any:
        return tf.image.random_flip_left_right(image(x), seed=4)

    one, called = Dataset.range(N).map(flipped), tf.function(flipped)
    for ds in (
        Dataset.zip((one, one)),
        Dataset.range(N).map(lambda x: (flipped(x), flipped(x))),
        Dataset.range(N).map(lambda x: (called(x), flipped(x))),
    ):
        pairs = [(a.numpy().tolist(), b.numpy().tolist()) for a, b in ds]
        assert all(a == b for a, b in pairs)
        flips = drawn(reproducible(ds))
        assert all(a == b for a, b in flips)
        assert flips != drawn(reproducible(ds), epoch=1)


def test_a_seed_for_all_does_not_tie_a_branch_to_what_chose_it() -> None:
    """With tf.random.set_seed, the first op of each function gets the same seeds."""

    def draw(x: Any) -> Any:
        chosen = tf.random.uniform([])
        other = tf.cond(chosen < 2, lambda: tf.random.uniform([]), lambda: 0.0)
        return chosen, other, tf.map_fn(lambda y: tf.random.uniform([]), tf.zeros([1]))[0]

    tf.random.set_seed(42)
    try:
        ds = Dataset.range(N).map(draw)
    finally:
        tf.random.set_seed(None)
    assert all(len(set(row)) == 3 for row in numbers(reproducible(ds)))


@pytest.fixture
def few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_SPLITS", 2)


def chi_square(counts: Any) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def assert_independent(one: Any, other: Any) -> None:
    """Two sequences of uniform numbers fill the unit square evenly (p > 0.0001, 63 degrees)."""
    counts, _, _ = np.histogram2d(one, other, bins=8, range=[[0, 1], [0, 1]])
    assert chi_square(counts) < 114


@pytest.mark.usefixtures("few_splits")
def test_numbers_are_uniform_and_independent_in_every_direction() -> None:
    ds = Dataset.range(8000).map(lambda x: (tf.random.uniform([]), tf.random.uniform([])))
    stream = reproducible(ds)
    one, two = numbers(stream).T
    assert len(one) == 4000
    counts, _ = np.histogram(one, bins=64, range=(0, 1))
    assert chi_square(counts) < 114
    steps = np.sort(one)
    assert np.abs(steps - np.arange(4000) / 4000).max() * np.sqrt(4000) < 2.2  # Kolmogorov-Smirnov
    assert_independent(one[:-1], one[1:])
    assert_independent(one, two)
    for other in ({"epoch": 1}, {"seed": 2}, {"split": 1}):
        assert_independent(one, numbers(stream, **other)[:, 0])
    everything = [numbers(stream, k, epoch=e).ravel() for k in range(2) for e in range(2)]
    assert (
        len(np.unique(np.concatenate(everything).astype(np.float64))) > 31800
    )  # of 32000, float32


@pytest.mark.usefixtures("few_splits")
def test_other_distributions_have_their_moments() -> None:
    def draw(x: Any) -> Any:
        shuffled = tf.random.shuffle(tf.range(5))
        return (
            tf.random.normal([]),
            tf.random.gamma([], 3.0),
            tf.random.poisson([], 4.0),
            tf.cast(tf.random.categorical([[0.0, 0.0]], 1)[0, 0], tf.float32),
            tf.cast(shuffled[0], tf.float32),
        )

    found = numbers(reproducible(Dataset.range(8000).map(draw)))
    wanted = [(0, 1), (3, 3), (4, 4), (0.5, 0.25), (2, 2)]
    for column, (mean, variance) in zip(found.T, wanted, strict=True):
        assert abs(column.mean() - mean) < 4 * np.sqrt(variance / len(column))
        assert abs(column.var() / variance - 1) < 0.15
