"""The core and the delivery log without I/O: an epoch cut at every element, and put together."""

from __future__ import annotations

import random

import numpy as np
import pytest

from penstock.client.events import Delivery, EndOfEpoch, Fail, Fetch, Placed
from penstock.client.lanes import EpochCore
from penstock.client.resumed import ResumedCore
from penstock.client.track import Track
from penstock.errors import PositionError, ReplayMismatchError
from penstock.proto.chunk import Chunk
from penstock.proto.hashing import Digest, DigestBuilder
from penstock.proto.position import Cursor, StreamPosition

COUNTS = {0: 5, 1: 0, 2: 7, 3: 3, 4: 1, 5: 6, 6: 0, 7: 2}
LANES = [[3, 1, 5], [0, 6, 7], [2, 4]]
BLOCK = 2


def values(split: int, start: int, stop: int) -> Chunk:
    return Chunk.from_stacked(start, [np.arange(split * 100 + start, split * 100 + stop)])


def digest_of(split: int) -> Digest:
    builder = DigestBuilder()
    if COUNTS[split]:
        builder.update(values(split, 0, COUNTS[split]).hashes)
    return builder.digest()


class Life:
    """One life of a trainer: a core that is served by a worker which has everything."""

    def __init__(self, start: StreamPosition | None, *, deterministic: bool = True) -> None:
        prefix = lambda split: None  # noqa: E731
        if start is None or not start.started:
            self.core = EpochCore(LANES, BLOCK, deterministic=deterministic)
            start = None
        else:
            self.core = ResumedCore(
                LANES, BLOCK, start, deterministic=deterministic, replayable=True
            )
            prefix = self.core.prefix_of
        self.fetched: set[int] = set()
        self.fetches: list[Fetch] = []
        self.track = Track(LANES, BLOCK, start, proven=self.core.proven, prefix=prefix)

    def serve(self, *, shuffled: random.Random | None = None) -> None:
        """Places everything, and answers every fetch to its end."""
        self.core.connected("w")
        out = self.core.placements([Placed(split, split + 1, "w") for split in COUNTS])
        fetches = [fetch for fetch in out if isinstance(fetch, Fetch)]
        if shuffled is not None:
            shuffled.shuffle(fetches)
        for fetch in fetches:
            self.answer(fetch)

    def answer(self, fetch: Fetch) -> None:
        split = fetch.attempt - 1
        self.fetches.append(fetch)
        self.fetched.add(split)
        if fetch.verify:
            hashes = values(split, 0, fetch.start).hashes
            for at in range(0, len(hashes), 2):
                assert self.core.hashes(fetch.attempt, at, hashes[at : at + 2]) == []
        if fetch.start < COUNTS[split]:
            self.core.chunk(fetch.attempt, values(split, fetch.start, COUNTS[split]), 8)
        out = self.core.end(fetch.attempt, digest_of(split))
        assert not any(isinstance(item, Fail) for item in out), out

    def take(self, count: int) -> list[int]:
        """The next elements, at most `count`."""
        got: list[int] = []
        while len(got) < count:
            result, _ = self.core.take(count - len(got))
            if not isinstance(result, Delivery):
                break
            self.track.add(result.pieces)
            got += [
                int(value)
                for piece in result.each_piece()
                for _, (array,) in piece.chunk.runs()
                for value in array
            ]
        return got

    def position(self, consumed: int) -> StreamPosition:
        at = self.track.at(consumed)
        return StreamPosition("f", 8, 0, 0, 0, at.digest, at.whole, at.turn, at.left, at.cursors)


def whole(deterministic: bool = True) -> list[int]:
    life = Life(None, deterministic=deterministic)
    life.serve()
    return life.take(1000)


TOTAL = sum(COUNTS.values())


@pytest.mark.parametrize("consumed", range(TOTAL + 1))
@pytest.mark.parametrize("ahead", [0, 3, 1000])
def test_an_epoch_goes_on_at_every_element(consumed: int, ahead: int) -> None:
    expected = whole()
    former = Life(None)
    former.serve()
    former.take(consumed + ahead)
    start = former.position(consumed)
    later = Life(start)
    later.serve()
    assert later.take(1000) == expected[consumed:]
    end, _ = later.core.take(1)
    assert isinstance(end, EndOfEpoch)
    sums = [digest_of(split) for split in COUNTS]
    assert end.digest.count == TOTAL
    assert end.digest.total == sum(s.total for s in sums) % (1 << 64)
    # What was consumed whole is not even asked for.
    for lane, cursor in zip(LANES, start.cursors or (Cursor(),) * 3, strict=True):
        assert not later.fetched & set(lane[: cursor.splits])


def test_resumes_in_a_row_keep_the_cursors_and_the_sums() -> None:
    expected = whole()
    got: list[int] = []
    start: StreamPosition | None = None
    chance = random.Random(5)
    while len(got) < TOTAL:
        life = Life(start)
        life.serve(shuffled=chance)
        life.take(chance.randrange(6) + 1)
        step = chance.randrange(life.track.delivered - life.track.base + 1)
        consumed = life.track.base + step
        start = life.position(consumed)
        got = expected[:consumed]
        assert start.digest.count == consumed
        builder = DigestBuilder()
        for value in got:
            builder.update(values(value // 100, value % 100, value % 100 + 1).hashes)
        assert start.digest.total == builder.digest().total
        rest = Life(start)
        rest.serve()
        assert rest.take(1000) == expected[consumed:]


@pytest.mark.parametrize("consumed", range(TOTAL + 1))
def test_in_any_order_every_element_comes_once(consumed: int) -> None:
    former = Life(None, deterministic=False)
    former.serve(shuffled=random.Random(consumed))
    seen = former.take(consumed)
    later = Life(former.position(consumed), deterministic=False)
    later.serve(shuffled=random.Random(7))
    assert sorted(seen + later.take(1000)) == sorted(whole())


def test_a_split_that_was_begun_is_proven_by_the_hashes_of_what_lies_before() -> None:
    former = Life(None)
    former.serve()
    former.take(9)
    start = former.position(9)
    wrong = [
        cursor
        if not cursor.elements
        else Cursor(cursor.splits, cursor.elements, Digest(cursor.elements, 1, 2))
        for cursor in start.cursors
    ]
    assert wrong != list(start.cursors)
    changed = StreamPosition(
        "f", 8, 0, 0, 0, start.digest, start.whole, start.turn, start.left, tuple(wrong)
    )
    core = ResumedCore(LANES, BLOCK, changed, deterministic=True, replayable=True)
    core.connected("w")
    out = core.placements([Placed(split, split + 1, "w") for split in COUNTS])
    fetch = next(item for item in out if isinstance(item, Fetch) and item.verify)
    split = fetch.attempt - 1
    core.hashes(fetch.attempt, 0, values(split, 0, fetch.start).hashes)
    assert isinstance(core.different, ReplayMismatchError)
    assert f"split {split}" in str(core.different)
    assert "files changed" in str(core.different)
    # The next attempt is compared with the position, too, and not with this one.
    core.placements([Placed(split, 99, "w")])
    assert core.different is None
    core.hashes(99, 0, values(split, 0, fetch.start).hashes)
    assert "files changed" in str(core.different)


def test_an_attempt_that_is_lost_in_the_proof_is_followed_by_another() -> None:
    expected = whole()
    former = Life(None)
    former.serve()
    former.take(9)
    later = Life(former.position(9))
    later.core.connected("w")
    out = later.core.placements([Placed(split, split + 1, "w") for split in COUNTS])
    fetch = next(item for item in out if isinstance(item, Fetch) and item.start > 1)
    later.core.hashes(fetch.attempt, 0, values(fetch.attempt - 1, 0, 1).hashes)
    later.core.lost("w", "reset")
    for again in later.core.connected("w"):
        if isinstance(again, Fetch):
            later.answer(again)
    assert later.take(1000) == expected[9:]


def test_a_position_of_other_lanes_is_refused() -> None:
    former = Life(None)
    former.serve()
    former.take(9)
    start = former.position(9)
    with pytest.raises(PositionError, match="3 lanes, the job 2"):
        ResumedCore(LANES[:2], BLOCK, start, deterministic=True, replayable=True)
    with pytest.raises(PositionError, match="which has 0"):
        ResumedCore([[], [], []], BLOCK, start, deterministic=True, replayable=True)
