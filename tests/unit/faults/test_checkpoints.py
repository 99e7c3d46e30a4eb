"""Which checkpoints can be used, and whether a split that was restored made too much again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.faults.checkpoints import Attempt, Kept, Usable, kept_in, passed, replay_problems
from penstock.worker.checkpoint_file import Checkpoint, Header, Layout
from penstock.worker.checkpoints import CheckpointStore
from penstock.worker.messages import Key


def kept(split: int, *elements: int, place: str = "a") -> list[Kept]:
    return [Kept(place, 1, split, each) for each in elements]


def attempt(restored: int, recomputed: int, split: int = 0) -> Attempt:
    return Attempt(1, split, "w1", restored, recomputed)


def test_what_workers_have_is_read_from_their_disks(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "host:1", "2.20")
    for epoch, split, elements in ((0, 1, 5), (1, 2, 7), (1, 2, 9)):
        header = Header(Key("d", 3, epoch, split), elements, Layout("stacked", 4), "2.20", "")
        assert store.write(Checkpoint(header, np.zeros(elements, np.uint64), b"state"))
    (store.directory / "broken.checkpoint").write_bytes(b"nothing of ours")
    (store.directory / "other.checkpoint.tmp").write_bytes(b"unfinished")
    assert sorted(kept_in(tmp_path, 1), key=lambda one: one.elements) == [
        Kept("host_1", 1, 2, 7),
        Kept("host_1", 1, 2, 9),
    ]
    assert kept_in(tmp_path / "nowhere", 1) == []


def test_lanes_take_turns_so_every_split_has_delivered_the_same() -> None:
    assert passed(39, splits=10, block=4) == 0
    assert passed(40, splits=10, block=4) == 4
    assert passed(799, splits=10, block=4) == 76


def test_a_checkpoint_before_what_was_delivered_can_be_used() -> None:
    assert Usable().look(kept(0, 20, 40), delivered=19) == set()
    assert Usable().look(kept(0, 20, 40), delivered=20) == {"a"}


def test_where_an_older_checkpoint_was_removed_the_oldest_can_be_used() -> None:
    usable = Usable()
    everything = kept(0, 20, 40) + kept(1, 20, place="b")
    assert usable.look(everything) == set()
    assert usable.look(everything + kept(0, 60)) == set()
    assert usable.look(kept(0, 40, 60) + kept(1, 20, place="b")) == {"a"}
    assert usable.look(kept(0, 40, 60) + kept(1, 40, place="b")) == {"a", "b"}


def test_a_split_that_begins_at_the_newest_usable_checkpoint_is_right() -> None:
    held = kept(0, 20, 40, 60) + kept(1, 80)
    assert replay_problems([attempt(40, 0), attempt(40, 19), attempt(60, 50)], held) == []


@pytest.mark.parametrize("begun", [attempt(20, 20), attempt(20, 39), attempt(0, 41)])
def test_a_split_that_begins_before_it_has_made_too_much_again(begun: Attempt) -> None:
    (problem,) = replay_problems([begun], kept(0, 20, 40, 60))
    assert "split 0" in problem
    assert "a checkpoint at 40" in problem


def test_a_split_without_a_usable_checkpoint_begins_at_its_beginning() -> None:
    assert replay_problems([attempt(0, 19), attempt(0, 0)], kept(0, 20) + kept(1, 10)) == []
