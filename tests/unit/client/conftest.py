"""Fixtures: fast timing, fakes that are closed, and a check that nothing is left running."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.timing import Timing

from .fakes import FakeDispatcher, FakeWorker, numbers


@pytest.fixture
def timing() -> Timing:
    """Short intervals; the deadline for reaching a dispatcher stays long enough to be none."""
    return Timing(heartbeat_s=0.2, warn_after_s=0.3, connect_deadline_s=20.0, retry_min_s=0.01)


@pytest.fixture
def make_workers() -> Iterator[Callable[..., list[FakeWorker]]]:
    """Makes workers that serve numbers."""
    made: list[FakeWorker] = []

    def make(count: int, per_split: int = 100, *, chunk: int = 10) -> list[FakeWorker]:
        data = numbers(per_split)
        names = [f"w{len(made) + number}" for number in range(count)]
        made.extend(FakeWorker(name, data, chunk=chunk) for name in names)
        return made[-count:]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def make_dispatcher() -> Iterator[Callable[..., FakeDispatcher]]:
    """Makes dispatchers."""
    made: list[FakeDispatcher] = []

    def make(*arguments: object, **more: object) -> FakeDispatcher:
        made.append(FakeDispatcher(*arguments, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.stop()


def client_threads() -> list[str]:
    """Names of the client's threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-")]


def open_files() -> int:
    """Number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Whether a condition becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        gc.collect()
        threading.Event().wait(0.01)
    return True


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not client_threads()), client_threads()
