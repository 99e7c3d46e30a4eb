"""Runs with the cache: what is put is what is got, and nothing that goes wrong costs an element."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from penstock.worker import rate
from penstock.worker.messages import AttemptError
from penstock.worker.pieces import SegmentPiece

from .cached_kit import ALL, WHOLE, Bench, FakeOutlet


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(dataset: Any, **more: Any) -> Bench:
        made.append(Bench(tmp_path / str(len(made)), dataset, **more))
        return made[-1]

    yield bench
    for one in made:
        one.close()


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_is_got_is_what_was_put_is_what_is_computed(
    name: str, make: Callable[..., Bench]
) -> None:
    bench = make(ALL[name])
    put, got = FakeOutlet(), FakeOutlet()
    first = bench.run(put, 3)
    bench.committed()
    second = bench.run(got, 3, epoch=1)
    assert put.elements() == bench.truth(3)
    assert got.elements() == bench.truth(3, epoch=1)
    assert first is not None
    assert second is not None
    assert second.count == len(got.elements())
    assert (put.cached_as, got.cached_as) == (None, name.startswith("whole"))


def test_a_whole_split_is_sent_from_its_file_under_new_numbers(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["wide"])
    bench.run(FakeOutlet(), 1)
    bench.committed()
    got = FakeOutlet()
    bench.run(got, 1, epoch=4)
    assert len(got.pieces) > 1
    for piece in got.pieces:
        assert isinstance(piece, SegmentPiece)
        assert piece.stored is not None
        assert piece.memory == 0
        assert {key: piece.header[key] for key in ("attempt", "epoch", "split")} == {
            "attempt": 7,
            "epoch": 4,
            "split": 1,
        }


def test_getting_begins_with_the_frame_that_holds_what_is_wanted(
    make: Callable[..., Bench],
) -> None:
    bench = make(WHOLE["wide"])
    digest = bench.run(FakeOutlet(), 1)
    bench.committed()
    truth = bench.truth(1)
    whole = FakeOutlet()
    bench.run(whole, 1)
    middle = whole.pieces[1].start + 1
    got = FakeOutlet(wanted=middle)
    assert bench.run(got, 1) == digest
    assert got.first == whole.pieces[1].start
    assert got.elements() == truth[got.first :]
    end = FakeOutlet(wanted=len(truth))
    assert bench.run(end, 1) == digest
    assert (end.first, end.pieces) == (len(truth), [])


@pytest.mark.parametrize("name", ["whole-wide", "tail-wide"])
def test_the_rest_of_a_damaged_segment_is_made_as_if_there_were_none(
    name: str, make: Callable[..., Bench]
) -> None:
    bench = make(ALL[name])
    bench.run(FakeOutlet(), 2)
    (path,) = bench.committed()
    with path.open("r+b") as file:  # in the last frame: those before it are served
        file.seek(path.stat().st_size * 9 // 10)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    got = FakeOutlet()
    digest = bench.run(got, 2)
    assert got.elements() == bench.truth(2)
    assert digest is not None
    assert digest.count == len(bench.truth(2))
    if name == "whole-wide":
        assert isinstance(got.pieces[0], SegmentPiece)
        assert not isinstance(got.pieces[-1], SegmentPiece)
    assert bench.left("damaged") != []
    assert bench.segments() == []
    again = FakeOutlet()
    bench.run(again, 2)
    bench.committed()
    assert again.elements() == bench.truth(2)


def test_no_flipped_bit_gets_out(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["strings"])
    bench.run(FakeOutlet(), 2)
    (path,) = bench.committed()
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        got = FakeOutlet()
        bench.run(got, 2)
        assert got.elements() == bench.truth(2)
        bench.committed()


@pytest.mark.parametrize("how", ["truncated", "foreign", "empty"])
def test_a_file_that_is_no_segment_is_set_aside_and_made_again(
    how: str, make: Callable[..., Bench]
) -> None:
    bench = make(WHOLE["numbers"])
    bench.run(FakeOutlet(), 2)
    bench.run(FakeOutlet(), 3)
    other, path = bench.committed(2)
    if how == "truncated":
        os.truncate(path, path.stat().st_size - 100)
    else:
        path.unlink()
        path.write_bytes(other.read_bytes() if how == "foreign" else b"")
    split = int(path.name.split("-")[0])
    got = FakeOutlet()
    bench.run(got, split)
    assert got.elements() == bench.truth(split)
    assert bench.left("damaged") != []
    bench.committed(2)


def test_a_removed_segment_is_made_again(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["numbers"])
    bench.run(FakeOutlet(), 2)
    bench.committed()[0].unlink()
    got = FakeOutlet()
    bench.run(got, 2)
    assert got.elements() == bench.truth(2)
    bench.committed()


def test_a_job_that_only_puts_does_not_get(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["numbers"])
    for _ in range(2):
        outlet = FakeOutlet()
        bench.run(outlet, mode="put")
        assert outlet.cached_as is None
        bench.committed()


def test_a_run_that_is_stopped_leaves_nothing(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["wide"])
    assert bench.run(FakeOutlet(stop_after=1)) is None
    assert (bench.left("partial"), bench.segments()) == ([], [])


@pytest.mark.parametrize("name", ["whole-wide", "tail-wide", "tail-shuffled", "whole-varying"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_run_goes_on_putting_where_its_checkpoint_was(
    name: str, pieces: int, make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "TARGET_BYTES", 1)  # a batch a piece
    monkeypatch.setattr(rate, "_FIRST_BATCH", 2)
    bench = make(ALL[name])
    died = FakeOutlet(stop_after=pieces)

    def have_it_written(_: int) -> None:
        while bench.keeper._jobs or bench.keeper._saving:  # a checkpoint at each piece
            pass

    died.after_piece = have_it_written
    bench.cache.leaving = True
    assert bench.run(died, interval="0.000001") is None
    bench.die()
    client = FakeOutlet(wanted=died.pieces[-1].stop if died.pieces else 0)
    digest = bench.run(client, interval="0.000001")
    truth = bench.truth()
    assert client.elements() == truth[client.first :]
    assert digest is not None
    assert digest.count == len(truth)
    if client.first and name.startswith("whole"):
        assert len(bench.committed()) == 1
    assert bench.left("partial") == []
    got = FakeOutlet()
    bench.run(got, epoch=1)
    assert got.elements() == bench.truth(epoch=1)


def test_a_partial_segment_without_a_checkpoint_is_begun_anew(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["wide"])
    bench.cache.leaving = True
    assert bench.run(FakeOutlet(stop_after=1)) is None
    assert bench.left("partial") != []
    bench.die()
    outlet = FakeOutlet()
    bench.run(outlet)
    bench.committed()
    assert outlet.elements() == bench.truth()
    assert bench.left("partial") == []


@pytest.mark.parametrize("name", ["whole-wide", "tail-wide"])
def test_a_full_cache_costs_no_element(name: str, make: Callable[..., Bench]) -> None:
    bench = make(ALL[name], limit=1 << 20)
    outlet = FakeOutlet()
    assert bench.run(outlet) is not None
    assert outlet.elements() == bench.truth()
    assert (bench.segments(), bench.left("partial")) == ([], [])


def test_a_pipeline_that_fails_fails_with_its_own_error(make: Callable[..., Bench]) -> None:
    def fragile(x: Any) -> Any:
        tf.debugging.assert_less(x, tf.constant(20, tf.int64), "too large")
        return x

    bench = make(tf.data.Dataset.range(640).map(fragile).cache().map(lambda x: x + 1))
    with pytest.raises(AttemptError, match="too large"):
        bench.run(FakeOutlet(), 3)
    assert (bench.segments(), bench.left("partial")) == ([], [])


def test_the_second_trial_does_not_put(make: Callable[..., Bench]) -> None:
    bench = make(WHOLE["numbers"])
    outlet = FakeOutlet()
    bench.run(outlet, trial=2)
    assert outlet.elements() == bench.truth()
    assert bench.segments() == []


def test_a_split_whose_file_changes_is_cached_anew(
    make: Callable[..., Bench], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{number}:{line}\n" for line in range(50)))
    bench = make(tf.data.TextLineDataset([str(path) for path in paths]).cache())
    bench.run(FakeOutlet(), 1)
    bench.committed()
    paths[1].write_text("changed\n")
    got = FakeOutlet()
    bench.run(got, 1)
    assert got.elements() == [(b"changed",)]
    assert got.cached_as is None
    bench.committed(2)  # the old one goes when its place is needed
    paths[1].unlink()
    with pytest.raises(AttemptError):
        bench.run(FakeOutlet(), 1)


@pytest.mark.parametrize("name", ["whole-wide", "tail-wide"])
def test_the_costs_of_the_first_splits_are_measured(name: str, make: Callable[..., Bench]) -> None:
    bench = make(ALL[name])
    bench.run(FakeOutlet(), mode="measure")
    bench.close()  # waits for what is finished in the background
    (measure,) = bench.cache._measures
    bench.cache = bench._open()
    assert measure.elements == len(bench.truth())
    assert measure.nbytes > 1 << 20
    assert measure.produce_us > 0
    assert measure.write_us > 0
    assert measure.read_us > 0
    got = FakeOutlet()
    bench.run(got, mode="measure")  # reads it
    assert got.cached_as is not None
