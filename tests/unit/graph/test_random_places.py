"""Random ops draw the same again wherever they are: datasets, branches, loops, cache points."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from penstock.errors import NotShippableError
from penstock.graph import analyse, load_stream
from penstock.worker.checkpoint_file import Layout
from penstock.worker.iterators import Source

from . import random_recipe
from .caches import got, put
from .draws import KEY, drawn, numbers, reproducible, said
from .random_recipe import elements, exact

if TYPE_CHECKING:
    from pathlib import Path

Dataset = tf.data.Dataset
N = 640


def uniform(*_: Any) -> Any:
    return tf.random.uniform([])


def kept(*_: Any) -> Any:
    return tf.random.uniform([]) < 0.6


def several(x: Any) -> Any:
    return Dataset.range(3).map(lambda y: (x, y, tf.random.uniform([])))


def nested(x: Any) -> Any:
    return Dataset.range(2).flat_map(several).filter(kept)


def branches(x: Any) -> Any:
    inner = tf.cond(kept(), uniform, lambda: 2.0)
    return tf.cond(x % 2 == 0, lambda: inner + uniform(), lambda: tf.random.normal([]))


def cases(x: Any) -> Any:
    return tf.switch_case(tf.cast(x % 3, tf.int32), [uniform, lambda: 5.0, branches_of(x)])


def branches_of(x: Any) -> Any:
    return lambda: branches(x)


def turns(x: Any) -> Any:
    """As many numbers as another one says, from loops within a loop."""

    def turn(k: Any, made: Any) -> Any:
        row = tf.map_fn(uniform, tf.range(2), fn_output_signature=tf.float32)
        return k + 1, tf.concat([made, row], 0)

    shapes = tf.TensorShape([]), tf.TensorShape([None])
    first = (0, tf.zeros([0]))
    return tf.while_loop(lambda k, made: kept() | (k < 3), turn, first, shape_invariants=shapes)[1]


def called(x: Any) -> Any:
    return inner_call(), inner_call()


@tf.function
def inner_call() -> Any:
    return tf.random.uniform([]) + innermost_call() + innermost_call()


@tf.function
def innermost_call() -> Any:
    return tf.random.normal([])


def scanned(state: Any, x: Any) -> Any:
    state = state + tf.random.uniform([])
    return state, (x, state)


numbers_of = Dataset.range(N)
words = Dataset.from_tensor_slices([b"a", b"bc", b"", b"def"] * 160)
rows = Dataset.from_tensor_slices(
    {"v": tf.random.stateless_normal([N, 4], [1, 2]), "s": [b"x"] * N}
)
captured = tf.constant(7.0)
drawing = Dataset.range(2).map(uniform)

PLACES: dict[str, Any] = {
    "map": numbers_of.map(uniform),
    "parallel map": numbers_of.map(uniform, num_parallel_calls=3),
    "two maps": numbers_of.map(lambda x: (x, uniform())).map(lambda x, y: (x, y, uniform())),
    "map of vectors": rows.map(lambda row: {**row, "r": row["v"] * uniform()}),
    "map of strings": words.map(lambda s: (s, tf.strings.as_string(uniform()))),
    "map with what it captures": numbers_of.map(lambda x: uniform() * captured),
    "filter": numbers_of.filter(kept),
    "filter of strings": words.filter(kept).map(lambda s: (s, uniform())),
    "filter of rows": rows.filter(kept),
    "flat_map": numbers_of.flat_map(several),
    "flat_map twice": numbers_of.flat_map(nested),
    "flat_map of a drawn tensor": numbers_of.flat_map(
        lambda x: Dataset.from_tensors(tf.random.uniform([2])).repeat(2)
    ),
    "interleave": numbers_of.interleave(several, cycle_length=2),
    "parallel interleave": numbers_of.interleave(several, cycle_length=2, num_parallel_calls=2),
    "shuffle between": numbers_of.map(lambda x: (x, uniform())).shuffle(5).filter(kept),
    "batches": numbers_of.map(uniform).batch(2).map(lambda b: b + tf.random.uniform([2])),
    "unbatched": numbers_of.map(lambda x: tf.random.uniform([3])).unbatch().map(
        lambda x: x + uniform()
    ),
    "zip": Dataset.zip((numbers_of.map(uniform), numbers_of.map(uniform))),
    "reduce": numbers_of.map(
        lambda x: Dataset.range(3).reduce(0.0, lambda s, y: s + tf.random.uniform([]))
    ),
    "ragged": numbers_of.map(lambda x: tf.RaggedTensor.from_row_lengths(
        tf.random.uniform([4]), [1, 3]
    )),
    "branches": numbers_of.map(branches),
    "cases": numbers_of.map(cases),
    "loops": numbers_of.map(turns),
    "called functions": numbers_of.map(called),
    "scan on one worker": Dataset.random(seed=3).take(20).scan(0.0, scanned),
    "the recipe": random_recipe.make(3),
}  # fmt: skip
places = pytest.mark.parametrize("name", PLACES)


@places
def test_the_same_again_and_something_else_for_another_key(name: str) -> None:
    stream = reproducible(PLACES[name])
    at = stream.num_splits - 1
    once = drawn(stream, at)
    assert once
    assert once == drawn(load_stream(analyse(PLACES[name]).streams[0].blob), at)
    assert once != drawn(stream, at, epoch=1)
    assert once != drawn(stream, at, seed=2)
    if at:
        assert once != drawn(stream, 0)


# TensorFlow does not save the iterator of a function with a reduce in it.
@pytest.mark.parametrize("name", [name for name in PLACES if name != "reduce"])
def test_a_saved_iterator_goes_on_with_the_same_numbers(name: str) -> None:
    stream = reproducible(PLACES[name])
    want = drawn(stream)
    for count in range(0, min(len(want), 20) + 1, 3):
        source = Source(stream.split_dataset(0, **KEY), Layout("collected"))
        iterator = iter(source)
        first = [as_exact(next(iterator)) for _ in range(count)]
        again = Source(stream.split_dataset(0, **KEY), Layout("collected"))
        again.restore(source.capture())
        assert first + [as_exact(element) for element in again] == want


def as_exact(element: Any) -> Any:
    return tuple(exact(part.numpy()) for part in element)


def test_another_process_with_fewer_threads_draws_the_same(tmp_path: Path) -> None:
    plan = analyse(random_recipe.make())
    blob = tmp_path / "blob"
    blob.write_bytes(plan.streams[0].blob)
    made = subprocess.run(
        [sys.executable, random_recipe.__file__, str(blob)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    fingerprint, *splits = made.stdout.splitlines()
    assert fingerprint == plan.fingerprint
    parallel = load_stream(analyse(random_recipe.make(4)).streams[0].blob)
    for split, line in zip((0, 9), splits, strict=True):
        want = ast.literal_eval(line)
        assert len(want) > 15
        assert drawn(load_stream(plan.streams[0].blob), split, seed=11, epoch=3) == want
        assert drawn(parallel, split, seed=11, epoch=3) == want


def test_no_number_comes_twice() -> None:
    """Not in another element, op, branch, turn, call, nor in a dataset of another element."""

    def everything(x: Any) -> Any:
        twice = Dataset.range(2).map(lambda y: (turns(x), turns(y)))
        return twice.map(lambda a, b: (a[:6], b[:6], tf.stack([*called(x), uniform()])))

    stream = reproducible(
        numbers_of.flat_map(everything).map(lambda a, b, c: tf.concat([a, b, c], 0))
    )
    found = Counter(
        float(value)
        for split in (0, 1)
        for epoch in (0, 1)
        for (element,) in stream.split_dataset(split, seed=1, epoch=epoch).as_numpy_iterator()
        for value in element
    )
    assert found.total() == 80 * 15
    assert len(found) > found.total() - 3  # of 2**23 numbers, some meet by chance


def test_a_filter_hands_on_what_a_local_one_would() -> None:
    stream = reproducible(rows.filter(kept))
    local = {exact(row["v"].numpy()) for row in rows}
    found = [vector for split in range(64) for _, vector in drawn(stream, split)]
    assert set(found) <= local
    assert 0.5 * N < len(found) == len(set(found)) < 0.7 * N
    assert [c.shape for c in stream.components] == [(), (4,)]


def test_the_plan_says_what_was_made_reproducible() -> None:
    plan = analyse(numbers_of.map(lambda x: branches(x) + uniform(x)).filter(kept))
    assert set(said(plan, "random")) == {
        ("map_lambda", "RandomUniform"),
        ("cond_true", "RandomUniform"),
        ("cond_1_true", "RandomUniform"),
        ("cond_1_false", "RandomStandardNormal"),
        ("filter_kept", "RandomUniform"),
    }
    assert not said(plan, "replay")
    assert all("made reproducible" in note.text for note in plan.notes if note.kind == "random")


@pytest.mark.parametrize(
    "ds",
    [
        numbers_of.flat_map(lambda x: Dataset.range(2).map(uniform).repeat(2)),
        numbers_of.flat_map(lambda x: drawing),
    ],
    ids=["repeated", "captured"],
)
def test_what_runs_more_than_once_for_an_element_keeps_its_warning(ds: Any) -> None:
    plan = analyse(ds)
    assert not plan.streams[0].replayable
    assert [where for where, _ in said(plan, "replay")] == ["map_uniform"]
    assert not said(plan, "random")
    with pytest.raises(NotShippableError, match="RandomUniform"):
        analyse(ds, strict=True)


def test_below_a_cache_point_all_epochs_and_jobs_draw_the_same() -> None:
    ds = numbers_of.map(lambda x: (x, uniform())).cache().map(lambda x, y: (x, y, uniform()))
    plan = analyse(ds)
    assert not [note for note in plan.notes if "one run" in note.text]
    stream = reproducible(ds)
    one, two = numbers(stream, 3), numbers(stream, 3, seed=8, epoch=5)
    assert one[:, :2].tolist() == two[:, :2].tolist()
    assert not set(one[:, 2]) & set(two[:, 2])
    assert not set(one[:, 1]) & set(one[:, 2])
    assert one[:, 1].tolist() != numbers(stream, 4)[:, 1].tolist()


def test_what_is_cached_makes_what_the_whole_stream_would() -> None:
    ds = numbers_of.map(lambda x: (x, uniform())).cache().filter(kept).flat_map(
        lambda x, y: several(x)
    )  # fmt: skip
    stream = reproducible(ds)
    dataset, segment = put(stream, 3, **KEY)
    want = drawn(stream, 3)
    assert elements(dataset) == want
    plain = [tuple(part.numpy().tolist() for part in e) for e in stream.split_dataset(3, **KEY)]
    assert got(stream, 3, segment, **KEY) == plain
    assert got(stream, 3, segment, seed=9, epoch=9) != plain


def test_a_point_that_is_found_stays_below_what_differs_in_each_epoch() -> None:
    plan = analyse(numbers_of.map(lambda x: x + 1).map(uniform), cache=True)
    assert plan.streams[0].cache is not None
    assert not plan.streams[0].cache.whole


def test_random_ops_do_not_change_how_a_source_is_permuted() -> None:
    ds = numbers_of.shuffle(9, reshuffle_each_iteration=False)
    plain, stream = load_stream(analyse(ds).streams[0].blob), reproducible(
        ds.map(lambda x: (x, uniform()))
    )  # fmt: skip
    for epoch in (0, 4):
        order = [int(x) for (x,) in plain.split_dataset(2, seed=1, epoch=epoch).as_numpy_iterator()]
        assert numbers(stream, 2, epoch=epoch)[:, 0].tolist() == order
