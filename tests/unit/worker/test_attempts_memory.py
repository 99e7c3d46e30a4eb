"""The attempt book's two promises about memory and replays: bounded buffers, hashes on demand."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.worker import attempt as attempt_module
from penstock.worker.attempts import AttemptBook
from penstock.worker.buffer import held_bytes
from penstock.worker.messages import (
    Report,
    ResumeProducing,
    Send,
    SendEnd,
    SendHashes,
    StopAttempt,
    Wake,
)

from .books import GRACE_S, chunk, connected, fetch, forget, sends, started
from .fakes import FakePiece, assignment, digest, hashes


def verified(found: list[Send]) -> tuple[list[tuple[int, int]], list[Send]]:
    """The ranges of the HASHES frames, checked; and what comes after them."""
    ranges = []
    while found and isinstance(found[0], SendHashes):
        send = found.pop(0)
        assert isinstance(send, SendHashes)
        stop = send.start + len(send.hashes)
        np.testing.assert_array_equal(send.hashes, hashes(send.start, stop))
        ranges.append((send.start, stop))
    return ranges, found


def test_verify_sends_the_hashes_before_the_first_chunk(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=3, verify=True)
    book.produced(1, FakePiece(0, 2))
    assert sends(book) == []
    book.produced(1, FakePiece(2, 5))
    assert verified(sends(book)) == ([(0, 3)], [chunk(3, 5)])


def test_verify_from_the_beginning_has_nothing_to_verify(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 2))
    fetch(book, first=0, verify=True)
    assert sends(book) == [chunk(0, 2)]


def test_verify_works_on_what_another_client_acknowledged(book: AttemptBook) -> None:
    connected(book, 1, 2)
    started(book, 1)
    book.produced(1, FakePiece(0, 4))
    fetch(book)
    sends(book)
    book.credit(1, 1, 4, 0)
    fetch(book, connection=2, first=4, verify=True)
    assert verified(sends(book, 2)) == ([(0, 4)], [])


def test_a_split_that_is_shorter_than_before_shows_all_its_hashes(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=10, verify=True)
    book.produced(1, FakePiece(0, 4))
    book.ended(1, digest(4))
    assert verified(sends(book)) == ([(0, 4)], [SendEnd(1, 1, digest(4))])


def test_long_prefixes_are_verified_in_parts(
    book: AttemptBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "HASHES_MAX", 4)
    connected(book, 1)
    started(book, 1)
    fetch(book, first=10, verify=True)
    book.produced(1, FakePiece(0, 6))
    assert verified(sends(book)) == ([(0, 4)], [])
    book.produced(1, FakePiece(6, 12))
    assert verified(sends(book)) == ([(4, 8), (8, 10)], [chunk(10, 12)])


PIECE_BYTES = held_bytes(FakePiece(0, 1))


def test_a_run_waits_when_its_share_is_full_and_goes_on_when_chunks_are_acknowledged() -> None:
    book = AttemptBook(memory_limit=3 * PIECE_BYTES, grace_s=GRACE_S)
    connected(book, 1)
    started(book, 1)
    for index in range(3):
        assert book.may_produce(1)
        book.produced(1, FakePiece(index, index + 1))
    assert not book.may_produce(1)
    fetch(book)
    sends(book)
    assert book.credit(1, 1, 1, 0) == [ResumeProducing(1), Wake(1)]
    assert book.may_produce(1)


def test_what_clients_share_is_not_for_buffers_as_long_as_they_do() -> None:
    book = AttemptBook(memory_limit=3 * PIECE_BYTES, grace_s=GRACE_S)
    connected(book, 1)
    started(book, 1)
    book.memory_limit -= 2 * PIECE_BYTES
    book.produced(1, FakePiece(0, 1))
    assert not book.may_produce(1)
    book.memory_limit += 2 * PIECE_BYTES
    assert ResumeProducing(1) in fetch(book)
    assert book.may_produce(1)


def test_shares_shrink_with_more_attempts_and_grow_with_fewer() -> None:
    book = AttemptBook(memory_limit=4 * PIECE_BYTES, grace_s=GRACE_S)
    started(book, 1, 2)
    for index in range(2):
        assert book.may_produce(1)
        book.produced(1, FakePiece(index, index + 1))
    assert not book.may_produce(1)
    assert book.desired([assignment(1)]) == [
        StopAttempt(2),
        forget(2),
        ResumeProducing(1),
    ]


def test_every_attempt_may_hold_one_piece_however_large() -> None:
    book = AttemptBook(memory_limit=1, grace_s=GRACE_S)
    started(book, *range(1, 10))
    for run in range(1, 10):
        assert book.may_produce(run)
        book.produced(run, FakePiece(0, 1))
        assert not book.may_produce(run)


def test_a_produced_attempt_gives_its_share_back_when_all_is_acknowledged() -> None:
    book = AttemptBook(memory_limit=4 * PIECE_BYTES, grace_s=GRACE_S)
    connected(book, 1)
    started(book, 1, 2)
    for index in range(2):
        book.produced(2, FakePiece(index, index + 1))
    book.produced(1, FakePiece(0, 1))
    assert book.ended(1, digest(1)) == [Report()]
    fetch(book)
    sends(book)
    assert book.credit(1, 1, 1, 0) == [ResumeProducing(2), Wake(1)]
