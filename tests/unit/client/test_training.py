"""The audit of several lives of several consumers: what the training saw, by commits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from penstock.client.audit import AuditReport, audit
from penstock.client.events import Piece
from penstock.client.ledger import Ledger
from penstock.client.training import sequence
from penstock.proto.hashing import DigestBuilder

from .groups import Data, Group, Recorder

DATA = Data(sizes=(5, 0, 7, 3, 1, 6, 0, 2, 9, 4, 4, 8, 1), lanes=4)


def truth(data: Data = DATA) -> list[int]:
    """The hash of every element of an epoch."""
    chunks = [data.chunk(split, 0, size) for split, size in enumerate(data.sizes) if size]
    return [int(value) for chunk in chunks for value in chunk.hashes]


def wrong(report: AuditReport) -> dict[str, int]:
    names = ("lost", "duplicated", "unexpected", "altered", "reordered")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def trained(group: Group) -> Group:
    """Two epochs of a training that is resized twice, and dies with something uncommitted."""
    for world in (2, 3, 1):
        if group.world != world:
            group.resize(world)
        for rank in range(group.world):
            for taken, committed in ((7, 5), (9, 9)):
                life = group.life(rank)
                life.take(taken)
                group.commit(rank, life, committed)
                life.take(3)  # and dies
    group.finish(2)
    return group


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path)
    yield made
    made.close()


@pytest.fixture
def group(recorder: Recorder) -> Group:
    return Group(DATA, 2, recorder=recorder)


def test_what_was_trained_over_lives_and_resizes_is_every_element_once(
    group: Group, tmp_path: Path
) -> None:
    trained(group)
    for expected in (None, truth()):
        report = audit(tmp_path, expected)
        assert report.clean, report
        first, second = report.trainings[:2]
        assert (first.training, first.epoch, first.over, first.elements) == ("train", 0, True, 50)
        assert (second.epoch, second.over, second.elements) == (1, True, 50)
        assert first.lives > 6
    digest = DigestBuilder()
    digest.update(np.array(truth(), np.uint64))
    assert audit(tmp_path, digest.digest()).clean


def test_an_epoch_under_way_lacks_nothing_yet(group: Group, tmp_path: Path) -> None:
    life = group.life(0)
    life.take(12)
    group.commit(0, life, 10)
    report = audit(tmp_path, truth())
    assert report.clean
    (only,) = report.trainings
    assert (only.over, only.elements) == (False, 10)


def test_a_training_of_which_nothing_is_held_safe_yet_is_clean(
    group: Group, tmp_path: Path
) -> None:
    life = group.life(0)
    life.take(12)
    life.commit(8, done=False)
    report = audit(tmp_path, truth())
    assert report.clean
    assert [(t.over, t.elements) for t in report.trainings] == [(False, 0)]


def test_a_commit_that_was_lost_shows_as_loss(group: Group, tmp_path: Path) -> None:
    life = group.life(0)
    life.take(12)
    kept = life.commit(4)
    life.commit(11)
    group.committed[0] = kept  # of 11 acknowledged ones the next generation knows 4
    group.resize(1)
    group.finish(1)
    assert wrong(audit(tmp_path)) == {"duplicated": 7}


def test_a_resize_beyond_the_commits_shows_as_loss(group: Group, tmp_path: Path) -> None:
    life = group.life(0)
    life.take(12)
    life.commit(8)
    group.committed[0] = life.position(12)  # never committed
    group.resize(1)
    group.finish(1)
    assert wrong(audit(tmp_path)) == {"lost": 4}


@pytest.mark.parametrize("known", [True, False])
def test_a_commit_without_an_answer_counts_if_the_next_life_goes_on_there(
    group: Group, tmp_path: Path, known: bool
) -> None:
    life = group.life(0)
    life.take(12)
    group.commit(0, life, 3)
    asked = life.commit(11, done=False)
    if known:
        group.committed[0] = asked
    group.resize(1)
    group.finish(1)
    report = audit(tmp_path, truth())
    assert report.clean, wrong(report)
    assert report.trainings[0].elements == 50


def test_a_life_that_goes_back_to_an_older_checkpoint_is_no_repetition(
    group: Group, tmp_path: Path
) -> None:
    life = group.life(0)
    life.take(12)
    older = life.commit(4)
    life.commit(12)
    group.committed[0] = older
    group.finish(1)
    assert audit(tmp_path, truth()).clean


def test_unnamed_jobs_are_one_training_only_where_one_goes_on_with_the_other(
    tmp_path: Path,
) -> None:
    recorder = Recorder(tmp_path, name="")
    group = Group(DATA, 1, recorder=recorder)
    first = group.life(0)
    first.take(12)
    first.commit(9)
    second = group.life(0)  # from the beginning, as a job of its own
    second.take(20)
    group.commit(0, second, 15)
    group.finish(1)  # goes on with the second
    report = audit(tmp_path, truth())
    recorder.close()
    assert report.clean, report.trainings
    assert [(t.lives, t.elements) for t in report.trainings if t.epoch == 0] == [(1, 9), (2, 50)]


def test_a_life_that_begins_anew_after_commits_repeats(group: Group, tmp_path: Path) -> None:
    life = group.life(0)
    life.take(12)
    life.commit(9)
    group.finish(1)  # which knows of no commit
    assert wrong(audit(tmp_path)) == {"duplicated": 9}


def test_a_file_that_was_lost_shows_as_loss(group: Group, tmp_path: Path) -> None:
    trained(group)
    (tmp_path / "j-c002.ledger").unlink()
    report = audit(tmp_path)
    assert report.lost > 0
    assert not report.clean


def test_other_bytes_than_in_a_former_life_are_altered(recorder: Recorder, tmp_path: Path) -> None:
    group = Group(DATA, 1, recorder=recorder)
    life = group.life(0)
    life.take(9)
    life.commit(0)  # which makes them durable there
    group.data = Data(DATA.sizes, DATA.lanes, shift=50)
    group.finish(1)
    assert wrong(audit(tmp_path)) == {"altered": 9}


def test_what_is_trained_out_of_order_is_counted(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, chance = Ledger.record, random.Random(1)

    def mixed(ledger: Ledger, stream: int, epoch: int, pieces: Sequence[Piece]) -> None:
        record(ledger, stream, epoch, chance.sample(pieces, len(pieces)))

    monkeypatch.setattr(Ledger, "record", mixed)
    group = Group(DATA, 1, recorder=recorder)
    group.finish(1)
    (training,) = audit(tmp_path, truth()).trainings
    assert training.reordered > 0
    assert (training.lost, training.duplicated, training.unexpected, training.altered) == (0,) * 4


def test_the_order_of_an_epoch_is_a_block_of_each_lane_in_turn() -> None:
    counts = {0: 3, 1: 1, 2: 0, 3: 4}
    dealt = [[0, 2, 1], [3], []]
    assert list(sequence(dealt, counts, 2)) == [
        *((0, 0), (0, 1), (3, 0), (3, 1)),
        *((0, 2), (1, 0), (3, 2), (3, 3)),
    ]
