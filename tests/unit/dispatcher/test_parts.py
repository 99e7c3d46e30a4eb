"""The shell's small parts, each alone: news, notices, liveness, group commit, the graph store."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher.commit import Committer
from penstock.dispatcher.datasets import DirectoryBlobs, MemoryBlobs
from penstock.dispatcher.lanes import LaneBook
from penstock.dispatcher.liveness import Liveness
from penstock.dispatcher.news import News
from penstock.dispatcher.notices import Notices
from penstock.dispatcher.splitset import SplitSet
from penstock.errors import JournalError, NotFoundError, UsageError
from penstock.proto.deal import deal

from .builders import build, dataset, job
from .cluster import FINGERPRINT, run
from .test_durability import GatedLog


def test_news_versions_grow_for_those_who_are_named_only() -> None:
    news = News()
    news.bump({"w1", "j1"})
    news.bump({"w1"})
    assert [news.version(peer) for peer in ("w1", "j1", "w2")] == [2, 1, 0]


def test_a_hold_ends_with_news_a_newer_hold_forgetting_or_closing() -> None:
    async def test() -> None:
        for end in ("bump", "hold", "forget", "close"):
            news = News()
            news.bump({"w1"})
            held = asyncio.ensure_future(news.hold("w1", 1, 60.0))
            await asyncio.sleep(0)
            assert not held.done()
            newer = None
            if end == "hold":
                newer = asyncio.ensure_future(news.hold("w1", 1, 60.0))
            else:
                argument = {"bump": [{"w1"}], "forget": ["w1"], "close": []}[end]
                getattr(news, end)(*argument)
            await asyncio.wait_for(held, 5.0)
            if newer is not None:
                assert not newer.done()
                news.close()
                await asyncio.wait_for(newer, 5.0)

    run(test())


def test_a_hold_that_has_missed_something_does_not_wait() -> None:
    async def test() -> None:
        news = News()
        news.bump({"w1"})
        for seen in (0, 2):
            await asyncio.wait_for(news.hold("w1", seen, 60.0), 5.0)
        await asyncio.wait_for(news.hold("w1", 1, 0.0), 5.0)
        await asyncio.wait_for(news.hold("w1", 1, 0.01), 5.0)

    run(test())


def test_notices_are_written_once_and_end_when_the_waiting_does() -> None:
    state = build(dataset(), job())
    notices = Notices()
    assert notices.deadline_s(5.0) == float("inf")
    assert notices.waiting(["j1"], 100.0) == []
    assert notices.waiting(["j1"], 103.0) == []
    assert notices.deadline_s(5.0) == 105.0
    assert notices.judge(state, 104.0, 5.0) == []
    assert notices.judge(state, 105.0, 5.0) == ["j1"]
    assert notices.judge(state, 106.0, 5.0) == []
    assert "no worker" in notices.of("j1")[0]
    assert "job-1" in notices.all()[0]
    assert notices.deadline_s(5.0) == float("inf")
    assert notices.waiting([], 107.0) == ["j1"]
    assert notices.of("j1") == []


def test_after_a_pause_everybody_gets_time_and_nobody_loses_any() -> None:
    liveness = Liveness()
    liveness.hear("w1", 1.0)
    liveness.hear("w2", 99.5)
    liveness.forgive(100.0, 2.5)
    assert liveness.heard_s == {"w1": 97.5, "w2": 99.5}


def test_many_appends_share_a_sync_and_the_next_batch_gathers_meanwhile() -> None:
    async def test() -> None:
        log = GatedLog()
        committer = Committer(log, lambda error: None, lambda: b"", 1000)
        committer.append(b"1")
        first = asyncio.ensure_future(committer.durable())
        await asyncio.to_thread(log.syncing.wait)
        waits = []
        for number in range(50):
            committer.append(b"%d" % number)
            waits.append(asyncio.ensure_future(committer.durable()))
        log.allowed.release()
        await first
        assert not any(wait.done() for wait in waits)
        assert committer.pending == 50
        log.allowed.release()
        await asyncio.gather(*waits)
        assert (log.syncs, committer.pending) == (2, 0)
        await committer.close()

    run(test())


def test_a_failed_sync_is_told_once_and_releases_nobody() -> None:
    async def test() -> None:
        log, failures = GatedLog(), []
        log.failure = JournalError("disk")
        log.open.set()
        committer = Committer(log, failures.append, lambda: b"", 1000)
        for record in (b"1", b"2"):
            committer.append(record)
        waiting = asyncio.ensure_future(committer.durable())
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        committer.append(b"3")
        later = asyncio.ensure_future(committer.durable())
        done, _ = await asyncio.wait([waiting, later], timeout=0.1)
        assert not done
        assert failures == [log.failure]
        for wait in (waiting, later):
            wait.cancel()

    run(test())


def test_without_a_journal_everything_is_durable_at_once() -> None:
    async def test() -> None:
        committer = Committer(None, lambda error: None, lambda: b"", 1)
        committer.append(b"1")
        await committer.durable()
        await committer.close()

    run(test())


def test_a_graph_survives_and_a_damaged_one_is_never_served(tmp_path: Path) -> None:
    store = DirectoryBlobs(tmp_path / "datasets")
    assert not store.has(FINGERPRINT)
    with pytest.raises(NotFoundError):
        store.get(FINGERPRINT)
    (tmp_path / "datasets" / "half.tmp").write_bytes(b"left over")
    store.put(FINGERPRINT, b"graph" * 1000)
    again = DirectoryBlobs(tmp_path / "datasets")
    assert os.listdir(tmp_path / "datasets") == [FINGERPRINT]
    assert again.get(FINGERPRINT) == b"graph" * 1000
    path = tmp_path / "datasets" / FINGERPRINT
    for at in (0, 9, 20, 40, 2000):
        again.put(FINGERPRINT, b"graph" * 1000)
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(JournalError, match="damaged"):
            again.get(FINGERPRINT)
        assert not again.has(FINGERPRINT)  # the next client brings it again
    again.put(FINGERPRINT, b"")
    assert again.get(FINGERPRINT) == b""


@pytest.mark.parametrize(
    "bad", ["", "..", "../x", "A" * 16, "0" * 7, "0" * 129, "00/11" * 4, "g" * 9]
)
def test_only_a_fingerprint_becomes_a_file_name(tmp_path: Path, bad: str) -> None:
    for store in (DirectoryBlobs(tmp_path), MemoryBlobs()):
        with pytest.raises(UsageError, match="hexadecimal"):
            store.put(bad, b"x")
    assert os.listdir(tmp_path) == []


@given(st.data(), st.integers(0, 12), st.integers(1, 4))
def test_a_lane_book_kept_up_to_date_is_one_made_anew(
    data: st.DataObject, splits: int, lanes: int
) -> None:
    dealt = deal(splits, lanes, seed=3, epoch=1)
    delivered = SplitSet()
    running: set[int] = set()
    book = LaneBook(dealt, delivered, [])
    for _ in range(data.draw(st.integers(0, 30)) if splits else 0):
        split = data.draw(st.integers(0, splits - 1))
        if split in delivered:
            continue
        if split not in running:
            action = data.draw(st.sampled_from(["assigned", "delivered"]))
        else:
            action = data.draw(st.sampled_from(["dropped", "delivered"]))
        if action == "delivered":
            delivered.add(split)
        (running.add if action == "assigned" else running.discard)(split)
        getattr(book, action)(split)
        fresh = LaneBook(dealt, delivered, running)
        assert book.wanted() == fresh.wanted()
        for lane, in_order in enumerate(dealt):
            left = [split for split in in_order if split not in delivered]
            assert book.current(lane) == (left[0] if left else None)
            assert list(book.candidates(lane)) == [
                (split, depth) for depth, split in enumerate(left) if split not in running
            ]
