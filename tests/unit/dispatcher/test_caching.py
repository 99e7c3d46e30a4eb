"""What is cached where, who may cache, and what `auto` decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher import caching
from penstock.dispatcher import events as ev
from penstock.dispatcher.snapshot import digest, from_snapshot, to_snapshot
from penstock.dispatcher.splitset import SplitSet
from penstock.dispatcher.state import InvalidEventError, State
from penstock.dispatcher.views import worker_view
from penstock.errors import UsageError
from penstock.proto import control_pb2 as pb

from .builders import assigned, build, dataset, delivered, job, schedule, worker

KEY = "c0ffee"


def cluster(*extra: ev.Event, mode: str = "on", splits: int = 8, slots: int = 8) -> State:
    """Two workers with a store each, and a job with an open epoch that uses caches."""
    return build(
        dataset(splits=splits),
        ev.DatasetCacheable("d1", KEY),
        worker(1, slots=slots),
        worker(2, slots=slots),
        ev.StoreAttached("w1", "s1", 1 << 30),
        ev.StoreAttached("w2", "s2", 1 << 30),
        job(lanes=2),
        ev.JobCaching("j1", mode),
        extra,
        ev.EpochStarted("j1", 0, 0),
    )


def registration(store: str, held: dict[str, list[int]]) -> pb.RegisterWorkerRequest:
    cached = [pb.CachedSplits(key=key, splits=splits) for key, splits in held.items()]
    return pb.RegisterWorkerRequest(store=store, cache_limit=1 << 30, cached=cached)


def measure(**values: int) -> pb.CacheMeasure:
    numbers = {"elements": 10, "nbytes": 1000, "produce_us": 900, "write_us": 50, "read_us": 100}
    return pb.CacheMeasure(key=KEY, **{**numbers, **values})


def carry_out(state: State, events: list[ev.Event]) -> list[ev.Event]:
    for event in events:
        state.apply(event)
    return events


def test_cached_splits_go_to_the_worker_that_has_them() -> None:
    state = cluster(ev.SplitsCached("s2", KEY, (0, 1, 2, 3, 4)))
    at = dict(assigned(schedule(state)))
    assert {at[split] for split in (0, 1, 2, 3, 4)} == {"w2"}
    assert {at[split] for split in (5, 6, 7)} == {"w1"}


def test_a_split_ahead_does_not_wait_for_a_busy_worker_that_has_it() -> None:
    state = cluster(ev.SplitsCached("s2", KEY, tuple(range(8))), slots=2)
    at = assigned(schedule(state))
    assert [name for _, name in at].count("w2") == 2
    assert [name for _, name in at].count("w1") == 2


def test_a_shared_store_binds_splits_to_no_worker() -> None:
    state = cluster(
        ev.StoreAttached("w2", "s1", 1 << 30), ev.SplitsCached("s1", KEY, tuple(range(8)))
    )
    names = [name for _, name in assigned(schedule(state))]
    assert names.count("w1") == names.count("w2") == 4


@pytest.mark.parametrize("mode", ["off", "put"])
def test_a_job_that_does_not_read_caches_is_placed_as_if_there_were_none(mode: str) -> None:
    state = cluster(ev.SplitsCached("s2", KEY, tuple(range(8))), mode=mode)
    names = [name for _, name in assigned(schedule(state))]
    assert names.count("w1") == names.count("w2") == 4


def test_workers_are_told_what_to_do_with_caches() -> None:
    told = {}
    for mode in caching.MODES:
        state = cluster(mode=mode)
        schedule(state)
        view = worker_view(state, state.workers["w1"], 1)
        told[mode] = {spec.cache for spec in view.attempts}
    assert told == {"off": {"off"}, "put": {"put"}, "on": {"on"}, "auto": {"measure"}}


def test_a_dataset_without_a_key_is_never_cached() -> None:
    state = build(dataset(), worker(1), job(), ev.JobCaching("j1", "on"))
    assert caching.mode_of(state, state.jobs["j1"], 0) == "off"


def test_a_registration_says_all_that_a_store_holds() -> None:
    state = cluster(ev.SplitsCached("s1", KEY, (1, 2)), ev.SplitsCached("s1", "old", (9,)))
    request = registration("s1", {KEY: [2, 3]})
    events = carry_out(state, caching.register_events(state, state.workers["w1"], request))
    assert events == [
        ev.SplitsCached("s1", KEY, (3,)),
        ev.SplitsUncached("s1", KEY, (1,)),
        ev.SplitsUncached("s1", "old", (9,)),
    ]
    assert {key: list(held) for key, held in state.stores["s1"].items()} == {KEY: [2, 3]}
    assert caching.register_events(state, state.workers["w1"], request) == []


def test_a_worker_without_a_store_says_nothing() -> None:
    state = build(worker(1))
    assert caching.register_events(state, state.workers["w1"], pb.RegisterWorkerRequest()) == []
    news = pb.SyncWorkerRequest(cached=[pb.CachedSplits(key=KEY, splits=[1])])
    assert caching.sync_events(state, state.workers["w1"], news) == []


def test_news_that_come_twice_change_nothing() -> None:
    state = cluster()
    news = pb.SyncWorkerRequest(cached=[pb.CachedSplits(key=KEY, splits=[1, 4])])
    lost = pb.SyncWorkerRequest(uncached=[pb.CachedSplits(key=KEY, splits=[4, 5])])
    held = state.workers["w1"]
    assert carry_out(state, caching.sync_events(state, held, news)) == [
        ev.SplitsCached("s1", KEY, (1, 4))
    ]
    assert caching.sync_events(state, held, news) == []
    assert carry_out(state, caching.sync_events(state, held, lost)) == [
        ev.SplitsUncached("s1", KEY, (4,))
    ]
    assert caching.sync_events(state, held, lost) == []


def test_split_numbers_that_would_take_too_much_memory_are_left_out() -> None:
    state = cluster()
    news = pb.SyncWorkerRequest(cached=[pb.CachedSplits(key=KEY, splits=[1 << 31, 7])])
    assert caching.sync_events(state, state.workers["w1"], news) == [
        ev.SplitsCached("s1", KEY, (7,))
    ]


def test_the_journal_keeps_what_is_cached_and_decided() -> None:
    decided = caching.decide(KEY, [3, 30, 3000, 900, 50, 100], 1 << 30, {KEY: 8})
    state = cluster(ev.SplitsCached("s1", KEY, (1, 700)), decided, mode="auto")
    state.apply(delivered(3))
    again = from_snapshot(to_snapshot(state))
    assert digest(again) == digest(state)
    assert list(again.stores["s1"][KEY]) == [1, 700]
    assert again.decisions == state.decisions
    assert again.jobs["j1"].cache == "auto"
    assert (again.workers["w1"].store, again.workers["w1"].cache_limit) == ("s1", 1 << 30)


def test_stores_that_nobody_has_are_forgotten_beyond_a_bound() -> None:
    state = build(worker(1))
    for number in range(caching.STORES_MAX + 10):
        state.apply(ev.StoreAttached("w1", f"s{number}", 1))
    assert len(state.stores) == caching.STORES_MAX
    assert state.workers["w1"].store in state.stores


@pytest.mark.parametrize(
    "event",
    [
        ev.DatasetCacheable("unknown", KEY),
        ev.JobCaching("j9", "on"),
        ev.JobCaching("j1", "sometimes"),
        ev.StoreAttached("w9", "s", 1),
        ev.SplitsCached("s9", KEY, (1,)),
        ev.SplitsUncached("s9", KEY, (1,)),
        ev.SplitsCached("s1", KEY, (1 << 24,)),
    ],
)
def test_events_that_do_not_fit_are_refused(event: ev.Event) -> None:
    state = cluster()
    before = digest(state)
    with pytest.raises(InvalidEventError):
        state.apply(event)
    assert digest(state) == before


def test_a_decision_stands() -> None:
    decided = caching.decide(KEY, [3, 30, 3000, 900, 50, 100], 1 << 30, {KEY: 8})
    state = cluster(decided)
    with pytest.raises(InvalidEventError):
        state.apply(decided)


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="off, put, on, auto, not 'yes'"):
        caching.checked_mode("yes")
    assert caching.checked_mode("") == "off"


def test_auto_decides_after_the_first_splits() -> None:
    state, measures = cluster(mode="auto"), caching.Measures()
    assert measures.take(state, [measure(), measure()]) == []
    (decided,) = carry_out(state, measures.take(state, [measure()]))
    assert isinstance(decided, ev.CacheDecided)
    assert decided.on
    assert (decided.splits, decided.elements, decided.produce_us) == (3, 30, 2700)
    assert caching.mode_of(state, state.jobs["j1"], 0) == "on"
    assert measures.take(state, [measure()] * 3) == []  # decided once


def test_auto_decides_with_the_only_split() -> None:
    state = cluster(mode="auto", splits=1)
    assert len(caching.Measures().take(state, [measure()])) == 1


@pytest.mark.parametrize(
    ("values", "on", "why"),
    [
        ({}, True, "wins back"),
        ({"read_us": 890}, False, "not win back"),
        ({"write_us": 800}, False, "not win back"),
        ({"write_us": 799}, True, "wins back"),
        ({"nbytes": 1 << 30}, False, "do not fit"),
    ],
)
def test_auto_caches_what_fits_and_pays_within_one_epoch(
    values: dict[str, int], on: bool, why: str
) -> None:
    state, measures = cluster(mode="auto"), caching.Measures()
    (decided,) = measures.take(state, [measure(**values)] * 3)
    assert isinstance(decided, ev.CacheDecided)
    assert decided.on is on
    assert why in decided.reason


def test_measures_of_what_nobody_wants_decided_are_forgotten() -> None:
    state, measures = cluster(mode="on"), caching.Measures()
    assert measures.take(state, [measure()] * 5) == []
    assert measures.sums == {}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200))))
def test_a_set_of_splits_is_a_set(steps: list[tuple[bool, int]]) -> None:
    held, model = SplitSet(), set[int]()
    for add, split in steps:
        if add:
            held.add(split)
            model.add(split)
        else:
            held.discard(split)
            model.discard(split)
        assert list(held) == sorted(model)
        assert len(held) == len(model)
    fresh = SplitSet()
    for split in model:
        fresh.add(split)
    assert held.to_bytes() == fresh.to_bytes()
