"""A whole worker against a fake dispatcher: in this process, and as the command."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

from penstock.cli.worker import parse_size, worker
from penstock.errors import AddressInUseError, PenstockError, UsageError
from penstock.graph import analyse
from penstock.proto.chunk import decode
from penstock.proto.wire import FrameType
from penstock.timing import Timing
from penstock.worker.messages import GONE, State
from penstock.worker.server import Worker, WorkerOptions

from .clients import Client
from .dispatchers import FakeDispatcher
from .fakes import assignment

SCRIPT = """
import sys, typer
from penstock.cli.worker import worker
from penstock.errors import PenstockError
app = typer.Typer()
app.command()(worker)
try:
    app()
except PenstockError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeDispatcher]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = FakeDispatcher().start()
    made.blobs["numbers"] = analyse(tf.data.Dataset.range(640)).streams[0].blob
    made.blobs["damaged"] = b"\x00"
    yield made
    made.stop()


@pytest.fixture
def running(dispatcher: FakeDispatcher) -> Iterator[Worker]:
    options = WorkerOptions(dispatcher=dispatcher.address, timing=Timing().scaled(0.2))
    registered = threading.Event()
    made = Worker(options, registered.set)
    made.start()
    assert registered.wait(20)
    yield made
    assert made.close()
    ours = [t for t in threading.enumerate() if t.name.startswith("penstock-")]
    for thread in ours:
        thread.join(60.0)  # TensorFlow may take seconds to free an iterator
    left = [thread.name for thread in ours if thread.is_alive()]
    assert left == []


def tcp(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def read_split(client: Client, attempt: int) -> list[int]:
    """Fetches an attempt to its end."""
    client.fetch(attempt)
    found: list[int] = []
    while (frame := client.read()) is not None and frame.type is not FrameType.END:
        assert frame.type is FrameType.CHUNK, frame
        chunk = decode(frame.header, frame.payload)
        chunk.verify()
        found += [int(chunk.element(i)[0]) for i in range(chunk.start, chunk.stop)]
        client.credit(attempt, chunk.stop, len(frame.payload))
    assert frame is not None
    assert frame.header["count"] == len(found)
    return found


def test_it_does_what_the_dispatcher_wants_and_serves_it(
    dispatcher: FakeDispatcher, running: Worker
) -> None:
    dispatcher.say(desired=[assignment(n, split=n, dataset="numbers") for n in (1, 2, 3)])
    with Client(tcp(running.address)) as client:
        assert client.welcome["worker"] == "w1"
        for split in (3, 1, 2):
            assert read_split(client, split) == list(range(10 * split, 10 * split + 10))
    dispatcher.until(
        lambda: (
            {n: h.state for n, h in dispatcher.held().items()}
            == dict.fromkeys((1, 2, 3), State.PRODUCED)
        )
    )
    assert dispatcher.fetched == ["numbers"]
    dispatcher.say(desired=[])
    dispatcher.until(lambda: dispatcher.held() == {})


def test_a_dataset_that_cannot_be_loaded_fails_the_attempt(
    dispatcher: FakeDispatcher, running: Worker
) -> None:
    dispatcher.say(desired=[assignment(1, dataset="damaged"), assignment(2, dataset="missing")])
    dispatcher.until(lambda: [h.code for h in dispatcher.held().values()] == ["DATASET"] * 2)
    assert "damaged" in dispatcher.held()[1].detail
    assert "no such dataset" in dispatcher.held()[2].detail


def test_what_runs_is_served_while_the_dispatcher_is_away(
    dispatcher: FakeDispatcher, running: Worker
) -> None:
    dispatcher.say(desired=[assignment(1, split=1, dataset="numbers")])
    dispatcher.until(lambda: 1 in dispatcher.held() and dispatcher.held()[1].elements > 0)
    dispatcher.stop()
    with Client(running._server.unix_path) as client:
        assert read_split(client, 1) == list(range(10, 20))
    dispatcher.start()
    heard = len(dispatcher.syncs)
    dispatcher.until(lambda: len(dispatcher.syncs) > heard)
    assert dispatcher.held()[1].state == State.PRODUCED


def test_a_split_that_does_not_exist_fails_by_name(
    dispatcher: FakeDispatcher, running: Worker
) -> None:
    dispatcher.say(desired=[assignment(1, split=1000, dataset="numbers")])
    dispatcher.until(lambda: 1 in dispatcher.held() and dispatcher.held()[1].code == "PIPELINE")
    assert "split 1000 does not exist" in dispatcher.held()[1].detail
    with Client(tcp(running.address)) as client:
        client.fetch(1)
        assert client.expect(FrameType.FAIL).header["code"] == "PIPELINE"
        client.fetch(77)
        assert client.expect(FrameType.FAIL).header["code"] == GONE


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running; killed in the end if it still is."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "--time-scale=0.2", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "stdin"])
def test_the_command_announces_itself_and_stops_cleanly(
    dispatcher: FakeDispatcher, tmp_path: Path, end: str
) -> None:
    with command(
        f"--dispatcher={dispatcher.address}", "--announce=-", "--stop-on-stdin-eof"
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        said = json.loads(process.stdout.readline())
        assert said["worker"] == "w1"
        assert said["pid"] == process.pid
        assert said["listen"] == said["address"]
        with Client(tcp(said["address"])):
            assert list(tmp_path.rglob("*.sock"))
            if end == "stdin":
                process.stdin.close()
            else:
                process.send_signal(getattr(signal, end))
            assert process.wait(20) == 0
        assert not list(tmp_path.rglob("*.sock"))
        assert process.stderr is not None
        log = process.stderr.read()
        assert "registered with" in log
        assert "Traceback" not in log


def test_the_command_ends_although_an_element_takes_for_ever(
    dispatcher: FakeDispatcher, tmp_path: Path
) -> None:
    def body(x: Any) -> Any:
        first = x % 10 == 0
        return tf.while_loop(lambda i: (i >= 0) & ~first, lambda i: [(i + 1) % 1000], [x])[0]

    endless = tf.data.Dataset.range(640).map(body)
    dispatcher.blobs["endless"] = analyse(endless).streams[0].blob
    dispatcher.say(desired=[assignment(1, dataset="endless", trial=2)])
    with command(f"--dispatcher={dispatcher.address}") as process:
        dispatcher.until(lambda: 1 in dispatcher.held() and dispatcher.held()[1].elements == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "left behind: penstock-attempt-1" in process.stderr.read()


def test_the_announcement_can_be_a_file(dispatcher: FakeDispatcher, tmp_path: Path) -> None:
    path = tmp_path / "announced"
    with command(f"--dispatcher={dispatcher.address}", f"--announce={path}") as process:
        dispatcher.until(lambda: bool(dispatcher.syncs))
        process.terminate()
        assert process.wait(20) == 0
        assert json.loads(path.read_text())["pid"] == process.pid


def refused(*arguments: str) -> PenstockError:
    app = typer.Typer()
    app.command()(worker)
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, PenstockError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--dispatcher=nowhere", "nowhere"),
        ("--memory-limit=lots", "lots"),
        ("--memory-limit=1KiB", "at least 1MiB"),
        ("--slots=0", "--slots"),
        ("--port=70000", "70000"),
        ("--time-scale=0", "time scale"),
        ("--log-level=loud", "loud"),
        ("--log-format=xml", "xml"),
    ],
)
def test_bad_usage_is_named(argument: str, complaint: str) -> None:
    error = refused(argument)
    assert isinstance(error, UsageError)
    assert complaint in str(error)
    assert error.exit_code == 2


def test_a_taken_port_is_refused(dispatcher: FakeDispatcher, running: Worker) -> None:
    port = tcp(running.address)[1]
    with pytest.raises(AddressInUseError, match=str(port)) as caught:
        Worker(WorkerOptions(dispatcher=dispatcher.address, port=port), lambda: None)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("host", "advertise", "want"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "node7", "node7"),
        ("0.0.0.0", "", "127.0.0.1"),
        ("127.0.0.1", "fd00::7", "[fd00::7]"),
    ],
)
def test_the_address_that_clients_are_given(
    dispatcher: FakeDispatcher, host: str, advertise: str, want: str
) -> None:
    options: dict[str, Any] = {"dispatcher": dispatcher.address, "host": host}
    made = Worker(WorkerOptions(**options, advertise=advertise), lambda: None)
    assert made.address.rpartition(":")[0] == want
    made.close()


@pytest.mark.parametrize(
    ("text", "want"),
    [("1048576", 1 << 20), ("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("1.5g", 1_500_000_000)],
)
def test_sizes(text: str, want: int) -> None:
    assert parse_size(text) == want


def test_help_needs_no_tensorflow() -> None:
    script = "import sys, penstock.cli.worker; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
