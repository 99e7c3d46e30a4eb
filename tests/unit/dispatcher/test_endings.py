"""How processes ended: told by supervisors, afterwards, of the right ones."""

from __future__ import annotations

import pytest

from penstock.dispatcher import admission, faults
from penstock.dispatcher import events as ev
from penstock.dispatcher.faults import info_of, worker_faults
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.proto import control_pb2
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.recovery.failover import Budgets, FailureKind
from penstock.recovery.strategy import FailoverStrategy

from .builders import answered, worker
from .test_failover import die, fail, running

NORMAL, NODE, *_ = FailoverStrategy


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (-9, (0, "SIGKILL")),
        (137, (137, "SIGKILL")),
        (3, (3, "")),
        (0, (0, "")),
        (-999, (0, "")),
        (255, (255, "")),
    ],
)
def test_how_a_supervisor_tells_of_an_end(told: int, wanted: tuple[int, str]) -> None:
    assert faults.ending(told) == wanted


def test_how_a_worker_ended_is_told_by_its_successor_after_the_decision() -> None:
    state = running(worker(1), worker(2))
    die(state, "w1")
    answered(state, NORMAL)
    assert faults.explained(state, "host:9", 137) == faults.explained(state, "host:1", 0) == []
    (told,) = faults.explained(state, "host:1", 137)
    state.apply(told)
    state = from_snapshot(to_snapshot(state))
    fail(state, next(iter(state.workers["w2"].attempts)))
    (earlier,) = info_of(state, state.failover.next_fault - 1, 0.0, {}, {}, Budgets()).earlier
    assert (earlier.exit_code, earlier.signal) == (137, "SIGKILL")


def test_how_a_worker_ended_is_not_told_of_what_it_did_before() -> None:
    state = running(worker(1), worker(2))
    (bad,) = worker_faults(state, "w1", FailureKind.BAD_WORKER, "made something else")
    state.apply(bad)
    answered(state, NODE)
    die(state, "w1")
    state.apply(ev.DeathExplained(state.lost["w1"].incarnation, 0, "SIGKILL"))
    (retired, _), open_ = state.failover.decided[1], state.failover.open[2]
    assert (retired.signal, open_.signal) == ("", "SIGKILL")


def test_a_worker_that_comes_back_does_not_tell_of_its_own_end() -> None:
    state = running(worker(1), worker(2))
    die(state, "w1")
    assert state.lost["w1"].address == "host:1"
    request = control_pb2.RegisterWorkerRequest(
        protocol_version=PROTOCOL_VERSION, address="host:1", slots=2, last_exit=137
    )
    request.incarnation = state.lost["w1"].incarnation  # it was only silent
    (registered,) = admission.register_worker(state, request)
    assert isinstance(registered, ev.WorkerRegistered)
    request.incarnation = "another"
    told, registered = admission.register_worker(state, request)
    assert told == ev.DeathExplained(state.lost["w1"].incarnation, 137, "SIGKILL")
