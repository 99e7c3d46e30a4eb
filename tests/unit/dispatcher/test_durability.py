"""G7: no reply before what it rests on is durable; a restart goes on where the last one ended."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from penstock.dispatcher.recover import replay
from penstock.dispatcher.snapshot import digest, to_snapshot
from penstock.errors import AddressInUseError, JournalError, JournalLockedError
from penstock.journal import Log
from penstock.proto import control_pb2 as pb

from .cluster import (
    FINGERPRINT,
    HOLD_MS,
    Client,
    Worker,
    progress,
    put_dataset,
    refusal,
    run,
    serving,
)


class GatedLog:
    """A journal whose syncs wait for the test's permission."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.open = threading.Event()
        self.failure: Exception | None = None
        self.syncing = threading.Event()
        self.records: list[bytes] = []
        self.syncs = 0
        self.bytes_since_snapshot = 0

    @property
    def last_seq(self) -> int:
        return len(self.records)

    def append(self, payload: bytes) -> int:
        self.records.append(payload)
        return len(self.records)

    def sync(self) -> int:
        seq = len(self.records)
        self.syncing.set()
        if not self.open.is_set():
            self.allowed.acquire()
        if self.failure is not None:
            raise self.failure
        self.syncs += 1
        return seq

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def snapshot(self, payload: bytes, seq: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass


def test_no_reply_leaves_before_its_records_are_durable() -> None:
    async def test() -> None:
        log = GatedLog()
        log.allowed.release()  # the start of the term
        async with serving(log=log) as (_, stub):
            log.syncing.clear()
            calls = [
                asyncio.ensure_future(Worker(stub, f"worker-{n}", f"127.0.0.1:{n}").register())
                for n in range(1, 9)
            ]
            await asyncio.to_thread(log.syncing.wait)
            done, _ = await asyncio.wait(calls, timeout=0.2)
            assert not done
            assert (await stub.GetStatus(pb.GetStatusRequest())).json  # a stuck disk can be seen
            log.open.set()
            log.allowed.release()
            replies = await asyncio.gather(*calls)
            assert {reply.worker for reply in replies} == {f"w{n}" for n in range(1, 9)}
            assert log.syncs <= 3  # many appends, few fsyncs

    run(test())


def test_a_refusal_waits_for_the_disk_too() -> None:
    async def test() -> None:
        log = GatedLog()
        log.allowed.release()
        async with serving(log=log) as (_, stub):
            log.syncing.clear()
            registering = asyncio.ensure_future(Worker(stub).register())
            await asyncio.to_thread(log.syncing.wait)
            missing = pb.GetDatasetRequest(fingerprint=FINGERPRINT)
            asking = asyncio.ensure_future(refusal(stub.DescribeDataset(missing)))
            done, _ = await asyncio.wait([registering, asking], timeout=0.2)
            assert not done
            log.open.set()
            log.allowed.release()
            assert (await asking)[0].name == "NOT_FOUND"
            await registering

    run(test())


def test_a_failed_fsync_ends_the_process_and_answers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        ended = asyncio.Event()
        monkeypatch.setattr("penstock.dispatcher.server._exit_at_once", ended.set)
        log = GatedLog()
        log.allowed.release()
        async with serving(log=log) as (_, stub):
            log.failure = JournalError("fsync: input/output error")
            log.open.set()
            calls = [asyncio.ensure_future(Worker(stub).register()) for _ in range(2)]
            await ended.wait()
            late = asyncio.ensure_future(Worker(stub, "late", "127.0.0.1:9").register())
            done, _ = await asyncio.wait([*calls, late], timeout=0.3)
            assert not done
            for call in [*calls, late]:
                call.cancel()

    run(test())


def test_a_restart_keeps_jobs_seeds_epochs_and_running_attempts(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            worker, client = Worker(stub), Client(stub)
            await worker.register(slots=3)
            opened = await client.open()
            await client.sync(progress(done=[2]))
            before = await client.sync(progress())
            specs = list((await worker.sync()).attempts)
            state = digest(dispatcher.engine.state)
            address = worker.address
        log, recovered = Log.open(tmp_path)
        assert digest(replay(recovered.snapshot, recovered.records)) == state
        log.close()
        async with serving(tmp_path) as (_, stub):
            worker.stub = client.stub = stub
            adopted = await worker.sync(hold_ms=HOLD_MS)  # another term: answered at once
            assert adopted.registered
            assert adopted.term == 2
            assert list(adopted.attempts) == specs
            after = await client.sync(progress(), hold_ms=HOLD_MS)
            assert after.epochs == before.epochs
            again = await client.open()
            assert (again.job, again.seed) == (opened.job, opened.seed)
            graph = [r.part async for r in stub.GetDataset(pb.GetDatasetRequest(
                fingerprint=FINGERPRINT))]  # fmt: skip
            assert graph == [b"graph"]
            assert (await Worker(stub, "worker-a", address).register()).worker == worker.name

    run(test())


def test_snapshots_are_taken_on_the_way_and_recovered_from(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, snapshot_records=10) as (dispatcher, stub):
            await put_dataset(stub, splits=40)
            worker, client = Worker(stub), Client(stub)
            await worker.register()
            await client.open()
            for split in range(40):
                await client.sync(progress(done=[split]))
            state = to_snapshot(dispatcher.engine.state)
        log, recovered = Log.open(tmp_path)
        log.close()
        assert recovered.snapshot_seq > 20
        assert to_snapshot(replay(recovered.snapshot, recovered.records)) == state

    run(test())


def test_news_in_the_moment_of_the_end_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            await Worker(stub).register()  # whose silence the timer waits for
            await asyncio.sleep(0)
            dispatcher.engine.hear("somebody")  # wakes the timer, which is stopped at once
            await asyncio.wait_for(dispatcher.engine.stop(), 10.0)

    run(test())


def test_an_unnamed_job_that_no_client_ever_had_is_closed_at_the_start(tmp_path: Path) -> None:
    from penstock.dispatcher.event_records import encode
    from penstock.dispatcher.events import JobOpened, TermStarted

    async def test() -> None:
        log, _ = Log.open(tmp_path)
        log.append(encode(TermStarted(1)))
        log.append(encode(JobOpened("j1", "", (), 1, 1, 1, False, 1)))
        log.close()
        async with serving(tmp_path) as (dispatcher, _):
            assert not dispatcher.engine.state.jobs

    run(test())


def test_a_second_dispatcher_on_the_journal_or_the_port_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "one") as (dispatcher, _):
            with pytest.raises(JournalLockedError):
                async with serving(tmp_path / "one"):
                    pass
            port = int(dispatcher.address.rpartition(":")[2])
            from penstock.dispatcher.server import Dispatcher, DispatcherOptions

            second = Dispatcher(DispatcherOptions(port=port, journal=tmp_path / "two"))
            with pytest.raises(AddressInUseError, match=str(port)):
                await second.start()
            assert not (tmp_path / "two").exists()  # no term was begun

    run(test())


def test_a_record_that_does_not_follow_is_corruption_and_named(tmp_path: Path) -> None:
    from penstock.dispatcher.event_records import encode
    from penstock.dispatcher.events import TermStarted

    log, _ = Log.open(tmp_path)
    log.append(encode(TermStarted(1)))
    log.append(encode(TermStarted(1)))
    log.close()

    async def test() -> None:
        with pytest.raises(JournalError, match="record 2 "):
            async with serving(tmp_path):
                pass

    run(test())
    Log.open(tmp_path)[0].close()  # it was left unlocked
