"""Short words for what happens to an attempt book in tests."""

from __future__ import annotations

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import GONE, Forget, Send, SendChunk, SendFail

from .fakes import FakePiece, assignment

LOTS = 1 << 40
GRACE_S = 5.0


def started(book: AttemptBook, *numbers: int) -> None:
    book.desired([assignment(number) for number in numbers])


def connected(book: AttemptBook, *connections: int) -> None:
    for connection in connections:
        book.opened(connection)


def fetch(
    book: AttemptBook,
    connection: int = 1,
    attempt: int = 1,
    first: int = 0,
    credit: int = LOTS,
    verify: bool = False,
    now: float = 0.0,
) -> list[object]:
    return list(book.fetch(connection, attempt, first, credit, verify, now))


def sends(book: AttemptBook, connection: int = 1) -> list[Send]:
    found = []
    while (send := book.next_send(connection)) is not None:
        found.append(send)
    return found


def chunk(start: int, stop: int, connection: int = 1, attempt: int = 1) -> SendChunk:
    return SendChunk(connection, attempt, FakePiece(start, stop))


def gone(attempt: int, why: str, connection: int = 1) -> SendFail:
    return SendFail(connection, attempt, GONE, f"attempt {attempt}: {why}")


def forget(attempt: int) -> Forget:
    return Forget(assignment(attempt).key)
