"""G10 as a trainer sees it: workers that do not let it in."""

from __future__ import annotations

import socket

import pytest

from penstock.client.reader import Reader
from penstock.errors import AuthenticationError, UsageError
from penstock.security.settings import Security

NAME = "f" * 32


def test_workers_that_all_refuse_a_client_fail_it_at_once(
    make_workers, make_dispatcher, timing
) -> None:
    workers = make_workers(2)
    dispatcher = make_dispatcher(workers)
    dispatcher.register(NAME, 4)
    for worker in workers:
        worker.refusal = "this worker demands a token"
    reader = Reader(NAME, dispatcher.address, timing=timing)
    with reader, pytest.raises(AuthenticationError, match="demands a token") as caught:
        list(reader)
    assert any(worker.address in str(caught.value) for worker in workers)


def test_one_worker_of_two_that_refuses_is_one_that_cannot_be_reached(
    make_workers, make_dispatcher, timing, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = make_workers(2)
    dispatcher = make_dispatcher([good, bad])
    dispatcher.register(NAME, 4)
    bad.refusal = "this worker demands a token"
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        elements = iter(reader)
        next(elements)
        assert good.fetches
        bad.refusal = ""  # somebody sets it right
        assert sum(1 for _ in elements) == 399
    warned = [text for text in caplog.messages if "demands a token" in text and bad.name in text]
    assert len(warned) <= 1  # however often it was tried


def test_who_is_refused_where_it_was_let_in_before_goes_on(
    make_workers, make_dispatcher, timing
) -> None:
    # The worker died, and what listens at its address now is of another cluster.
    (worker,) = make_workers(1)
    dispatcher = make_dispatcher([worker])
    dispatcher.register(NAME, 4)
    worker.pause_after = 5
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        elements = iter(reader)
        next(elements)
        worker.pause_after, worker.refusal = None, "another token is demanded"
        worker.connections[-1].shutdown(socket.SHUT_RDWR)
        assert all(worker.refused.acquire(timeout=10.0) for _ in range(2))
        worker.refusal = ""
        assert sum(1 for _ in elements) == 399


def test_bad_settings_are_told_before_anything_is_done(tmp_path) -> None:
    security = Security(token_file=tmp_path / "none")
    with pytest.raises(UsageError, match="--token-file"):
        Reader(NAME, "127.0.0.1:1", security=security)
    with pytest.raises(UsageError, match="security must be"):
        Reader(NAME, "127.0.0.1:1", security="token")
