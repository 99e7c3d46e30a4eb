"""A whole worker that is killed and comes back at its address, against a fake dispatcher."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.errors import ProtocolError, UsageError
from penstock.graph import analyse
from penstock.proto.chunk import decode
from penstock.proto.wire import FrameType
from penstock.timing import Timing
from penstock.worker.messages import GONE
from penstock.worker.server import Worker, WorkerOptions

from .clients import Client
from .dispatchers import FakeDispatcher
from .fakes import assignment
from .test_server import SCRIPT, refused, tcp

DEADLINE_S = 60.0
LENGTH = 1000  # elements of a split
SPLIT = 3


def slow(x: Any) -> Any:
    """Three times x, after a millisecond or so."""
    return tf.while_loop(lambda i, _: i < 300, lambda i, s: (i + 1, s), (0, 3 * x))[1]


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeDispatcher]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = FakeDispatcher().start()
    dataset = tf.data.Dataset.range(64 * LENGTH).map(slow)
    made.blobs["slow"] = analyse(dataset).streams[0].blob
    yield made
    made.stop()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def expected() -> list[int]:
    """The elements of the split, without penstock."""
    return [3 * x for x in range(SPLIT * LENGTH, (SPLIT + 1) * LENGTH)]


class Trainer:
    """A client of one split that remembers what it received, whoever it came from."""

    def __init__(self) -> None:
        self.elements: list[int] = []
        self.hashes = np.empty(0, np.uint64)

    def read(self, client: Client, attempt: int, until: Callable[[], bool]) -> bool:
        """Reads on until there is enough, or the end; whether it was the end."""
        verified = 0
        while not until():
            frame = client.read()
            assert frame is not None
            assert frame.header["attempt"] == attempt
            if frame.type is FrameType.END:
                assert frame.header["count"] == len(self.elements)
                return True
            if frame.type is FrameType.HASHES:
                assert frame.header["start"] == verified
                found = np.frombuffer(frame.payload, "<u8")
                verified += len(found)
                np.testing.assert_array_equal(found, self.hashes[verified - len(found) : verified])
                continue
            assert frame.type is FrameType.CHUNK, frame
            chunk = decode(frame.header, frame.payload)
            chunk.verify()
            assert chunk.start == len(self.elements)
            self.elements += [int(chunk.element(i)[0]) for i in range(chunk.start, chunk.stop)]
            self.hashes = np.concatenate([self.hashes, chunk.hashes])
            client.credit(attempt, chunk.stop, len(frame.payload))
        return False

    def resume(self, client: Client, attempt: int, **more: Any) -> None:
        client.fetch(attempt, len(self.elements), verify=True, **more)


def checkpoints(directory: Path) -> list[int]:
    """The elements before each checkpoint on the disk."""
    return sorted(int(p.stem.rpartition("-")[2]) for p in directory.rglob("*.checkpoint"))


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether something on the disk, which tells no event, happens in time."""
    end = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)  # looked at again: a directory tells nobody
    return condition()


@contextlib.contextmanager
def process(
    dispatcher: FakeDispatcher, directory: Path, port: int, failpoints: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A worker of that port, registered; killed in the end."""
    heard = len(dispatcher.registrations)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT,
            f"--dispatcher={dispatcher.address}",
            f"--port={port}",
            f"--checkpoint-dir={directory}",
            "--checkpoint-interval=0.01",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PENSTOCK_FAILPOINTS": failpoints},
    ) as made:
        try:
            dispatcher.until(lambda: len(dispatcher.registrations) > heard)
            yield made
        finally:
            made.kill()


def test_a_worker_that_was_killed_goes_on_near_where_its_client_is(
    dispatcher: FakeDispatcher, tmp_path: Path, port: int
) -> None:
    directory, trainer = tmp_path / "checkpoints", Trainer()
    with process(dispatcher, directory, port) as worker, Client(("127.0.0.1", port)) as client:
        trainer.resume(client, 1, credit=1)
        dispatcher.say(desired=[assignment(1, split=SPLIT, dataset="slow")])
        # One that the client is past, and one that it is not.
        trainer.read(
            client,
            1,
            lambda: any(0 < n <= len(trainer.elements) for n in checkpoints(directory)),
        )
        assert eventually(lambda: max(checkpoints(directory)) > len(trainer.elements))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    had = len(trainer.elements)
    best = max(n for n in checkpoints(directory) if n <= had)
    dispatcher.say(desired=[])
    with process(dispatcher, directory, port), Client(("127.0.0.1", port)) as client:
        (offered,) = dispatcher.registrations[-1].checkpoints
        assert (offered.dataset, offered.split) == ("slow", SPLIT)
        assert offered.elements == max(checkpoints(directory))
        trainer.resume(client, 2)
        dispatcher.say(desired=[assignment(2, split=SPLIT, dataset="slow")])
        assert trainer.read(client, 2, lambda: False)
        assert trainer.elements == expected()
        dispatcher.until(lambda: 2 in dispatcher.held() and dispatcher.held()[2].restored > 0)
        held = dispatcher.held()[2]
        assert (held.restored, held.recomputed) == (best, had - best)
        dispatcher.say(desired=[])
        assert eventually(lambda: checkpoints(directory) == [])


@pytest.mark.parametrize(
    "failpoint",
    [
        "worker.checkpoint.before_write=kill@3",
        "worker.checkpoint.after_write=kill@3",
        "worker.checkpoint.before_rename=kill@3",
        "worker.checkpoint.after_rename=kill@3",
        "worker.checkpoint.before_remove=kill",
    ],
)
def test_a_crash_within_a_checkpoint_loses_nothing(
    dispatcher: FakeDispatcher, tmp_path: Path, port: int, failpoint: str
) -> None:
    directory, trainer = tmp_path / "checkpoints", Trainer()
    dispatcher.say(desired=[assignment(1, split=SPLIT, dataset="slow")])
    with (
        process(dispatcher, directory, port, failpoint) as worker,
        Client(("127.0.0.1", port)) as client,
    ):
        trainer.resume(client, 1)
        with contextlib.suppress(
            OSError, AssertionError, ProtocolError
        ):  # it ends in the middle of anything
            trainer.read(client, 1, lambda: False)
        assert worker.wait(DEADLINE_S) == -signal.SIGKILL
        assert worker.stderr is not None
        assert f"failpoint {failpoint.split('=')[0]}: kill" in worker.stderr.read()
    trainer.elements = trainer.elements[: len(trainer.hashes)]
    dispatcher.say(desired=[])
    with process(dispatcher, directory, port), Client(("127.0.0.1", port)) as client:
        trainer.resume(client, 2)
        dispatcher.say(desired=[assignment(2, split=SPLIT, dataset="slow")])
        assert trainer.read(client, 2, lambda: False)
        assert trainer.elements == expected()


@pytest.fixture
def start(dispatcher: FakeDispatcher, tmp_path: Path, port: int) -> Iterator[Callable[[], Worker]]:
    """Starts a worker in this process, at the same address each time."""
    workers: list[Worker] = []

    def start_() -> Worker:
        for worker in workers:
            worker.close()
        registered = threading.Event()
        options = WorkerOptions(
            dispatcher=dispatcher.address,
            port=port,
            checkpoint_dir=str(tmp_path / "checkpoints"),
            checkpoint_interval="0.01",
            timing=Timing(heartbeat_s=0.1),
        )
        workers.append(Worker(options, registered.set))
        workers[-1].start()
        assert registered.wait(DEADLINE_S)
        return workers[-1]

    yield start_
    for worker in workers:
        worker.close()
    ours = [t for t in threading.enumerate() if t.name.startswith("penstock-")]
    for thread in ours:
        thread.join(DEADLINE_S)  # TensorFlow may take seconds to free an iterator
    left = [thread.name for thread in ours if thread.is_alive()]
    assert left == []


def begun(dispatcher: FakeDispatcher, worker: Worker, directory: Path) -> Trainer:
    """A client that is in the middle of attempt 1, and past its first checkpoint."""
    trainer = Trainer()
    with Client(tcp(worker.address)) as client:
        trainer.resume(client, 1)
        dispatcher.say(desired=[assignment(1, split=SPLIT, dataset="slow")])
        ended = trainer.read(
            client, 1, lambda: any(n <= len(trainer.elements) for n in checkpoints(directory))
        )
    assert not ended
    return trainer


def test_a_worker_that_is_stopped_keeps_its_checkpoints(
    dispatcher: FakeDispatcher, start: Callable[[], Worker], tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoints"
    worker = start()
    begun(dispatcher, worker, directory)
    worker.close()
    held = checkpoints(directory)
    assert held
    dispatcher.say(desired=[])
    start()
    assert [c.elements for c in dispatcher.registrations[-1].checkpoints] == [held[-1]]
    assert checkpoints(directory) == held


def test_checkpoints_that_nobody_wants_are_removed(
    dispatcher: FakeDispatcher, start: Callable[[], Worker], tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoints"
    worker = start()
    begun(dispatcher, worker, directory)
    worker.close()
    dispatcher.say(desired=[], unwanted={SPLIT})
    start()
    assert eventually(lambda: checkpoints(directory) == [])


def test_a_worker_that_was_forgotten_offers_what_it_has_and_goes_on(
    dispatcher: FakeDispatcher, start: Callable[[], Worker], tmp_path: Path
) -> None:
    worker = start()
    trainer = begun(dispatcher, worker, tmp_path / "checkpoints")
    heard = len(dispatcher.registrations)
    # It registers again; what it is told to hold from then on is another attempt.
    dispatcher.say(registered=False, desired=[])
    dispatcher.until(lambda: len(dispatcher.registrations) > heard)
    (offered,) = dispatcher.registrations[-1].checkpoints
    assert offered.split == SPLIT
    with Client(tcp(worker.address)) as client:
        trainer.resume(client, 2)
        dispatcher.say(registered=True, desired=[assignment(2, split=SPLIT, dataset="slow")])
        assert trainer.read(client, 2, lambda: False)
    assert trainer.elements == expected()


def test_a_client_that_begins_again_is_refused_once_and_then_served(
    dispatcher: FakeDispatcher, start: Callable[[], Worker], tmp_path: Path
) -> None:
    worker = start()
    trainer = begun(dispatcher, worker, tmp_path / "checkpoints")
    worker.close()
    dispatcher.say(desired=[])
    worker = start()
    with Client(tcp(worker.address)) as client:
        trainer.resume(client, 2)
        dispatcher.say(desired=[assignment(2, split=SPLIT, dataset="slow")])
        dispatcher.until(lambda: 2 in dispatcher.held() and dispatcher.held()[2].restored > 0)
    with Client(tcp(worker.address)) as client:
        client.fetch(2, 0)
        while (frame := client.read()) is not None and frame.type is not FrameType.FAIL:
            pass
        assert frame is not None
        assert frame.header["code"] == GONE
        fresh = Trainer()
        fresh.resume(client, 3)
        dispatcher.say(desired=[assignment(3, split=SPLIT, dataset="slow")])
        assert fresh.read(client, 3, lambda: False)
    assert fresh.elements == expected()
    assert dispatcher.held()[3].restored == 0


def test_two_workers_at_one_address_are_refused_by_name(
    dispatcher: FakeDispatcher, start: Callable[[], Worker], tmp_path: Path, port: int
) -> None:
    start()
    with pytest.raises(UsageError, match=rf"127.0.0.1_{port} is in use by process {os.getpid()}"):
        Worker(
            WorkerOptions(
                dispatcher=dispatcher.address,
                port=port,
                host="127.0.0.2",
                advertise="127.0.0.1",
                checkpoint_dir=str(tmp_path / "checkpoints"),
            ),
            lambda: None,
        )


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--checkpoint-interval=often", "a number of seconds above 0, auto or off, not 'often'"),
        ("--checkpoint-interval=0", "--checkpoint-interval"),
        ("--warn-after=0", "--warn-after takes a number of seconds above 0, not 0"),
        ("--warn-after=nan", "--warn-after"),
    ],
)
def test_bad_usage_is_named(argument: str, complaint: str) -> None:
    error = refused(argument)
    assert isinstance(error, UsageError)
    assert complaint in str(error)
