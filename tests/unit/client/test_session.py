"""A whole client against a fake dispatcher and fake workers, over real sockets and gRPC."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from penstock.client.options import JobOptions
from penstock.client.reader import Reader
from penstock.client.session import Session
from penstock.errors import (
    JobFailedError,
    NotFoundError,
    RefusedError,
    ReplayMismatchError,
    UnavailableError,
    UsageError,
)
from penstock.proto.deal import deal
from penstock.timing import Timing

from .conftest import eventually
from .fakes import FakeDispatcher, numbers
from .test_lanes_model import reference

NAME = "f" * 32


def expected(splits: int, per_split: int, *, lanes: int, block: int, epoch: int = 0) -> list[int]:
    """The numbers of an epoch in the prescribed order, for the fake dispatcher's seed."""
    dealt = deal(splits, lanes, seed=99, epoch=epoch)
    sequence = reference(dealt, dict.fromkeys(range(splits), per_split), block)
    return [split * per_split + index for split, index in sequence]


def values(reader: Reader) -> list[int]:
    return [int(element[0]) for element in reader]


def test_g1_g3_every_element_once_in_the_prescribed_order(
    make_workers, make_dispatcher, timing
) -> None:
    dispatcher = make_dispatcher(make_workers(3))
    dispatcher.register(NAME, 20)
    with Reader(NAME, dispatcher.address, lanes=4, block=3, timing=timing) as reader:
        assert values(reader) == expected(20, 100, lanes=4, block=3)
        assert values(reader) == expected(20, 100, lanes=4, block=3, epoch=1)
        assert reader.epochs == 2
        assert {digest.count for digest in reader.digests.values()} == {2000}
    assert dispatcher.finished.keys() == {(0, 0), (0, 1)}
    assert set(dispatcher.done[0, 0]) == set(range(20))
    assert len(dispatcher.closed_clients) == 1


def test_a_step_that_is_none_is_refused_and_not_sent(make_workers, make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher(make_workers(1))
    dispatcher.register(NAME, 2)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        elements = iter(reader)
        seen = [next(elements)]
        reader.report_step(np.int64(3))  # type: ignore[arg-type]
        for wrong in (-1, 1.5, True, "3"):
            with pytest.raises(UsageError, match="step must be a whole number from 0"):
                reader.report_step(wrong)  # type: ignore[arg-type]
        assert len([*seen, *elements]) == 200


def test_g5_the_end_waits_for_the_dispatchers_word(make_workers, make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher(make_workers(1))
    dispatcher.register(NAME, 2)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        seen = []
        for element in reader:
            seen.append(int(element[0]))
            if len(seen) == 200:
                assert (0, 0) not in dispatcher.finished
        assert (0, 0) in dispatcher.finished
        assert dispatcher.finished[0, 0].total == reader.digests[0].total


def test_g1_a_worker_that_dies_is_replaced_and_the_replay_is_verified(
    make_workers, make_dispatcher, timing
) -> None:
    workers = make_workers(2)
    dispatcher = make_dispatcher(workers)
    dispatcher.register(NAME, 12)
    for worker in workers:
        worker.pause_after = 50
    with Reader(NAME, dispatcher.address, lanes=4, block=3, timing=timing) as reader:
        elements = iter(reader)
        seen = [int(next(elements)[0]) for _ in range(100)]
        workers[0].close()
        workers[1].pause_after = None
        dispatcher.place_all_on(workers[1])
        seen += [int(element[0]) for element in elements]
    assert seen == expected(12, 100, lanes=4, block=3)
    assert any(fetch["verify"] and fetch["from"] > 0 for fetch in workers[1].fetches)


def test_a_broken_connection_is_made_again_for_the_same_attempts(
    make_workers, make_dispatcher, timing
) -> None:
    (worker,) = make_workers(1)
    worker.pause_after = 50
    dispatcher = make_dispatcher([worker])
    dispatcher.replace_on_problem = False
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, lanes=2, block=3, timing=timing) as reader:
        elements = iter(reader)
        seen = [int(next(elements)[0]) for _ in range(90)]
        worker.pause_after = None
        worker.welcoming.clear()  # a problem that is over at once is not reported
        worker.drop_connections()
        assert eventually(lambda: dispatcher.problems)
        worker.welcoming.set()
        seen += [int(element[0]) for element in elements]
    assert seen == expected(4, 100, lanes=2, block=3)
    assert dispatcher.problems[0].code == "UNREACHABLE"
    again = [fetch for fetch in worker.fetches if fetch["from"] > 0]
    assert again
    assert not any(fetch["verify"] for fetch in again)


def test_another_process_at_a_workers_address_is_not_taken_for_it(
    make_workers, make_dispatcher, timing
) -> None:
    wrong, right = make_workers(2)
    wrong.announced = "somebody"
    dispatcher = make_dispatcher([wrong, right])
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        assert sorted(values(reader)) == list(range(400))
    assert "worker 'somebody'" in dispatcher.problems[0].detail
    assert not wrong.fetches


def test_an_attempt_that_is_gone_is_reported_and_replaced(
    make_workers, make_dispatcher, timing
) -> None:
    workers = make_workers(2)
    for worker in workers:
        worker.fail = {1: ("GONE", "never heard of it")}
    dispatcher = make_dispatcher(workers)
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        assert sorted(values(reader)) == list(range(400))
    (problem,) = dispatcher.problems
    assert (problem.attempt, problem.code, problem.detail) == (1, "GONE", "never heard of it")


def test_g4_bytes_that_have_not_the_announced_hash_are_never_delivered(
    make_workers, make_dispatcher, timing
) -> None:
    workers = make_workers(2)
    for worker in workers:
        worker.broken = {2}
    dispatcher = make_dispatcher(workers)
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        assert sorted(values(reader)) == list(range(400))
    (problem,) = dispatcher.problems
    assert (problem.attempt, problem.code) == (2, "MISMATCH")
    assert "element 0" in problem.detail


def test_g4_a_replay_with_other_values_fails_the_job_by_name(
    make_workers, make_dispatcher, timing
) -> None:
    workers = make_workers(2)
    workers[0].pause_after = 50
    workers[1].data = lambda split, epoch: [numbers(100)(split, epoch)[0] + (split == 0)]
    dispatcher = make_dispatcher(workers[:1])
    dispatcher.register(NAME, 2)
    with Reader(NAME, dispatcher.address, lanes=2, timing=timing) as reader:
        elements = iter(reader)
        next(elements)
        (epoch,) = reader._session.start()._readers
        assert eventually(lambda: epoch.core._splits[0].received == 50)
        dispatcher.fails_on = "MISMATCH"
        dispatcher.place_all_on(workers[1])
        said = r"decided: split 0, attempt \d on worker w1.*element 0"
        with pytest.raises(ReplayMismatchError, match=said):
            list(elements)
        assert isinstance(reader.error, ReplayMismatchError)


def test_g9_a_failed_job_ends_the_iteration_with_the_dispatchers_reason(
    make_workers, make_dispatcher, timing
) -> None:
    dispatcher = make_dispatcher([])
    dispatcher.register(NAME, 2)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        threading.Timer(0.1, lambda: _fail(dispatcher)).start()
        with pytest.raises(JobFailedError, match="split 1 failed: no such file"):
            list(reader)
        with pytest.raises(JobFailedError):
            list(reader)


def _fail(dispatcher: FakeDispatcher) -> None:
    dispatcher.failure = "split 1 failed: no such file"
    dispatcher.news()


def test_a_dispatcher_may_restart_in_a_new_term(make_workers, make_dispatcher, timing) -> None:
    (worker,) = make_workers(1)
    worker.pause_after = 50
    first = make_dispatcher([worker])
    first.register(NAME, 4)
    with Reader(NAME, first.address, lanes=2, block=3, timing=timing) as reader:
        elements = iter(reader)
        seen = [int(next(elements)[0]) for _ in range(90)]
        first.stop()
        worker.pause_after = None
        make_dispatcher([worker], port=first.port, like=first)
        # The paused worker has to be asked for more by somebody.
        worker.drop_connections()
        seen += [int(element[0]) for element in elements]
        assert reader._session.start()._term == 2
        assert sorted(values(reader)) == list(range(400))
    assert seen == expected(4, 100, lanes=2, block=3)


def test_a_client_announces_itself_once_a_term(make_workers, make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher(make_workers(1))
    dispatcher.register(NAME, 1)
    dispatcher.restarts_before_open = 2
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        assert sorted(values(reader)) == list(range(100))
    assert dispatcher.opened == [(1, 1), (2, 2), (3, 3)]


def test_g8_a_reply_of_an_older_term_is_ignored(make_workers, make_dispatcher, timing) -> None:
    (worker,) = make_workers(1)
    dispatcher = make_dispatcher([worker])
    dispatcher.register(NAME, 1)
    session = Session(dispatcher.address, NAME, JobOptions(timing=timing))
    engine = session.start()
    engine._term = 5
    session.read()
    assert eventually(lambda: len(dispatcher.requests) > 2)
    assert worker.fetches == []
    session.close()


def test_a_dispatcher_that_forgot_the_job_is_a_clear_error_and_no_second_epoch(
    make_workers, make_dispatcher, timing
) -> None:
    (worker,) = make_workers(1)
    worker.pause_after = 50
    dispatcher = make_dispatcher([worker])
    dispatcher.register(NAME, 2)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        elements = iter(reader)
        next(elements)
        dispatcher.known = False
        dispatcher.news()
        with pytest.raises(RefusedError, match="does not know job j1 any more"):
            list(elements)


def test_nobody_at_the_address_is_an_error_that_says_so(timing: Timing) -> None:
    impatient = Timing(connect_deadline_s=0.3)
    with (
        Reader(NAME, "127.0.0.1:1", timing=impatient) as reader,
        pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 .*penstock dispatcher"),
    ):
        list(reader)


def test_of_several_addresses_the_one_that_answers_is_used(
    make_workers, make_dispatcher, timing
) -> None:
    dispatcher = make_dispatcher(make_workers(1))
    dispatcher.register(NAME, 2)
    addresses = f"127.0.0.1:1, {dispatcher.address}"
    with Reader(NAME, addresses, timing=timing) as reader:
        assert sorted(values(reader)) == list(range(200))


def test_an_unknown_fingerprint_is_not_found(make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher()
    with (
        Reader("feedbeef", dispatcher.address, timing=timing) as reader,
        pytest.raises(NotFoundError, match="feedbeef"),
    ):
        list(reader)


def test_a_refused_job_raises_the_named_error(make_dispatcher, timing) -> None:
    from penstock.errors import SpecMismatchError

    dispatcher = make_dispatcher()
    dispatcher.register(NAME, 1)
    with (
        Reader(NAME, dispatcher.address, job_name="taken", timing=timing) as reader,
        pytest.raises(SpecMismatchError, match="another dataset"),
    ):
        list(reader)
