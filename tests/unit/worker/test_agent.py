"""The agent against a dispatcher that changes its mind, goes away, and comes back another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator

import grpc
import pytest

from penstock.errors import FollowedError, RefusedError, UsageError
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.timing import Timing
from penstock.worker.agent import INCARNATIONS_MAX, Agent
from penstock.worker.link import Backoff, Link, parse_addresses
from penstock.worker.messages import Assignment, AttemptError, Held, Key, State
from penstock.worker.requests import Identity

from .dispatchers import DEADLINE_S, FakeDispatcher
from .fakes import assignment

TIMING = Timing().scaled(0.2)


class Attempts:
    """What is held is what is desired; a test says how far it is."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.history: list[list[Assignment]] = []
        self.states: dict[int, Held] = {}
        self.dropped = 0

    def set_desired(self, assignments: Iterable[Assignment]) -> None:
        with self.changed:
            self.history.append(list(assignments))
            self.changed.notify_all()

    def drop_all(self) -> None:
        self.set_desired([])
        self.dropped += 1

    def held(self) -> list[Held]:
        with self.changed:
            now = self.history[-1] if self.history else []
            return [self.states.get(a.attempt, Held(a.attempt, State.RUNNING, 0)) for a in now]

    def until(self, *want: Assignment) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: bool(self.history) and self.history[-1] == list(want), DEADLINE_S
            ), self.history[-3:]


class Checkpoints:
    """Two splits; remembers which of them were wanted at each registration."""

    def __init__(self) -> None:
        self.keys = [Key("d1", 7, 0, 1), Key("d1", 7, 0, 2)]
        self.wanted: list[list[Key]] = []

    def offered(self) -> list[tuple[Key, int]]:
        return [(key, 100 * key.split) for key in self.keys]

    def retain(self, wanted: Iterable[Key], offered: Iterable[Key]) -> None:
        assert list(offered) == self.keys
        self.wanted.append(list(wanted))


class Rig:
    """An agent, its attempts and its dispatcher."""

    def __init__(self, *dispatchers: FakeDispatcher) -> None:
        self.attempts = Attempts()
        self.checkpoints = Checkpoints()
        self.link = Link([d.address for d in dispatchers], TIMING)
        identity = Identity("inc1", "127.0.0.1:1", "/u", "h1", 8, False, "2.0", 42, last_exit=137)
        self.changes = threading.Semaphore(0)
        self.agent = Agent(
            self.link, identity, self.attempts, TIMING, self.changes.release, self.checkpoints
        )
        self.agent.start()

    def report(self, held: Held) -> None:
        self.attempts.states[held.attempt] = held
        self.agent.report()

    def close(self) -> None:
        assert self.agent.close(DEADLINE_S)
        self.link.close()


@pytest.fixture
def dispatcher() -> Iterator[FakeDispatcher]:
    made = FakeDispatcher().start()
    yield made
    made.stop()


@pytest.fixture
def rig(dispatcher: FakeDispatcher) -> Iterator[Rig]:
    made = Rig(dispatcher)
    yield made
    made.close()


def test_it_registers_as_what_it_is(rig: Rig, dispatcher: FakeDispatcher) -> None:
    assert rig.changes.acquire(timeout=DEADLINE_S)
    (request,) = dispatcher.registrations
    assert (request.incarnation, request.address, request.unix_path) == (
        "inc1",
        "127.0.0.1:1",
        "/u",
    )
    assert (request.host_id, request.slots, request.standby, request.pid) == ("h1", 8, False, 42)
    assert request.protocol_version == PROTOCOL_VERSION
    assert rig.agent.worker == "w1"


def test_it_offers_what_is_on_its_disk_and_keeps_what_is_wanted(
    rig: Rig, dispatcher: FakeDispatcher
) -> None:
    assert rig.changes.acquire(timeout=DEADLINE_S)
    offered = dispatcher.registrations[0].checkpoints
    assert [(c.dataset, c.seed, c.epoch, c.split, c.elements) for c in offered] == [
        ("d1", 7, 0, 1, 100),
        ("d1", 7, 0, 2, 200),
    ]
    assert rig.checkpoints.wanted == [rig.checkpoints.keys]
    dispatcher.say(registered=False, unwanted={1})
    assert rig.changes.acquire(timeout=DEADLINE_S)
    assert rig.checkpoints.wanted[1] == rig.checkpoints.keys[1:]
    assert rig.attempts.dropped >= 1


def test_what_was_restored_is_told(rig: Rig, dispatcher: FakeDispatcher) -> None:
    dispatcher.say(desired=[assignment(1)])
    dispatcher.until(lambda: 1 in dispatcher.held())
    rig.report(Held(1, State.RUNNING, 7, restored=4, recomputed=2, waiting=True))
    dispatcher.until(lambda: dispatcher.held()[1].elements == 7)
    held = dispatcher.held()[1]
    assert (held.restored, held.recomputed, held.waiting) == (4, 2, True)


def test_it_says_when_it_leaves(rig: Rig, dispatcher: FakeDispatcher) -> None:
    assert rig.changes.acquire(timeout=DEADLINE_S)
    assert rig.agent.close(DEADLINE_S)
    assert dispatcher.syncs[-1].leaving
    assert dispatcher.syncs[-1].worker == "w1"


def test_what_is_desired_is_done_as_soon_as_it_is_said(
    rig: Rig, dispatcher: FakeDispatcher
) -> None:
    one, two = assignment(1, seed=5, trial=2, epoch=3), assignment(2)
    dispatcher.say(desired=[one])
    rig.attempts.until(one)
    dispatcher.say(desired=[one, two])
    rig.attempts.until(one, two)
    dispatcher.say(desired=[two])
    rig.attempts.until(two)


def test_news_ends_a_held_call(rig: Rig, dispatcher: FakeDispatcher) -> None:
    dispatcher.say(desired=[assignment(1)])
    rig.attempts.until(assignment(1))
    dispatcher.until(lambda: 1 in dispatcher.held())
    rig.report(Held(1, State.PRODUCED, 7))
    dispatcher.until(lambda: 1 in dispatcher.held() and dispatcher.held()[1].elements == 7)
    assert dispatcher.held()[1].state == State.PRODUCED
    rig.report(Held(1, State.FAILED, 7, "PIPELINE", "bad"))
    dispatcher.until(lambda: dispatcher.held()[1].detail == "bad")
    assert (dispatcher.held()[1].state, dispatcher.held()[1].code) == (State.FAILED, "PIPELINE")


def test_a_flood_of_news_does_not_keep_answers_away(rig: Rig, dispatcher: FakeDispatcher) -> None:
    done = threading.Event()

    def flood() -> None:
        while not done.is_set():
            rig.agent.report()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(1, 10):
            dispatcher.say(desired=[assignment(number)])
            rig.attempts.until(assignment(number))
    finally:
        done.set()
        thread.join()


def test_a_worker_that_is_not_known_drops_everything_and_registers_again(
    rig: Rig, dispatcher: FakeDispatcher
) -> None:
    dispatcher.say(desired=[assignment(1)])
    rig.attempts.until(assignment(1))
    before = len(rig.attempts.history)
    dispatcher.say(registered=False, desired=[assignment(2)])
    dispatcher.until(lambda: len(dispatcher.registrations) == 2)
    assert dispatcher.registrations[1].incarnation == "inc1"
    # How the process before it ended is told once: by now others may have been at its address.
    assert [request.last_exit for request in dispatcher.registrations] == [137, 0]
    rig.attempts.until(assignment(2))
    assert [] in rig.attempts.history[before:]


def test_a_dispatcher_that_comes_back_with_a_higher_term_is_obeyed(
    rig: Rig, dispatcher: FakeDispatcher
) -> None:
    dispatcher.say(desired=[assignment(1)])
    rig.attempts.until(assignment(1))
    dispatcher.stop()
    dispatcher.term = 2
    dispatcher.desired = [assignment(1), assignment(2)]
    dispatcher.start()
    rig.attempts.until(assignment(1), assignment(2))
    assert rig.agent.term == 2
    assert len(dispatcher.registrations) == 1  # it was known, so nothing was dropped
    assert [] not in rig.attempts.history[1:]


def test_a_reply_of_a_lower_term_changes_nothing(rig: Rig, dispatcher: FakeDispatcher) -> None:
    dispatcher.say(term=5, desired=[assignment(1)])
    rig.attempts.until(assignment(1))
    dispatcher.say(term=4, desired=[])
    heard = len(dispatcher.syncs)
    dispatcher.until(lambda: len(dispatcher.syncs) >= heard + 3)  # it asks again, and again
    rig.attempts.until(assignment(1))
    dispatcher.say(term=6, desired=[assignment(2)])
    rig.attempts.until(assignment(2))


def test_the_next_address_is_tried(dispatcher: FakeDispatcher) -> None:
    other = FakeDispatcher().start()
    other.stop()  # its port is free: nobody answers there
    rig = Rig(other, dispatcher)
    try:
        assert rig.changes.acquire(timeout=DEADLINE_S)
        assert rig.link.address == dispatcher.address
    finally:
        rig.close()


def test_a_refusal_is_final(dispatcher: FakeDispatcher) -> None:
    dispatcher.refuse = (grpc.StatusCode.FAILED_PRECONDITION, "another protocol version")
    rig = Rig(dispatcher)
    try:
        assert rig.changes.acquire(timeout=DEADLINE_S)
        assert isinstance(rig.agent.error, RefusedError)
        assert "another protocol version" in str(rig.agent.error)
    finally:
        rig.close()


def test_one_that_is_taken_for_the_process_before_it_registers_anew_but_not_for_ever(
    dispatcher: FakeDispatcher,
) -> None:
    dispatcher.refuse = (grpc.StatusCode.FAILED_PRECONDITION, "w1 was followed by w2")
    dispatcher.refuse_as = "FollowedError"
    rig = Rig(dispatcher)
    try:
        assert rig.changes.acquire(timeout=DEADLINE_S)
        assert isinstance(rig.agent.error, FollowedError)
        incarnations = [request.incarnation for request in dispatcher.registrations]
        assert len(incarnations) == len(set(incarnations)) == INCARNATIONS_MAX
    finally:
        rig.close()


def test_a_dispatcher_that_is_away_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = FakeDispatcher().start()
    away.stop()
    warned = threading.Event()

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if away.address in record.getMessage() and record.levelno == logging.WARNING:
                warned.set()

    logger = logging.getLogger("penstock.worker.agent")
    handler = Catch()
    logger.addHandler(handler)
    rig = Rig(away)
    try:
        assert warned.wait(DEADLINE_S)
        away.start()
        assert rig.changes.acquire(timeout=DEADLINE_S)
    finally:
        logger.removeHandler(handler)
        rig.close()
        away.stop()


def test_who_is_registered_goes_on_without_a_look_at_what_is_wrong(
    dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    monkeypatch.setattr("penstock.security.faults.find_fault", lambda at, _: looks.append(at))
    rig = Rig(dispatcher)
    try:
        assert rig.changes.acquire(timeout=DEADLINE_S)
        dispatcher.until(lambda: bool(dispatcher.syncs))
        dispatcher.stop()
        heard = len(dispatcher.syncs)
        dispatcher.start()
        dispatcher.until(lambda: len(dispatcher.syncs) > heard)
        assert not looks  # it may take seconds, and another dispatcher may be there
    finally:
        rig.close()


def test_a_dataset_is_put_together_and_a_missing_one_is_an_error(
    dispatcher: FakeDispatcher,
) -> None:
    link = Link([dispatcher.address], TIMING)
    dispatcher.blobs["d1"] = bytes(range(256)) * 20
    assert link.get_dataset("d1") == dispatcher.blobs["d1"]
    with pytest.raises(AttemptError, match="d2: no such dataset") as caught:
        link.get_dataset("d2")
    assert caught.value.code == "DATASET"
    link.close()
    with pytest.raises(AttemptError, match="this worker stops"):
        link.get_dataset("d1")


def test_backoff_doubles_its_pauses_and_warns_more_and_more_rarely() -> None:
    now = [0.0]
    backoff = Backoff(Timing(), clock=lambda: now[0])
    pauses, warnings = [], []
    for _ in range(100):
        pause, lasted = backoff.failed()
        pauses.append(pause)
        if lasted is not None:
            warnings.append(round(now[0]))
        now[0] += 1.0
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert warnings == [10, 20, 40, 80]
    assert backoff.reset() == pytest.approx(100.0)
    assert backoff.failed() == (0.05, None)
    assert backoff.reset() is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2", ("a:1", "b:2")),
        ("[::1]:5050", ("[::1]:5050",)),
    ],
)
def test_addresses(text: str, want: tuple[str, ...]) -> None:
    assert parse_addresses(text) == want


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:0", "a:65536", "a:1,", "::1:5050", "a:b"])
def test_what_is_not_an_address_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_addresses(text)
