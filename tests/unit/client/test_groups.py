"""G2 with several consumers: resized at any committed positions, every element is trained once."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import PositionError
from penstock.proto.position import Consumer, Position
from penstock.proto.seats import LANES_MAX, GroupPosition, regrouped

from .groups import Data, Element, Group, Life, expected

DATA = Data(sizes=(5, 0, 7, 3, 1, 6, 0, 2, 9, 4, 4, 8, 1), lanes=4)
EPOCHS = 3

#: (world, for each rank: (elements taken, part of them that is committed; None commits nothing))
lives = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.lists(
            st.tuples(st.integers(0, 60), st.none() | st.floats(0, 1)), min_size=4, max_size=4
        ),
    ),
    min_size=1,
    max_size=7,
)


def used(group: Group, rank: int, taken: int, part: float | None) -> None:
    """A life of one consumer that takes some, and commits a part of it."""
    life = group.life(rank)
    left = sum((group.data.epoch(e) - group.trained).total() for e in range(EPOCHS))
    life.take(min(taken, left // 8))
    if part is not None:
        group.commit(rank, life, round(part * len(life.taken)))


@given(lives)
def test_any_resizes_at_any_committed_positions_train_every_element_once(
    plan: list[tuple[int, list[tuple[int, float | None]]]],
) -> None:
    group = Group(DATA, plan[0][0])
    for number, (world, ranks) in enumerate(plan):
        if number and world != group.world:
            group.resize(world)
        for rank in range(group.world):
            used(group, rank, *ranks[rank])
        assert max(group.trained.values(), default=1) == 1, "committed twice"
    last = max((epoch for epoch, _, _ in group.trained), default=0)
    group.finish(max(EPOCHS, last + 1))
    trained = Counter({e: n for e, n in group.trained.items() if e[0] < EPOCHS})
    assert trained == expected(DATA, range(EPOCHS))


@given(st.randoms(use_true_random=False), st.integers(0, 80))
def test_positions_are_put_together_in_any_order_any_number_of_times(
    chance: random.Random, taken: int
) -> None:
    group = Group(DATA, 3)
    for rank in range(3):
        used(group, rank, taken + 7 * rank, 0.7)
    texts = [str(position) for position in group.committed]
    once = regrouped("", texts)
    mixed = chance.choices(texts, k=4) + texts
    chance.shuffle(mixed)
    assert regrouped("", mixed) == once
    assert regrouped(once, mixed) == once
    assert str(GroupPosition.parse(once)) == once


def test_what_was_delivered_and_not_committed_comes_again_and_nothing_else() -> None:
    group = Group(DATA, 2)
    uncommitted: set[Element] = set()
    for rank, (taken, committed) in enumerate([(17, 9), (21, 14)]):
        life = group.life(rank)
        life.take(taken)
        group.commit(rank, life, committed)
        uncommitted |= set(life.taken[committed:])
    group.resize(3)
    again: Counter[Element] = Counter()
    for rank in range(3):
        life = group.life(rank)
        life.take_epochs(1)
        again.update(life.taken)
    rest = expected(DATA, [0]) - group.trained
    assert again == rest
    assert uncommitted <= set(again)


def test_a_consumer_that_restarts_has_the_order_that_it_had() -> None:
    group = Group(DATA, 2)
    whole = group.life(1).take(40)
    seen: list[Element] = []
    for taken, committed in [(9, 5), (11, 11), (3, 0), (6, 1)]:
        life = group.life(1)
        life.take(taken)
        group.commit(1, life, committed)
        seen += life.taken[:committed]
        assert life.taken == whole[len(seen) - committed :][:taken]
    assert group.life(1).take(40 - len(seen)) == whole[len(seen) :]


def test_consumers_whose_epochs_differ_finish_the_earlier_one_first() -> None:
    group = Group(DATA, 2)
    ahead, behind = group.life(0), group.life(1)
    ahead.take_epochs(1)
    ahead.take(5)
    group.commit(0, ahead, len(ahead.taken))
    behind.take(4)
    group.commit(1, behind, 4)
    group.resize(1)
    alone = group.life(0)
    alone.take_epochs(2)
    epochs = [epoch for epoch, _, _ in alone.taken]
    assert epochs == sorted(epochs)
    assert Counter(alone.taken) + group.trained == expected(DATA, [0, 1])


@pytest.mark.parametrize("world", [2, 4, 8, 16])
def test_global_batches_are_the_same_sets_for_every_number_of_consumers(world: int) -> None:
    data = Data(sizes=(6,) * 64, lanes=16, block=1)
    alone = Life(data, Consumer(0, 1, 1), "")
    shared = [Life(data, Consumer(rank, world, 1), "") for rank in range(world)]
    for _ in range(12):  # a global batch is a whole number of rounds
        batch = Counter(alone.take(32))
        parts: Counter[Element] = Counter()
        for life in shared:
            parts.update(life.take(32 // world))
        assert parts == batch


def completed_num(steps: int, batch: int, world: int) -> int:
    """DLRover's formula for how far a training is."""
    return steps * batch * world


def test_four_resizes_where_counting_steps_is_wrong_by_12800_rows() -> None:
    rows, batch = 60_000, 32
    data = Data(sizes=(125,) * (rows // 125), lanes=48, block=8)
    group = Group(data, 8)
    steps = truth = 0
    for number, (world, more) in enumerate([(8, 200), (6, 30), (8, 20), (3, 40), (6, 10)]):
        if number:
            group.resize(world)
        for rank in range(world):
            life = group.life(rank)
            life.take(more * batch)
            group.commit(rank, life, more * batch)
        steps += more
        truth += more * batch * world
        assert group.trained.total() == truth
        assert max(group.trained.values()) == 1
        if number == 1:
            assert truth - completed_num(steps, batch, world) == 12_800
    assert truth > rows  # well into the next epoch
    assert len(str(group.committed[0])) < 4096
    group.finish(2)
    assert group.trained == expected(data, [0, 1])


def test_a_group_position_does_not_grow_with_the_dataset_and_fits_the_most_lanes() -> None:
    data = Data(sizes=(3,) * 1000, lanes=LANES_MAX, block=1)
    group = Group(data, 1)
    life = group.life(0)
    life.take(LANES_MAX * 4)  # one element into the second split of every lane
    group.commit(0, life, LANES_MAX * 4)
    group.resize(LANES_MAX)
    assert len(group.start) < 4096
    first = group.life(5).take(2)
    assert [index for _, _, index in first] == [1, 2]
    small = Group(DATA, 1)
    life = small.life(0)
    life.take(20)
    small.commit(0, life, 20)
    small.resize(2)
    assert len(small.start) < 700


def test_a_prefix_that_another_consumer_saw_differently_is_found() -> None:
    group = Group(DATA, 1)
    life = group.life(0)
    life.take(20)
    group.commit(0, life, 20)
    group.resize(2)
    changed = dataclasses.replace(DATA, shift=50)
    with pytest.raises(AssertionError, match=r"code='MISMATCH'.* files changed"):
        Life(changed, Consumer(0, 2, 2), group.start).take(20)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[:-1] + "_", "damaged: its check"),
        (lambda text: text[:40], "cut or has grown"),
        (lambda text: text.replace("penstock-group.1", "penstock-group.9"), "version '9'"),
        (lambda text: "nothing", "not a position"),
    ],
)
def test_a_damaged_group_position_is_refused(spoil: object, said: str) -> None:
    group = Group(DATA, 1)
    used(group, 0, 30, 1.0)
    group.resize(2)
    with pytest.raises(PositionError, match=said):
        GroupPosition.parse(spoil(group.start))  # type: ignore[operator]


def test_positions_of_something_else_are_not_put_together() -> None:
    group, other = Group(DATA, 1), Group(Data(DATA.sizes, DATA.lanes, seed=6), 1)
    for one in (group, other):
        used(one, 0, 30, 1.0)
        one.resize(2)
        used(one, 1, 5, 1.0)
    stranger = other.committed[1]
    assert stranger is not None
    with pytest.raises(PositionError, match="another pipeline, or of other settings"):
        GroupPosition.parse(group.start).joined(stranger)
    plain = Position("d", 1, 4, 1, False, True, 0, 0, False, ())
    with pytest.raises(PositionError, match="not the position of one of several"):
        GroupPosition.parse(group.start).joined(plain)
