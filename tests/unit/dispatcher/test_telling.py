"""Who is told of an event at once, and who with the next answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher import events as ev
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.news import News
from penstock.dispatcher.scheduler import assignments
from penstock.dispatcher.state import State
from penstock.dispatcher.telling import FAR, Telling

from .builders import build, dataset, delivered, job, worker
from .cluster import HOLD_MS, Client, Worker, progress, put_dataset, run, serving

EPOCH = ev.EpochStarted("j1", 0, 0)


class Crowd:
    """A state with workers, and who was told aloud since it was looked at last."""

    def __init__(self, workers: int, *, slots: int, splits: int, lanes: int = 1) -> None:
        self.state = build(dataset(splits=splits), job(lanes=lanes))
        for number in range(1, workers + 1):
            self.state.apply(worker(number, slots=slots))
        self.state.apply(EPOCH)
        self.produced: dict[str, set[int]] = {}
        self.aloud: set[str] = set()
        crowd = self

        class Listening(News):
            def bump(self, peers: object, *, quietly: bool = False) -> None:
                if not quietly:
                    crowd.aloud |= set(peers)  # type: ignore[call-overload]

        self.telling = Telling(self.state, Listening(), self.produced)

    def apply(self, event: ev.Event) -> None:
        self.telling.tell(event, self.state.apply(event))

    def schedule(self) -> list[ev.AttemptAssigned]:
        events = assignments(self.state, Facts(produced=self.produced))
        for event in events:
            self.apply(event)
        return events

    def heard(self) -> set[str]:
        """Who was told aloud since the last time."""
        aloud, self.aloud = self.aloud, set()
        return aloud

    def all_are_told(self) -> None:
        for name in self.state.workers:
            self.telling.told(name)


def running(state: State, split: int) -> ev.AttemptAssigned:
    return next(attempt for attempt in state.attempts.values() if attempt.split == split)


def full() -> Crowd:
    """Four workers with four attempts each, of one lane, which they know of."""
    crowd = Crowd(4, slots=4, splits=100)
    crowd.schedule()
    crowd.all_are_told()
    crowd.heard()
    return crowd


def test_who_has_nothing_to_do_is_told_at_once() -> None:
    crowd = Crowd(4, slots=4, splits=100)
    crowd.schedule()
    assert crowd.heard() == {"w1", "w2", "w3", "w4", "j1"}


def test_what_is_far_ahead_waits_on_a_worker_with_enough_to_do() -> None:
    crowd = full()
    crowd.apply(delivered(0))
    (event,) = crowd.schedule()
    assert event.split == 16
    assert crowd.heard() == set()


def test_what_is_needed_soon_is_told_at_once() -> None:
    crowd = full()
    again = running(crowd.state, FAR - 1)
    crowd.apply(ev.AttemptDropped(again.attempt, "GONE"))
    crowd.heard()
    (event,) = crowd.schedule()
    assert event.split == again.split
    assert crowd.heard() == {event.worker, "j1"}


def test_a_worker_with_half_of_its_work_untold_is_told() -> None:
    crowd = full()
    aloud = []
    for split in (0, 4, 8):  # of the first worker
        crowd.apply(delivered(split))
        assert crowd.schedule()[0].worker == "w1"
        aloud.append(crowd.heard())
    assert aloud == [set(), set(), {"w1", "j1"}]


def test_what_is_produced_is_no_work() -> None:
    crowd = full()
    crowd.produced["w1"] = {running(crowd.state, split).attempt for split in (4, 8, 12)}
    crowd.apply(delivered(0))
    assert {event.worker for event in crowd.schedule()} == {"w1"}
    assert "w1" in crowd.heard()


def test_what_comes_near_is_told_if_it_is_not_known() -> None:
    crowd = full()
    crowd.apply(delivered(0))
    (event,) = crowd.schedule()
    for split in range(1, event.split - FAR + 1):
        assert crowd.heard() == set()
        crowd.apply(delivered(split))
    assert crowd.heard() == {event.worker}


def test_what_comes_near_is_not_told_twice() -> None:
    crowd = full()
    crowd.apply(delivered(0))
    (event,) = crowd.schedule()
    crowd.telling.told(event.worker)
    for split in range(1, event.split - FAR + 1):
        crowd.apply(delivered(split))
    assert crowd.heard() == set()


@given(
    st.lists(
        st.tuples(st.sampled_from(["deliver", "deliver", "produce", "call"]), st.integers(0, 60)),
        max_size=60,
    )
)
def test_nobody_sits_on_what_is_needed_soon(steps: list[tuple[str, int]]) -> None:
    crowd = Crowd(3, slots=4, splits=60, lanes=2)
    state, known = crowd.state, set[int]()

    def call(name: str) -> None:
        crowd.telling.told(name)
        known.update(state.workers[name].attempts)

    for step, place in [("call", 0), *steps]:
        attempts = list(state.attempts.values())
        if step == "call":
            call(f"w{place % 3 + 1}")
        elif attempts:
            attempt = attempts[place % len(attempts)]
            if step == "deliver":
                crowd.apply(delivered(attempt.split))
                crowd.produced.get(attempt.worker, set()).discard(attempt.attempt)
            else:
                crowd.produced.setdefault(attempt.worker, set()).add(attempt.attempt)
        crowd.schedule()
        for name in crowd.heard() & set(state.workers):
            call(name)
        book = state.book(state.jobs["j1"], state.jobs["j1"].epochs[0, 0])
        for attempt in state.attempts.values():
            assert attempt.attempt in known or book.ahead(attempt.split) >= FAR
        for name, at in state.workers.items():
            todo = known.intersection(at.attempts) - crowd.produced.get(name, set())
            told_of = known.issuperset(at.attempts)
            assert told_of or step == "produce" or 2 * len(todo) + 2 >= at.slots


def test_a_held_call_is_not_answered_for_what_is_far_ahead(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub, splits=40)
            client = Client(stub)
            await client.open(lanes=1, ordered=True)
            one = Worker(stub)
            await one.register(slots=16)
            await client.sync(progress())
            first = await one.sync({})
            assert len(first.attempts) == 16
            held = asyncio.ensure_future(one.sync({}, hold_ms=HOLD_MS))
            while dispatcher.engine.news._peers[one.name].held is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for split in range(9):  # the split after these sixteen comes near with the last one
                await asyncio.sleep(0)
                assert not held.done()
                await client.sync(progress(done=[split]))
            reply = await asyncio.wait_for(held, 10.0)
            assert sorted(spec.split for spec in reply.attempts) == list(range(9, 25))

    run(test())
