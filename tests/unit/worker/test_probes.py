"""Probes: made for nobody, told of once, and stopped when they are not wanted."""

from __future__ import annotations

import threading

from penstock.proto.hashing import Digest
from penstock.worker.messages import Assignment
from penstock.worker.probes import DETAIL_CHARS_MAX, Probes


def assignment(number: int, split: int) -> Assignment:
    return Assignment(number, "j1", 0, 0, split, "d")


def test_digests_and_failures_are_told_until_they_are_not_wanted_any_more() -> None:
    news = threading.Semaphore(0)

    def make(at: Assignment, stopped: threading.Event) -> Digest:
        if at.split == 1:
            raise RuntimeError("x" * 2000) from OSError("no disk")
        return Digest(10, 20, 30)

    probes = Probes(make, news.release)
    for _ in range(2):  # the list comes again and again
        probes.set_wanted([assignment(7, 0), assignment(8, 1)])
    assert news.acquire(timeout=60)
    assert news.acquire(timeout=60)
    good, bad = sorted(probes.results(), key=lambda result: result.probe)
    assert (good.probe, good.digest.count, good.digest.total, good.digest.chain) == (7, 10, 20, 30)
    assert not bad.HasField("digest")
    assert bad.detail.endswith("OSError: no disk")
    assert len(bad.detail) <= DETAIL_CHARS_MAX
    probes.set_wanted([])
    assert probes.results() == []
    assert not news.acquire(blocking=False)


def test_one_that_is_not_wanted_any_more_is_stopped_and_says_nothing() -> None:
    began, stopped_s = threading.Event(), threading.Event()

    def make(at: Assignment, stopped: threading.Event) -> None:
        began.set()
        assert stopped.wait(60)
        stopped_s.set()

    told: list[None] = []
    probes = Probes(make, lambda: told.append(None))
    probes.set_wanted([assignment(7, 0)])
    assert began.wait(60)
    probes.set_wanted([])
    assert stopped_s.wait(60)
    assert told == probes.results() == []


def test_closing_waits_for_what_is_still_made_but_not_for_ever() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def make(at: Assignment, stopped: threading.Event) -> None:
        assert stopped.wait(60)
        assert go_on.wait(60)  # the element at hand
        ended.set()

    probes = Probes(make, lambda: None)
    probes.set_wanted([assignment(7, 0)])
    probes.set_wanted([])
    assert not probes.close(0.01)
    threading.Timer(0.05, go_on.set).start()
    assert probes.close(60)
    assert ended.is_set()
    assert not [one for one in threading.enumerate() if one.name == "penstock-probe-7"]
