"""States and events for the tests of the pure core."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.dispatcher import events as ev
from penstock.dispatcher import failover
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.scheduler import assignments
from penstock.dispatcher.state import State
from penstock.dispatcher.validate import validate
from penstock.proto.deal import deal
from penstock.recovery.extensions import Answer
from penstock.recovery.failover import Budgets
from penstock.recovery.strategy import FailoverStrategy

NORMAL = FailoverStrategy.NORMAL_FAILOVER


def dataset(name: str = "d1", splits: int = 8, weights: tuple[int, ...] = ()) -> ev.Event:
    """A registered dataset."""
    return ev.DatasetRegistered(name, splits, weights, True, b"", 5)


def worker(number: int, *, slots: int = 2, standby: bool = False) -> ev.WorkerRegistered:
    """Worker `w<number>`."""
    return ev.WorkerRegistered(
        f"w{number}", f"inc{number}", f"host:{number}", "", "h", slots, standby, "2.21", number
    )


def job(
    number: int = 1,
    *,
    lanes: int = 2,
    streams: tuple[str, ...] = ("d1",),
    seed: int = 7,
    ordered: bool = True,
    attempts_max: int = 3,
) -> list[ev.Event]:
    """Job `j<number>` with a client."""
    name = f"job-{number}"
    return [
        ev.JobOpened(f"j{number}", name, streams, seed, lanes, 1, ordered, attempts_max),
        ev.ClientJoined(f"j{number}", f"client-{number}"),
    ]


def build(*events: ev.Event | Iterable[ev.Event]) -> State:
    """The state that events add up to, checked after each."""
    state = State()
    for item in events:
        for event in [item] if isinstance(item, ev.Event) else item:
            state.apply(event)
            validate(state, deal=True)
    return state


def schedule(state: State, facts: Facts | None = None) -> list[ev.AttemptAssigned]:
    """What the scheduler assigns, applied."""
    events = assignments(state, facts or Facts())
    for event in events:
        state.apply(event)
    validate(state, deal=True)
    return events


def assigned(events: Iterable[ev.Event]) -> list[tuple[int, str]]:
    """(split, worker) of assignments."""
    return [
        (event.split, event.worker) for event in events if isinstance(event, ev.AttemptAssigned)
    ]


def acts(events: Iterable[ev.Event]) -> list[ev.Event]:
    """The events without the faults that they raise."""
    return [event for event in events if not isinstance(event, ev.FaultRaised)]


def answered(state: State, strategy: FailoverStrategy = NORMAL, **more: str) -> list[ev.Event]:
    """What follows from the same answer to every open fault, applied."""
    out: list[ev.Event] = []
    for number in list(state.failover.open):
        events = failover.decide(state, number, Answer(strategy, "m::C", **more), Budgets())
        for event in events:
            state.apply(event)
        validate(state, deal=True)
        out += events
    return out


def delivered(split: int, *, job: str = "j1", epoch: int = 0, stream: int = 0) -> ev.Event:
    """A split that arrived."""
    return ev.SplitDelivered(job, stream, epoch, split, 10, 100 + split, split)


def lanes(splits: int, count: int, *, seed: int = 7, epoch: int = 0) -> list[list[int]]:
    """What `deal` gives to an unordered job."""
    return deal(splits, count, seed=seed, epoch=epoch)
