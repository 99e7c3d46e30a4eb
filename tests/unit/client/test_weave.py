"""Rounds of turns that are handed over at once are the same elements, hashes and positions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.events import Delivery, Piece, Placed
from penstock.client.lanes import EpochCore
from penstock.client.runs import runs_of
from penstock.client.splits import Fetching, SplitState
from penstock.client.track import Track
from penstock.client.weave import Woven, weave
from penstock.proto.chunk import Chunk
from penstock.proto.spec import ComponentSpec


def piece(split: int, start: int, count: int) -> Piece:
    values = np.arange(split * 1000 + start, split * 1000 + start + count)
    return Piece(split, Chunk.from_stacked(start, [values, np.stack([values, -values], axis=1)]))


def turn_by_turn(pieces: list[Piece], block: int) -> list[int]:
    count = pieces[0].chunk.count
    return [
        p.split * 1000 + p.chunk.start + index
        for first in range(0, count, block)
        for p in pieces
        for index in range(first, first + block)
    ]


shapes = st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(2, 5))


@given(shapes, st.integers(0, 9))
def test_woven_elements_alternate_and_keep_their_hashes(
    shape: tuple[int, int, int], start: int
) -> None:
    splits, block, rounds = shape
    pieces = [piece(split, start, rounds * block) for split in range(splits)]
    whole = Woven.of(pieces, block)
    ((values, pairs),) = whole.stacked()
    assert values.tolist() == turn_by_turn(pieces, block)
    assert pairs[:, 1].tolist() == [-value for value in values.tolist()]
    turns = list(whole.turns())
    assert np.concatenate([turn.hashes for turn in turns]).tolist() == whole.hashes.tolist()
    assert whole.spans() == [span for turn in turns for span in turn.spans()]


def test_woven_memory_can_be_lent_to_tensorflow() -> None:
    whole = Woven.of([piece(split, 0, 6) for split in range(3)], 2)
    for array in next(whole.stacked()):
        assert array.ctypes.data % 64 == 0
        assert array.flags.writeable


def test_elements_of_changing_shapes_are_woven_turn_by_turn() -> None:
    spec = (ComponentSpec("int64", (None,)),)
    lengths = {0: (1, 1, 2), 1: (1, 2, 2)}
    pieces = [
        Piece(split, Chunk.from_elements(0, [(np.full(n, split),) for n in of], spec))
        for split, of in lengths.items()
    ]
    whole = Woven.of(pieces, 1)
    got = [row.tolist() for (array,) in whole.stacked() for row in array]
    assert got == [[0], [1], [0], [1, 1], [0, 0], [1, 1]]
    assert sum(len(run[0]) for run in runs_of([whole])) == 6


def test_strings_and_elements_of_nothing_are_woven() -> None:
    texts = [np.array([b"a%d" % i, b"b%d" % i], object) for i in range(2)]
    whole = Woven.of(
        [Piece(i, Chunk.from_stacked(0, [t, np.zeros((2, 0))])) for i, t in enumerate(texts)], 1
    )
    ((strings, empty),) = whole.stacked()
    assert strings.tolist() == [b"a0", b"a1", b"b0", b"b1"]
    assert empty.shape == (4, 0)


def state_with(split: int, chunks: list[Chunk]) -> SplitState:
    state = SplitState(split, split, replayable=True)
    state.attempt, state.worker = 1, "w"
    state.fetch = Fetching(1, "w", 0, False)
    for chunk in chunks:
        state.accept(chunk, chunk.nbytes)
    return state


def test_nothing_is_woven_of_one_lane_of_too_little_or_of_large_blocks() -> None:
    def states(count: int) -> list[SplitState]:
        return [state_with(split, [piece(split, 0, count).chunk]) for split in range(2)]

    assert weave(states(8)[:1], 1, 100) is None
    assert weave(states(1), 1, 100) is None, "a single round is no better than turns"
    assert weave(states(8), 1, 3) is None
    assert weave([*states(8), SplitState(2, 2, replayable=True)], 1, 100) is None
    large = [state_with(s, [Chunk.from_stacked(0, [np.zeros((4, 40_000))])]) for s in range(2)]
    assert weave(large, 1, 100) is None
    found = weave(states(8), 2, 13)
    assert found is not None
    assert len(found.hashes) == 12


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=2, max_size=4),
    st.integers(1, 3),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_the_order_is_that_of_single_turns_whatever_is_at_hand(
    sizes: list[list[int]], block: int, budgets: list[int]
) -> None:
    """Lanes of one split each, whose chunks have any sizes."""
    core = EpochCore([[lane] for lane in range(len(sizes))], block)
    core.connected("w")
    core.placements([Placed(split, split + 1, "w") for split in range(len(sizes))])
    for split, chunks in enumerate(sizes):
        start = 0
        for count in chunks:
            core.chunk(split + 1, piece(split, start, count).chunk, 24 * count)
            start += count
    expected = [
        [s * 1000 + i for i in range(first, min(first + block, sum(chunks)))]
        for first in range(0, max(map(sum, sizes)), block)
        for s, chunks in enumerate(sizes)
    ]
    # Nothing is proven, so the sequence stops where the first lane has no more.
    stop = (
        next(i for i, turn in enumerate(expected) if len(turn) < block)
        if any(len(turn) < block for turn in expected)
        else len(expected)
    )
    wanted = [value for turn in expected[: stop + 1] for value in turn]
    got: list[int] = []
    for budget in itertools.cycle(budgets):
        taken, _ = core.take(budget)
        if not isinstance(taken, Delivery):
            break
        for one in taken.each_piece():
            got += next(one.stacked())[0].tolist()
    assert got == wanted


@pytest.mark.parametrize("block", [1, 2])
def test_a_position_is_the_same_within_what_was_woven(block: int) -> None:
    lanes = [[0], [1], [2]]
    pieces = [piece(split, 0, 4) for split in range(3)]
    whole = Woven.of(pieces, block)

    def track() -> Track:
        return Track(lanes, block, None, proven=lambda _: None, prefix=lambda _: None)

    for steps in itertools.combinations(range(1, 13), 2):
        single, together = track(), track()
        single.add(whole.turns())
        together.add([whole])
        for consumed in steps:
            assert together.at(consumed) == single.at(consumed)


def test_a_delivery_is_woven_where_every_lane_has_elements() -> None:
    core = EpochCore([[0], [1]], 1)
    core.connected("w")
    core.placements([Placed(split, split + 1, "w") for split in range(2)])
    for split in range(2):
        core.chunk(split + 1, piece(split, 0, 50).chunk, 1200)
    taken, _ = core.take(100)
    assert isinstance(taken, Delivery)
    (found,) = taken.pieces
    assert isinstance(found, Woven)
    assert len(found.hashes) == 100
