"""Faults put to extensions by a served dispatcher: bounded, once, again after a restart."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.dispatcher import deciding
from penstock.dispatcher.fault_events import FailoverDecided
from penstock.errors import UsageError
from penstock.recovery.alerts import Alerts, url_in
from penstock.recovery.failover import FailoverExtension, FailureInfo
from penstock.recovery.strategy import FailoverStrategy

from .cluster import (
    FAILED,
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
)

HERE = __name__


class Global(FailoverExtension):
    """All begin again."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        return FailoverStrategy.GLOBAL_FAILOVER


class Abort(FailoverExtension):
    """The job ends."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        return FailoverStrategy.ABORTION_FAILOVER


class Stuck(FailoverExtension):
    """Never answers."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        threading.Event().wait()
        raise AssertionError


class Wrong(FailoverExtension):
    """Answers with something else than a strategy."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        wrong: Any = "NORMAL"
        return wrong


async def fail_one(stub: Any, dispatcher: Any) -> dict[str, Any]:
    """A job with a failed attempt; the status once that is decided."""
    client, worker = await opened(stub), Worker(stub)
    await worker.register()
    attempt = min(placed(await client.sync(progress())).values())
    await worker.sync({attempt: FAILED})
    await dispatcher.engine.deciding.idle()
    return (await status_of(stub))["failover"]


@pytest.mark.parametrize(
    ("name", "part"), [("Stuck", "did not answer within 0.05 s"), ("Wrong", "must return")]
)
def test_an_extension_that_gives_no_answer_is_reported_and_the_default_taken(
    name: str, part: str
) -> None:
    async def test() -> None:
        more = {"failover_extension": f"{HERE}::{name}", "failover_deadline_s": 0.05}
        if name == "Wrong":
            more["failover_deadline_s"] = 30.0
        async with serving(**more) as (dispatcher, stub):
            shown = await fail_one(stub, dispatcher)
            (made,) = shown["decisions"]
            assert (made["strategy"], made["asked"]) == ("NORMAL_FAILOVER", None)
            assert part in made["reason"]
            assert part in shown["problems"][0]

    run(test())


class Hook(BaseHTTPRequestHandler):
    """A webhook that writes down what it is told."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.put(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_webhook_is_told_of_a_job_that_was_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    hook.told = told  # type: ignore[attr-defined]
    thread = threading.Thread(target=hook.serve_forever)
    thread.start()
    (tmp_path / "url").write_text(f"http://127.0.0.1:{hook.server_port}/secret\n")

    async def test() -> None:
        alerts = Alerts(url_in(str(tmp_path / "url"), "--alert-url-file"))
        async with serving(failover_extension=f"{HERE}::Abort", alerts=alerts) as made:
            await fail_one(made[1], made[0])

    run(test())
    document = told.get(timeout=30)
    hook.shutdown()
    thread.join()
    hook.server_close()
    assert document["needs_operator"] is True
    assert "was failed by" in document["text"]
    assert "PIPELINE: boom" in document["subject"]
    assert any(record.message.startswith("ALERT job j1") for record in caplog.records)
    assert "secret" not in caplog.text


def test_the_dispatcher_answers_everybody_while_an_extension_thinks() -> None:
    async def test() -> None:
        async with serving(failover_extension=f"{HERE}::Stuck") as (_, stub):
            client, worker = await opened(stub), Worker(stub)
            await worker.register()
            before = placed(await client.sync(progress()))
            await worker.sync({min(before.values()): FAILED})
            assert placed(await client.sync(progress())) == before  # nobody acts before
            picture = await status_of(stub)
            assert len(picture["failover"]["open"]) == 1
            assert any("is asked about fault 1" in text for text in picture["waiting"])

    run(test())


def test_all_attempts_of_a_job_begin_again_on_the_workers_that_had_them() -> None:
    async def test() -> None:
        async with serving(failover_extension=f"{HERE}::Global") as (dispatcher, stub):
            client = await opened(stub, splits=8, lanes=4)
            workers = [Worker(stub, f"i{n}", f"127.0.0.1:{7000 + n}") for n in (1, 2)]
            for worker in workers:
                await worker.register()
            view = await client.sync(progress())
            before = {p.split: p for v in view.epochs for p in v.placements}
            failed = min(before)
            (on,) = [w for w in workers if w.name == before[failed].worker]
            await on.sync({before[failed].attempt: FAILED})
            await dispatcher.engine.deciding.idle()
            view = await client.sync(progress())
            after = {p.split: p for v in view.epochs for p in v.placements}
            assert set(after) >= set(before)
            last = max(place.attempt for place in before.values())
            assert min(place.attempt for place in after.values()) > last
            assert after[failed].worker != before[failed].worker
            for split in set(before) - {failed}:
                assert after[split].worker == before[split].worker

    run(test())


def test_a_fault_that_is_open_when_the_dispatcher_ends_is_asked_about_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, failover_extension=f"{HERE}::Stuck") as (_, stub):
            client, worker = await opened(stub), Worker(stub)
            await worker.register()
            await worker.sync({min(placed(await client.sync(progress())).values()): FAILED})
        async with serving(tmp_path, failover_extension=f"{HERE}::Global") as (again, stub):
            await again.engine.deciding.idle()
            (made,) = (await status_of(stub))["failover"]["decisions"]
            assert (made["fault"], made["strategy"]) == (1, "GLOBAL_FAILOVER")
        async with serving(tmp_path) as (third, stub):
            await third.engine.deciding.idle()
            decided = third.engine.state.failover.decided
            assert [type(event) for _, event in decided.values()] == [FailoverDecided]

    run(test())


def test_a_job_brings_its_own_extension(tmp_path: Path) -> None:
    async def test() -> None:
        name = f"{HERE}::Global"
        async with serving(tmp_path) as (dispatcher, stub):
            await put_dataset(stub)
            client, worker = Client(stub), Worker(stub)
            _, text, named = await refusal(client.open(failover_extension="no_such.module::C"))
            assert named == "UsageError"
            assert "failover_extension" in text
            assert "no_such" in text
            assert not dispatcher.engine.state.jobs
            await client.open(failover_extension=name)
            await worker.register()
            await worker.sync({min(placed(await client.sync(progress())).values()): FAILED})
            await dispatcher.engine.deciding.idle()
            (made,) = (await status_of(stub))["failover"]["decisions"]
            assert (made["source"], made["strategy"]) == (name, "GLOBAL_FAILOVER")
        async with serving(tmp_path) as (again, stub):
            assert again.engine.state.jobs[client.job].failover == name
            assert (await status_of(stub))["jobs"][0]["failover_extension"] == name

    run(test())


def test_a_start_waits_for_no_jobs_extension_and_its_faults_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, never, load = threading.Event(), threading.Event(), deciding.load_extension

    def slow(name: str, option: str) -> FailoverExtension:
        assert gate.wait(20)
        return load(name, option)

    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            client, worker = Client(stub), Worker(stub)
            await client.open(failover_extension=f"{HERE}::Global")
            await worker.register()
            await client.sync(progress())
        monkeypatch.setattr(deciding, "load_extension", slow)
        async with serving(tmp_path) as (again, stub):
            client.stub = worker.stub = stub
            attempts = placed(await client.sync(progress()))  # it answers
            await worker.sync({min(attempts.values()): FAILED})
            assert again.engine.state.failover.open
            gate.set()
            await again.engine.deciding.idle()
            (made,) = (await status_of(stub))["failover"]["decisions"]
            assert made["source"] == f"{HERE}::Global"
        monkeypatch.setattr(deciding, "load_extension", lambda name, option: never.wait(5))
        async with serving(tmp_path, failover_deadline_s=0.05) as (third, stub):
            await third.engine.deciding.idle()
            (problem,) = (await status_of(stub))["failover"]["problems"]
            assert "is not loaded within 0.05 s" in problem

    run(test())


def test_an_extension_that_never_loads_keeps_no_dispatcher_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, loaded = threading.Event(), threading.Event()

    def slow(name: str, option: str) -> FailoverExtension:
        release.wait(20)
        loaded.set()
        return Global()

    async def opening() -> None:
        async with serving(tmp_path) as (_, stub):
            await put_dataset(stub)
            await Client(stub).open(failover_extension=f"{HERE}::Global")

    async def reloading() -> None:
        async with serving(tmp_path, failover_deadline_s=0.05) as (dispatcher, _):
            await dispatcher.engine.deciding.idle()

    run(opening())
    monkeypatch.setattr(deciding, "load_extension", slow)
    run(reloading())
    assert not loaded.is_set()
    release.set()


def test_a_dispatcher_without_its_extension_does_not_start() -> None:
    async def test() -> None:
        with pytest.raises(UsageError, match="--failover-extension"):
            async with serving(failover_extension="no_such.module::C"):
                raise AssertionError

    run(test())
