"""The whole service over real gRPC: one epoch, long polls, idempotence, refusals."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import grpc

from penstock.proto import control_pb2 as pb

from .cluster import (
    FAILED,
    FINGERPRINT,
    HOLD_MS,
    PRODUCED,
    QUICK,
    RUNNING,
    Client,
    Worker,
    epoch_digest,
    placed,
    progress,
    put_dataset,
    refusal,
    run,
    serving,
)


def test_an_epoch_from_its_opening_to_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub, splits=4)
            worker, client = Worker(stub), Client(stub)
            await worker.register()
            opened = await client.open(seed=17)
            assert (opened.seed, list(opened.next_epoch), opened.lanes) == (17, [0], 2)
            view = await client.sync(progress())
            assert len(placed(view)) == 2  # the current split of both lanes; two slots, both taken
            wanted = await worker.sync()
            assert {spec.attempt for spec in wanted.attempts} == set(placed(view).values())
            assert {spec.dataset for spec in wanted.attempts} == {FINGERPRINT}
            assert {(spec.seed, spec.trial) for spec in wanted.attempts} == {(17, 1)}
            for _ in range(4):
                splits = placed(view)
                view = await client.sync(progress(done=list(splits)))
                if not placed(view):
                    break
            assert not (await worker.sync()).attempts
            view = await client.sync(progress(finished=True, digest=epoch_digest(4)))
            assert not view.epochs
            again = await client.sync(progress(finished=True, digest=epoch_digest(4)))
            assert not again.epochs
            assert list((await client.open(seed=17)).next_epoch) == [1]

    run(test())


def test_a_held_call_comes_back_as_soon_as_there_is_news(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            worker, client = Worker(stub), Client(stub)
            await worker.register()
            await client.open()
            await worker.sync()
            held = asyncio.ensure_future(worker.sync(hold_ms=HOLD_MS))
            view = await client.sync(progress())
            assert len((await held).attempts) == 2
            waiting = asyncio.ensure_future(client.sync(progress(), hold_ms=HOLD_MS))
            await worker.sync({placed(view)[split]: FAILED for split in placed(view)})
            await dispatcher.engine.deciding.idle()
            lost = await worker.sync()
            assert len(lost.attempts) == 2
            assert set(placed(await waiting)) <= set(placed(view))
            assert set(placed(view).values()).isdisjoint({s.attempt for s in lost.attempts})

    run(test())


def test_without_news_a_call_is_held_for_as_long_as_it_says(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            worker = Worker(stub)
            await worker.register()
            first = await worker.sync()
            started = asyncio.get_running_loop().time()
            assert (await worker.sync(hold_ms=80)).version == first.version
            assert asyncio.get_running_loop().time() - started >= 0.07

    run(test())


def test_news_of_one_peer_does_not_wake_another(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            one, two = Worker(stub), Worker(stub, "worker-b", "127.0.0.1:7002")
            await one.register()
            client = Client(stub)
            await client.open()
            await client.sync(progress())
            before = dispatcher.engine.news.version(one.name)
            await two.register()  # lookahead goes to the new one
            view = await client.sync(progress())
            assert dispatcher.engine.news.version(one.name) == before
            assert {place.worker for e in view.epochs for place in e.placements} == {
                one.name,
                two.name,
            }

    run(test())


def test_a_newer_call_releases_the_older_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            worker = Worker(stub)
            await worker.register()
            await worker.sync()
            older = asyncio.ensure_future(worker.sync(hold_ms=HOLD_MS))
            await asyncio.sleep(0)
            while older not in (await asyncio.wait([older], timeout=0.05))[0]:
                await worker.sync(hold_ms=1)
            assert (await older).registered

    run(test())


def test_another_term_is_answered_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            worker = Worker(stub)
            await worker.register()
            await worker.sync()
            worker.term = 0
            assert (await worker.sync(hold_ms=HOLD_MS)).term == 1
            worker.term = 7
            code, text, named = await refusal(worker.sync())
            assert (code, named) == (grpc.StatusCode.FAILED_PRECONDITION, "RefusedError")
            assert "term 7" in text

    run(test())


def test_repeating_any_call_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            await put_dataset(stub)
            worker, client = Worker(stub), Client(stub)
            assert await worker.register() == await worker.register()
            assert await client.open() == await client.open()
            view = await client.sync(progress(done=[0, 0]))
            records = dispatcher.engine.committer.records
            assert await client.sync(progress(done=[0])) == view
            attempt = next(iter(placed(view).values()))
            await worker.sync({attempt: PRODUCED})
            assert dispatcher.engine.committer.records == records + 1  # a slot is free: lookahead
            await worker.sync({attempt: PRODUCED})
            await worker.sync({attempt: RUNNING})
            assert dispatcher.engine.committer.records == records + 1
            await worker.sync({attempt: FAILED})
            await dispatcher.engine.deciding.idle()
            failed = await worker.sync({attempt: FAILED})
            assert await worker.sync({attempt: FAILED}) == failed
            events = [dispatcher.engine.state.epoch((client.job, 0, 0))]
            assert sum(split.failures for split in events[0].splits.values()) == 1
            closing = pb.CloseClientRequest(job=client.job, client=client.name)
            assert await stub.CloseClient(closing) == await stub.CloseClient(closing)

    run(test())


def test_an_epoch_that_is_not_listed_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            worker, client = Worker(stub), Client(stub)
            await worker.register()
            await client.open()
            await client.sync(progress(epoch=0), progress(epoch=1))
            await client.sync(progress(epoch=1))
            assert {spec.epoch for spec in (await worker.sync()).attempts} == {1}
            await client.sync()
            assert not (await worker.sync()).attempts

    run(test())


def test_an_overtaken_request_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            client = Client(stub)
            await client.open()
            await client.sync(progress(), sequence=5)
            code, _, _ = await refusal(client.sync(sequence=4))
            assert code is grpc.StatusCode.CANCELLED
            assert dispatcher.engine.state.epoch((client.job, 0, 0)) is not None

    run(test())


def test_problems_gone_gets_another_attempt_and_unreachable_waits(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            silent = socket.create_server(("127.0.0.1", 0))  # connects, and never says a word
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            worker, client = Worker(stub, address=address), Client(stub)
            await worker.register()
            await client.open()
            view = placed(await client.sync(progress()))
            split, attempt = next(iter(view.items()))
            away = pb.Problem(attempt=attempt, code="UNREACHABLE", detail="refused")
            assert placed(await client.sync(progress(), problems=[away])) == view
            picture = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
            assert "cannot reach worker w1" in picture["waiting"][0]
            gone = pb.Problem(attempt=attempt, code="GONE", detail="not here")
            after = placed(await client.sync(progress(), problems=[gone]))
            assert after[split] > attempt
            assert placed(await client.sync(progress(), problems=[gone])) == after
            odd = pb.Problem(attempt=after[split], code="SAD")
            code, text, named = await refusal(client.sync(progress(), problems=[odd]))
            assert (code, named) == (grpc.StatusCode.INVALID_ARGUMENT, "UsageError")
            assert "UNREACHABLE, GONE or MISMATCH" in text
            wrong = pb.Problem(attempt=after[split], code="MISMATCH", detail="index 3 differs")
            await client.sync(progress(), problems=[wrong])
            await dispatcher.engine.deciding.idle()
            failed = await client.sync(progress(), problems=[wrong])
            assert f"split {split}" in failed.failure
            assert "index 3 differs" in failed.failure
            silent.close()

    run(test())


def test_a_split_that_always_fails_fails_the_job_with_its_cause(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub, splits=1)
            worker, client = Worker(stub), Client(stub)
            await worker.register()
            await client.open(attempts_max=3)
            await client.sync(progress())
            trials = []
            reply = await worker.sync()
            while reply.attempts:
                (spec,) = reply.attempts
                trials.append(spec.trial)
                await worker.sync({spec.attempt: FAILED})
                await dispatcher.engine.deciding.idle()
                reply = await worker.sync()
            assert trials == [1, 2, 3]
            failure = (await client.sync(progress())).failure
            for part in ("split 0", "epoch 0", "3 attempts", worker.name, "PIPELINE", "boom"):
                assert part in failure
            _, text, named = await refusal(client.open(attempts_max=3))
            assert named == "JobFailedError"
            assert "boom" in text
            retry = Client(stub, "client-b")  # a new process of the same job tries again
            await retry.open(attempts_max=3)
            assert not (await retry.sync(progress())).failure

    run(test())


def test_a_worker_that_is_silent_is_replaced_by_the_standby(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=QUICK) as (_, stub):
            await put_dataset(stub)
            worker = Worker(stub)
            standby = Worker(stub, "worker-s", "127.0.0.1:7009")
            client = Client(stub)
            await worker.register()
            await standby.register(standby=True)
            await client.open()
            view = await client.sync(progress())
            assert {place.worker for e in view.epochs for place in e.placements} == {worker.name}
            while True:
                reply = await standby.sync(hold_ms=50)
                assert reply.registered
                if reply.attempts:
                    break
                await client.sync(progress())
            view = await client.sync(progress())
            assert {place.worker for e in view.epochs for place in e.placements} == {standby.name}
            assert not (await worker.sync()).registered
            picture = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
            assert [(w["id"], w["state"]) for w in picture["workers"]] == [
                (standby.name, "live"),
                (worker.name, "lost"),
            ]
            again = await worker.register()
            assert again.worker == "w1"

    run(test())


def test_a_new_process_at_an_address_means_that_the_old_one_is_dead(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            old, client = Worker(stub), Client(stub)
            await old.register()
            await client.open()
            await client.sync(progress())
            new = Worker(stub, "worker-new")
            assert (await new.register()).worker != old.name
            assert not (await old.sync(hold_ms=HOLD_MS)).registered
            assert {spec.trial for spec in (await new.sync()).attempts} == {1}

    run(test())


def test_without_a_worker_the_client_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=QUICK) as (_, stub):
            await put_dataset(stub)
            client = Client(stub)
            await client.open()
            reply = await client.sync(progress())
            while not reply.notices:
                reply = await client.sync(progress(), hold_ms=200)
            assert "no worker" in reply.notices[0]
            picture = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
            assert "no worker" in picture["waiting"][0]
            assert picture["jobs"][0]["streams"][0]["lanes_waiting"] == [0, 1]
            await Worker(stub).register()
            assert not (await client.sync(progress(), hold_ms=200)).notices

    run(test())


def test_a_silent_client_is_given_up_and_its_named_job_stays(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, timing=QUICK) as (dispatcher, stub):
            await put_dataset(stub)
            client, unnamed = Client(stub), Client(stub, "client-u")
            await client.open()
            await unnamed.open(name="")
            await client.sync(progress())
            news, jobs = dispatcher.engine.news, dispatcher.engine.state.jobs
            # Other news (that there is no worker) may come first: what counts is the state.
            while jobs[client.job].attached:
                await news.hold(client.job, news.version(client.job), 10.0)
            while unnamed.job in jobs:
                await news.hold(unnamed.job, news.version(unnamed.job), 10.0)
            _, text, _ = await refusal(client.sync(progress()))
            assert "silent" in text
            await client.open()
            assert (await client.sync(progress())).epochs
            code, text, named = await refusal(unnamed.sync(progress()))
            assert (code, named) == (grpc.StatusCode.FAILED_PRECONDITION, "RefusedError")
            assert "its client client-u was silent for " in text

    run(test())


def test_the_work_of_a_worker_that_leaves_is_for_a_standby_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub, splits=4)
            first = Worker(stub)
            second = Worker(stub, incarnation="worker-b", address="127.0.0.1:7002")
            await first.register()
            await second.register(standby=True)
            client = Client(stub)
            await client.open()
            before = placed(await client.sync(progress()))
            assert not (await first.sync(leaving=True)).registered
            after = placed(await client.sync(progress()))
            assert before.keys() == after.keys()
            assert min(after.values()) > max(before.values())
            assert {spec.attempt for spec in (await second.sync()).attempts} == set(after.values())

    run(test())
