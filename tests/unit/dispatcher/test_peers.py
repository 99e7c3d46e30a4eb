"""Peers that die, return, lie low or come late, over real gRPC: who gets what, and what is said."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path

import grpc
import pytest

from penstock.proto import control_pb2 as pb
from penstock.timing import Timing

from .cluster import (
    FAILED,
    FINGERPRINT,
    PATIENT,
    PRODUCED,
    QUICK,
    RUNNING,
    Client,
    Worker,
    opened,
    placed,
    progress,
    put_dataset,
    refusal,
    run,
    serving,
    status_of,
    workers_of,
)


def checkpoint(split: int, *, epoch: int = 0, seed: int = 7) -> pb.Checkpoint:
    return pb.Checkpoint(dataset=FINGERPRINT, seed=seed, epoch=epoch, split=split, elements=5)


# A worker that restarts at its address.


def test_a_restarted_worker_gets_back_what_it_can_continue(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            client = await opened(stub, splits=6, lanes=6)
            others = [Worker(stub, f"other-{n}", f"127.0.0.1:{7100 + n}") for n in range(2)]
            first = Worker(stub)
            for worker in (others[0], first, others[1]):
                await worker.register()
            mine = [
                split
                for split, on in workers_of(await client.sync(progress())).items()
                if on == first.name
            ]
            again = Worker(stub, "worker-again")
            offered = [*mine, 99]
            points = [checkpoint(split) for split in offered]
            points += [checkpoint(mine[0], epoch=1), checkpoint(mine[0], seed=8)]
            reply = await again.register(checkpoints=points)
            assert list(reply.wanted) == list(range(len(mine)))
            assert (await again.register(checkpoints=points)) == reply
            after = workers_of(await client.sync(progress()))
            assert {split for split, on in after.items() if on == again.name} == set(mine)
            status = await status_of(stub)
            offers = {worker["id"]: worker.get("offers") for worker in status["workers"]}
            assert offers[again.name] == len(mine)
            await client.sync(progress(done=mine))
            await client.sync()  # gives the epoch up
            await again.sync()
            assert {w.get("offers", 0) for w in (await status_of(stub))["workers"]} == {0}

    run(test())


def test_a_request_of_the_older_process_at_an_address_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            client = await opened(stub)
            old, new = Worker(stub), Worker(stub, "worker-new")
            await old.register()
            before = placed(await client.sync(progress()))
            await new.register()
            after = placed(await client.sync(progress()))
            records = dispatcher.engine.committer.records
            attempts = {
                **dict.fromkeys(before.values(), FAILED),
                **dict.fromkeys(after.values(), FAILED),
            }
            assert not (await old.sync(attempts)).registered
            assert not (await old.sync(leaving=True)).registered
            code, text, named = await refusal(old.register())
            assert (code, named) == (grpc.StatusCode.FAILED_PRECONDITION, "FollowedError")
            assert f"followed by worker {new.name}" in text
            old.name = new.name  # even if it guesses the id
            assert not (await old.sync(attempts)).registered
            assert dispatcher.engine.committer.records == records
            assert placed(await client.sync(progress())) == after

    run(test())


def test_an_old_attempts_failure_after_the_reassignment_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            client = await opened(stub, splits=1, lanes=1)
            worker, other = Worker(stub), Worker(stub, "other", "127.0.0.1:7002")
            await worker.register()
            first = placed(await client.sync(progress()))[0]
            await other.register()
            await worker.sync({first: FAILED})
            await dispatcher.engine.deciding.idle()
            second = placed(await client.sync(progress()))[0]
            records = dispatcher.engine.committer.records
            await worker.sync({first: FAILED, second: FAILED})  # the second is the other's
            await other.sync({first: FAILED, second: RUNNING})
            await dispatcher.engine.deciding.idle()
            assert dispatcher.engine.committer.records == records
            assert placed(await client.sync(progress())) == {0: second}

    run(test())


def test_an_overtaken_report_of_a_worker_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            client = await opened(stub, splits=3, lanes=1)
            worker = Worker(stub)
            await worker.register(slots=1)
            (attempt,) = placed(await client.sync(progress())).values()
            await worker.sync(reports=[pb.HeldAttempt(attempt=attempt, state=PRODUCED, elements=9)])
            assert len(placed(await client.sync(progress()))) == 2
            records = dispatcher.engine.committer.records
            await worker.sync(reports=[pb.HeldAttempt(attempt=attempt, state=RUNNING, elements=4)])
            await worker.sync()
            assert dispatcher.engine.committer.records == records
            (shown, _) = (await status_of(stub))["jobs"][0]["streams"][0]["attempts"]
            assert (shown["produced"], shown["elements"]) == (True, 9)

    run(test())


# A worker that was silent and comes back.


def test_a_late_worker_is_a_standby_and_its_old_attempts_are_void(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=QUICK) as (_, stub):
            client = await opened(stub)
            late, standby = Worker(stub), Worker(stub, "worker-s", "127.0.0.1:7009")
            await late.register()
            await standby.register(standby=True)
            old = set(placed(await client.sync(progress())).values())
            while not (await standby.sync(hold_ms=50)).attempts:
                await client.sync(progress())
            assert (await late.register()).worker == late.name
            assert not (await late.sync(dict.fromkeys(old, PRODUCED))).attempts
            new = set(placed(await client.sync(progress())).values())
            assert min(new) > max(old)
            states = {w["id"]: w["state"] for w in (await status_of(stub))["workers"]}
            assert states == {standby.name: "live", late.name: "standby"}
            await standby.sync(leaving=True)
            assert {s.attempt for s in (await late.sync()).attempts} == set(
                placed(await client.sync(progress())).values()
            )

    run(test())


# An attempt that stands still.


def test_a_stuck_attempt_is_made_elsewhere_while_the_worker_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        timing = dataclasses.replace(PATIENT, progress_timeout_s=0.4, warn_after_s=0.1)
        async with serving(tmp_path, timing=timing) as (_, stub):
            client = await opened(stub, splits=1, lanes=1)
            worker, other = Worker(stub), Worker(stub, "other", "127.0.0.1:7002")
            await worker.register()
            first = placed(await client.sync(progress()))[0]
            await other.register()
            view = await client.sync(progress())
            slow: list[str] = []
            while placed(view) == {0: first}:
                await worker.sync(reports=[pb.HeldAttempt(attempt=first, elements=17)], hold_ms=20)
                slow += (await status_of(stub))["waiting"]
                view = await client.sync(progress(), hold_ms=20)
            assert workers_of(view) == {0: other.name}
            (spec,) = (await other.sync()).attempts
            assert spec.trial == 2
            assert any("waits for split 0" in text and "17 elements" in text for text in slow)

    with caplog.at_level(logging.WARNING):
        run(test())
    assert sum("waits for split 0" in record.message for record in caplog.records) >= 1
    assert sum("STUCK" in record.message for record in caplog.records) == 1


def test_an_attempt_with_a_full_buffer_or_without_the_watchdog_is_left_alone(
    tmp_path: Path,
) -> None:
    async def test(timing: Timing, *, waiting: bool) -> None:
        async with serving(tmp_path / str(waiting), timing=timing) as (_, stub):
            client = await opened(stub, splits=1, lanes=1)
            worker = Worker(stub)
            await worker.register()
            first = placed(await client.sync(progress()))[0]
            report = pb.HeldAttempt(attempt=first, elements=17, waiting=waiting)
            loop = asyncio.get_running_loop()
            end = loop.time() + 0.5
            while loop.time() < end:
                await worker.sync(reports=[report], hold_ms=20)
            assert placed(await client.sync(progress())) == {0: first}
            (shown,) = (await status_of(stub))["jobs"][0]["streams"][0]["attempts"]
            assert shown["waiting"] == waiting
            assert (shown["stalled_s"] == 0.0) == waiting

    run(test(dataclasses.replace(PATIENT, progress_timeout_s=0.1), waiting=True))
    run(test(dataclasses.replace(PATIENT, progress_timeout_s=0.0), waiting=False))


def test_after_a_restart_every_attempt_gets_a_fresh_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            client = await opened(stub)
            await Worker(stub).register()
            before = placed(await client.sync(progress()))
        async with serving(tmp_path) as (dispatcher, _):
            made = dispatcher.engine.reports.progress
            assert set(made) == set(before.values())
            started_s = dispatcher.engine.started_s
            assert all(progress.since_s >= started_s for progress in made.values())

    run(test())


def test_the_status_shows_what_was_restored_and_recomputed(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            client = await opened(stub, splits=2, lanes=2)
            worker = Worker(stub)
            await worker.register()
            one, two = placed(await client.sync(progress())).values()
            reports = [
                pb.HeldAttempt(attempt=one, elements=40, restored=30, recomputed=4),
                pb.HeldAttempt(attempt=two, elements=6, waiting=True),
            ]
            await worker.sync(reports=reports)
            (job,) = (await status_of(stub))["jobs"]
            shown = {item["attempt"]: item for item in job["streams"][0]["attempts"]}
            assert (shown[one]["restored"], shown[one]["recomputed"]) == (30, 4)
            assert (shown[two]["waiting"], shown[two]["stalled_s"]) == (True, 0.0)
            done = [
                split for split, at in placed(await client.sync(progress())).items() if at == one
            ]
            await client.sync(progress(done=done))
            reports[0].recomputed = 5  # its last words, a little late
            await worker.sync(reports=reports)
            for _ in range(2):
                status = await status_of(stub)
                for counted in (status, status["jobs"][0]):
                    assert counted["recomputed_elements"] == 5
                    assert counted["restored_attempts"] == 1
                await client.sync()

    run(test())


# A client that is sent away in vain.


def test_a_split_that_is_never_where_it_should_be_fails_the_job(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            client = await opened(stub, splits=1, lanes=1)
            worker = Worker(stub)
            await worker.register()
            view = await client.sync(progress())
            asked = 0
            while not view.failure:
                asked += 1
                gone = pb.Problem(attempt=placed(view)[0], code="GONE", detail="not here")
                view = await client.sync(progress(), problems=[gone])
            assert asked == 21
            for part in ("split 0", "21 times", worker.name, "not here"):
                assert part in view.failure

    run(test())


# A dispatcher without a journal.


def test_without_a_journal_a_restart_is_refused_by_name_and_numbers_never_return() -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            old = await opened(stub)
            worker = Worker(stub)
            await worker.register()
            before = placed(await old.sync(progress()))
        async with serving() as (dispatcher, stub):
            new = Client(stub, "client-new")
            await put_dataset(stub)
            await new.open(name="another", seed=7)
            assert new.job == old.job  # the ids begin anew
            assert new.term > old.term
            old.stub = worker.stub = stub
            records = dispatcher.engine.committer.records
            for _ in range(2):
                code, text, named = await refusal(old.sync(progress()))
                assert (code, named) == (grpc.StatusCode.FAILED_PRECONDITION, "RefusedError")
                assert "no journal" in text
                assert "cannot be completed, and was not restarted" in text
            old.stub = stub
            await stub.CloseClient(pb.CloseClientRequest(job=old.job, client=old.name))
            assert not (await worker.sync(dict.fromkeys(before.values(), PRODUCED))).registered
            assert dispatcher.engine.committer.records == records
            await worker.register()
            after = placed(await new.sync(progress()))
            assert min(after.values()) > max(before.values())

    run(test())
