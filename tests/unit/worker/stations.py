"""A stream server with its exchange, for tests; what is produced is what a test puts."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.proto.wire import FrameType
from penstock.security.access import OPEN, Access
from penstock.worker.attempts import AttemptBook
from penstock.worker.exchange import Exchange
from penstock.worker.messages import Assignment
from penstock.worker.stream import StreamServer

from .clients import DEADLINE_S, Client
from .fakes import FakePiece, assignment, digest

GRACE_S = 0.2


class Station:
    """A server with its exchange; attempts are started but produce only what a test puts."""

    def __init__(
        self,
        memory_limit: int = 1 << 30,
        hello_deadline_s: float = 5.0,
        access: Access = OPEN,
        slots: int = 0,
    ) -> None:
        self.runs: dict[int, int] = {}
        self.stopped: list[int] = []
        self.book = AttemptBook(memory_limit, GRACE_S)
        self.exchange = Exchange(self.book, self._started, self.stopped.append, lambda: None)
        self.server = StreamServer(
            self.exchange,
            lambda: "w7",
            "127.0.0.1",
            0,
            unix=True,
            hello_deadline_s=hello_deadline_s,
            access=access,
            slots=slots,
        )
        self.server.start()
        self.tcp = ("127.0.0.1", self.server.port)

    def _started(self, started: Assignment, run: int) -> None:
        self.runs[started.attempt] = run

    def hold(self, *numbers: int) -> None:
        self.exchange.set_desired([assignment(number) for number in numbers])

    def produce(self, attempt: int, pieces: int, elements: int = 2, size: int = 10) -> None:
        """Puts pieces, and the end; waits for space as a producer does."""
        run = self.runs[attempt]
        for start in range(0, pieces * elements, elements):
            if not self.exchange.put(run, FakePiece(start, start + elements, size, attempt)):
                return
        self.exchange.end(run, digest(pieces * elements))

    def closed_within(self, condition: Callable[[], bool]) -> bool:
        """Whether something that no event tells happens in time."""
        end = time.monotonic() + DEADLINE_S
        while not (happened := condition()) and time.monotonic() < end:
            time.sleep(0.005)  # looked at again: no event tells it
        return happened


def read_all(client: Client, attempt: int, received: int = 0) -> int:
    """Reads up to END, checking that nothing is missing; acknowledges as it goes."""
    while True:
        frame = client.read()
        assert frame is not None
        assert frame.header["attempt"] == attempt
        if frame.type is FrameType.END:
            assert frame.header["count"] == received
            return received
        assert frame.type is FrameType.CHUNK
        assert frame.header["start"] == received
        received += frame.header["count"]
        client.credit(attempt, received, len(frame.payload))
