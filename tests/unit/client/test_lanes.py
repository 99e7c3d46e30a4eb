"""The pure core: events in, exactly these instructions out; G1, G3, G4, G5 and G8 on lists."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.client.events import (
    GONE,
    MISMATCH,
    UNREACHABLE,
    Credit,
    Delivery,
    Done,
    EndOfEpoch,
    Fail,
    Fetch,
    Instruction,
    Placed,
    Release,
    Report,
    Wait,
)
from penstock.client.lanes import EpochCore
from penstock.errors import ProtocolError, ReplayMismatchError, VerificationError
from penstock.proto.chunk import Chunk
from penstock.proto.hashing import Digest, DigestBuilder

LIMIT = 6400
W = LIMIT // 2  # the window of one lane


def chunk(split: int, start: int, stop: int) -> Chunk:
    return Chunk.from_stacked(start, [np.arange(split * 100 + start, split * 100 + stop)])


def digest(split: int, count: int) -> Digest:
    builder = DigestBuilder()
    builder.update(chunk(split, 0, count).hashes)
    return builder.digest()


def one_lane(splits: int = 1, **more: object) -> EpochCore:
    return EpochCore([list(range(splits))], 4, memory_limit=LIMIT, **more)  # type: ignore[arg-type]


def taken(core: EpochCore, count: int = 1000) -> list[tuple[int, int]]:
    """(split, value) of what is delivered now."""
    result, _ = core.take(count)
    assert isinstance(result, Delivery)
    return [
        (piece.split, int(value))
        for piece in result.each_piece()
        for _, (values,) in piece.chunk.runs()
        for value in values
    ]


def splits_of(instructions: list[Instruction], first: int = 10) -> list[int]:
    """The splits that are fetched, where attempt `first` is of split 0."""
    return [fetch.attempt - first for fetch in instructions if isinstance(fetch, Fetch)]


def test_a_placed_split_is_fetched_once_its_worker_is_connected() -> None:
    core = one_lane()
    assert core.placements([Placed(0, 7, "a")]) == []
    assert core.connected("a") == [Fetch("a", 7, 0, W, verify=False)]
    assert core.placements([Placed(0, 7, "a")]) == []


def test_what_is_wanted_next_is_fetched_first() -> None:
    core = EpochCore([[0, 3], [1, 4], [2, 5]], 2, memory_limit=LIMIT)
    view = [Placed(split, 10 + split, "a") for split in (3, 0, 4, 1, 5, 2)]
    core.placements(view)
    assert splits_of(core.connected("a")) == [0, 1, 2, 3, 4, 5]
    core.chunk(10, chunk(0, 0, 3), 8)
    core.chunk(11, chunk(1, 0, 1), 8)
    assert taken(core) == [(0, 0), (0, 1), (1, 100)]  # it is still lane 1's turn
    core.lost("a", "reset")
    core.placements([Placed(placed.split, placed.attempt + 10, "b") for placed in view])
    assert splits_of(core.connected("b"), first=20) == [1, 2, 0, 4, 5, 3]


def test_every_chunk_is_acknowledged() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.chunk(7, chunk(0, 0, 5), 40) == [Credit("a", 7, 5, 0)]


def test_credit_is_given_back_as_elements_are_handed_over() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.chunk(7, chunk(0, 0, 5), W - 1) == [Credit("a", 7, 5, 0)]
    assert core.chunk(7, chunk(0, 5, 9), 100) == [Credit("a", 7, 9, 0)]
    _, instructions = core.take(5)
    assert instructions == [Credit("a", 7, 9, W - 1)]


def test_an_epoch_ends_with_the_proof_of_every_split_and_not_before() -> None:
    core = one_lane(2)
    core.connected("a")
    core.placements([Placed(0, 7, "a"), Placed(1, 8, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.chunk(8, chunk(1, 0, 1), 8)
    assert core.end(8, digest(1, 1)) == [Done(1, digest(1, 1))]
    assert taken(core) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    assert isinstance(core.take(1)[0], Wait)
    assert core.end(7, digest(0, 5)) == [Done(0, digest(0, 5))]
    assert taken(core) == [(1, 100)]
    expected = DigestBuilder()
    expected.update(chunk(0, 0, 5).hashes)
    expected.update(chunk(1, 0, 1).hashes)
    assert core.take(1) == (EndOfEpoch(expected.digest()), [])
    assert core.take(1) == (EndOfEpoch(expected.digest()), [])


def test_an_epoch_without_splits_ends_at_once() -> None:
    core = EpochCore([[], []], 4)
    assert core.take(1)[0] == EndOfEpoch(DigestBuilder().digest())


def test_lanes_take_turns_block_by_block_and_a_lane_goes_on_with_its_next_split() -> None:
    core = EpochCore([[0, 1], [2]], 3)
    core.connected("a")
    core.placements([Placed(0, 1, "a"), Placed(1, 2, "a"), Placed(2, 3, "a")])
    for attempt, split, count in ((1, 0, 4), (2, 1, 4), (3, 2, 4)):
        core.chunk(attempt, chunk(split, 0, count), 8)
        core.end(attempt, digest(split, count))
    assert [split for split, _ in taken(core)] == [0, 0, 0, 2, 2, 2, 0, 1, 1, 2, 1, 1]


def test_a_lane_that_has_nothing_holds_up_the_others_for_the_sake_of_order() -> None:
    core = EpochCore([[0], [1]], 2)
    core.connected("a")
    core.placements([Placed(0, 1, "a"), Placed(1, 2, "a")])
    core.chunk(2, chunk(1, 0, 4), 8)
    wait, _ = core.take(9)
    assert isinstance(wait, Wait)
    assert (wait.lane, wait.split, wait.attempt, wait.worker) == (0, 0, 1, "a")
    core.chunk(1, chunk(0, 0, 2), 8)
    assert taken(core) == [(0, 0), (0, 1), (1, 100), (1, 101)]


def test_without_determinism_any_lane_that_has_something_is_taken() -> None:
    core = EpochCore([[0], [1]], 2, deterministic=False)
    core.connected("a")
    core.placements([Placed(0, 1, "a"), Placed(1, 2, "a")])
    core.chunk(2, chunk(1, 0, 4), 8)
    assert taken(core) == [(1, 100), (1, 101), (1, 102), (1, 103)]
    wait, _ = core.take(9)
    assert isinstance(wait, Wait)
    assert wait.split == 0


def test_what_was_received_survives_its_worker_and_the_next_fetch_goes_on_after_it() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    assert core.lost("a", "broken") == [Report(7, UNREACHABLE, "broken")]
    assert core.lost("a", "still") == []
    assert core.problems() == [Report(7, UNREACHABLE, "broken")]
    core.connected("b")
    assert core.placements([Placed(0, 9, "b")]) == [Fetch("b", 9, 5, W - 40, verify=True)]
    assert core.problems() == []
    assert core.hashes(9, 0, chunk(0, 0, 2).hashes) == []
    assert core.hashes(9, 2, chunk(0, 2, 5).hashes) == []
    core.chunk(9, chunk(0, 5, 6), 8)
    assert core.end(9, digest(0, 6)) == [Done(0, digest(0, 6))]
    assert [value for _, value in taken(core)] == [0, 1, 2, 3, 4, 5]


def test_the_same_attempt_is_not_verified_again_after_a_reconnect() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.lost("a")
    assert core.connected("a") == [Fetch("a", 7, 5, W - 40, verify=False)]
    assert core.problems() == []


def reported(out: list[Instruction], attempt: int, worker: str = "a") -> str:
    """The text of the mismatch that was reported, and nothing else was done."""
    release, report = out
    assert release == Release(worker, attempt)
    assert isinstance(report, Report)
    assert (report.attempt, report.code) == (attempt, MISMATCH)
    return report.detail


def test_g4_a_replay_that_differs_is_reported_with_split_and_index_and_another_is_taken() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.placements([Placed(0, 8, "a")])
    hashes = chunk(0, 0, 5).hashes.copy()
    hashes[3] ^= np.uint64(1)
    text = reported(core.hashes(8, 0, hashes), 8)
    assert "split 0, attempt 8 on worker a" in text
    assert "element 3" in text
    assert isinstance(core.different, ReplayMismatchError)
    assert core.problems() == [Report(8, MISMATCH, text)]
    # Whatever else it sends is stale; nothing is taken from it.
    assert core.chunk(8, chunk(0, 5, 6), 8) == core.end(8, digest(0, 6)) == []
    core.connected("b")
    (fetch,) = core.placements([Placed(0, 9, "b")])
    assert isinstance(fetch, Fetch)
    assert (fetch.start, fetch.verify) == (5, True)
    assert core.different is None
    assert core.hashes(9, 0, chunk(0, 0, 5).hashes) == []
    core.chunk(9, chunk(0, 5, 6), 8)
    assert core.end(9, digest(0, 6)) == [Done(0, digest(0, 6))]
    assert [value for _, value in taken(core)] == [0, 1, 2, 3, 4, 5]


def test_g4_a_replay_that_is_shorter_than_what_was_delivered_is_reported() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.placements([Placed(0, 8, "a")])
    reported(core.end(8, digest(0, 3)), 8)
    assert isinstance(core.different, ReplayMismatchError)


def test_where_a_replay_cannot_be_equal_only_the_count_is_compared() -> None:
    core = one_lane(replayable=False)
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.placements([Placed(0, 8, "a")])
    assert core.hashes(8, 0, chunk(3, 0, 5).hashes) == []
    core.chunk(8, chunk(3, 5, 6), 8)
    (done,) = core.end(8, digest(3, 6))
    assert isinstance(done, Done)
    assert done.digest.count == 6


def test_without_a_replay_the_whole_digest_counts_even_there() -> None:
    core = one_lane(replayable=False)
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    reported(core.end(7, digest(3, 5)), 7)


@pytest.mark.parametrize("end", [digest(0, 6), digest(0, 4), digest(1, 5)])
def test_g5_an_end_that_is_not_what_was_received_is_no_end_and_reported(end: Digest) -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    assert "split 0" in reported(core.end(7, end), 7)
    assert isinstance(core.different, VerificationError)
    assert core.proven(0) is None


@pytest.mark.parametrize(("start", "word"), [(3, "repeats"), (6, "skips")])
def test_a_chunk_that_is_not_the_next_one_is_an_error(start: int, word: str) -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    (failed,) = core.chunk(7, chunk(0, start, 9), 40)
    assert isinstance(failed, Fail)
    assert isinstance(failed.error, ProtocolError)
    assert word in str(failed.error)


def test_elements_before_the_hashes_that_were_asked_for_are_an_error() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.placements([Placed(0, 8, "a")])
    (failed,) = core.chunk(8, chunk(0, 5, 6), 8)
    assert isinstance(failed, Fail)


def test_g8_a_stale_attempt_changes_nothing() -> None:
    core = one_lane()
    core.connected("a")
    core.connected("b")
    core.placements([Placed(0, 7, "a")])
    assert core.placements([Placed(0, 9, "b")]) == [
        Release("a", 7),
        Fetch("b", 9, 0, W, verify=False),
    ]
    assert core.chunk(7, chunk(0, 0, 5), 40) == []
    assert core.end(7, digest(0, 5)) == []
    assert core.fail(7, GONE, "") == []
    assert core.hashes(7, 0, chunk(0, 0, 1).hashes) == []
    assert isinstance(core.take(1)[0], Wait)
    assert core.placements([Placed(0, 7, "a")]) == [Release("b", 9)]


def test_a_split_that_is_placed_nowhere_is_released_and_waited_for() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.placements([]) == [Release("a", 7)]
    wait, _ = core.take(1)
    assert isinstance(wait, Wait)
    assert wait.reason == "no worker has it yet"


def test_an_attempt_that_is_gone_is_reported_until_another_is_placed() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.fail(7, GONE, "never heard of") == [Report(7, GONE, "never heard of")]
    assert core.placements([Placed(0, 7, "a")]) == []
    assert core.problems() == [Report(7, GONE, "never heard of")]
    assert core.placements([Placed(0, 8, "a")]) == [Fetch("a", 8, 0, W, verify=False)]


def test_a_failed_pipeline_is_reported_by_its_worker_not_by_us() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.fail(7, "PIPELINE", "division by zero") == []
    assert core.placements([Placed(0, 7, "a")]) == []
    assert core.problems() == []
    wait, _ = core.take(1)
    assert isinstance(wait, Wait)
    assert "division by zero" in wait.reason


def test_g4_a_corrupt_attempt_is_released_and_reported() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    assert core.corrupt(7, "element 3") == [Release("a", 7), Report(7, MISMATCH, "element 3")]


def test_a_done_split_is_not_fetched_again_whatever_a_late_view_says() -> None:
    core = one_lane()
    core.connected("a")
    core.placements([Placed(0, 7, "a")])
    core.chunk(7, chunk(0, 0, 5), 40)
    core.end(7, digest(0, 5))
    assert core.placements([Placed(0, 7, "a"), Placed(0, 8, "a")]) == []
    assert core.counts() == {0: 5}


def test_what_is_fetched_ahead_stays_within_half_of_the_memory() -> None:
    core = EpochCore([list(range(10))], 4, memory_limit=LIMIT)
    core.connected("a")
    fetches = core.placements([Placed(split, split + 1, "a") for split in range(4)])
    assert [fetch.credit for fetch in fetches if isinstance(fetch, Fetch)] == [W, W, 0, 0]
    core.chunk(2, chunk(1, 0, 5), W)
    core.end(2, digest(1, 5))
    (fetch,) = core.placements([Placed(split, split + 1, "a") for split in (0, 2, 3, 4)])
    assert fetch == Fetch("a", 5, 0, 0, verify=False)
    core.chunk(1, chunk(0, 0, 1), 8)
    core.end(1, digest(0, 1))
    # Split 1 is current now: its bytes are not ahead any more, and split 2 may be sent.
    result, instructions = core.take(3)
    assert isinstance(result, Delivery)
    assert instructions == [Credit("a", 3, 0, W)]


def test_abandoning_releases_everything() -> None:
    core = one_lane(2)
    core.connected("a")
    core.placements([Placed(0, 7, "a"), Placed(1, 8, "a")])
    assert core.abandon() == [Release("a", 7), Release("a", 8)]
    assert core.chunk(7, chunk(0, 0, 5), 40) == []
