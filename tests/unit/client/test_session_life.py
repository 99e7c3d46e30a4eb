"""How a client waits, gives up, is dropped and is closed, against fakes over real sockets."""

from __future__ import annotations

import gc
import logging
import threading
import time

import pytest

from penstock.client.events import Delivery
from penstock.client.options import JobOptions
from penstock.client.reader import Reader
from penstock.client.session import Session
from penstock.errors import (
    RefusedError,
)
from penstock.timing import Timing

from .conftest import client_threads, eventually, open_files
from .test_session import NAME, values


def test_g6_a_wait_says_what_it_waits_for(make_dispatcher, timing, caplog) -> None:
    dispatcher = make_dispatcher([])
    dispatcher.register(NAME, 2)
    dispatcher.notices = ["no worker is registered"]
    with Reader(NAME, dispatcher.address, lanes=1, timing=timing) as reader:
        thread = threading.Thread(target=lambda: _swallow(reader), name="trainer")
        with caplog.at_level(logging.WARNING, "penstock"):
            thread.start()
            assert eventually(lambda: "waited" in caplog.text)
    thread.join(5.0)
    assert "the dispatcher says: no worker is registered" in caplog.text
    assert "stream 0, epoch 0" in caplog.text
    assert "no worker has it yet" in caplog.text


def _swallow(reader: Reader) -> None:
    with pytest.raises(RefusedError, match="closed"):
        list(reader)


def test_abandoning_an_iterator_gives_its_epoch_up_at_once(
    make_workers, make_dispatcher, timing
) -> None:
    (worker,) = make_workers(1)
    dispatcher = make_dispatcher([worker])
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, lanes=2, memory_limit=1 << 16, timing=timing) as reader:
        worker.pause_after = 10
        elements = iter(reader)
        next(elements)
        del elements
        assert eventually(lambda: not dispatcher.open)
        assert eventually(lambda: len(worker.released) > 0)
        worker.pause_after = None
        assert len(values(reader)) == 400
    assert (0, 0) not in dispatcher.finished
    assert (0, 1) in dispatcher.finished


def test_two_epochs_may_be_open_at_once(make_workers, make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher(make_workers(2))
    dispatcher.register(NAME, 4)
    with Reader(NAME, dispatcher.address, timing=timing) as reader:
        one, two = iter(reader), iter(reader)
        seen = [int(a[0]) for a in [next(one), next(two)]]
        assert len(seen) == 2
        assert len(list(two)) == 399
        assert len(list(one)) == 399
        assert sorted(reader.digests) == [0, 1]


def test_a_dropped_session_is_collected_and_ends_its_threads(
    make_workers, make_dispatcher, timing
) -> None:
    dispatcher = make_dispatcher(make_workers(2))
    dispatcher.register(NAME, 4)
    reader = Reader(NAME, dispatcher.address, timing=timing)
    elements = iter(reader)
    next(elements)
    assert client_threads()
    del reader, elements
    gc.collect()
    assert eventually(lambda: not client_threads())
    assert eventually(lambda: len(dispatcher.closed_clients) == 1)


def test_closing_frees_everything_in_bounded_time(make_workers, make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher(make_workers(2))
    dispatcher.register(NAME, 4)

    def once() -> None:
        with Reader(NAME, dispatcher.address, timing=timing) as reader:
            next(iter(reader))
            started = time.monotonic()
        assert time.monotonic() - started < 5.0
        assert not client_threads()

    once()
    assert eventually(lambda: len(dispatcher.closed_clients) == 1)
    before = open_files()
    for _ in range(5):
        once()
    assert eventually(lambda: open_files() <= before), (before, open_files())


def test_a_closed_client_says_so(make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher()
    dispatcher.register(NAME, 1)
    reader = Reader(NAME, dispatcher.address, timing=timing)
    reader.close()
    with pytest.raises(RefusedError, match="closed"):
        list(reader)


def test_closing_ends_a_start_that_is_under_way(timing: Timing) -> None:
    reader = Reader(NAME, "127.0.0.1:1", timing=timing)
    thread = threading.Thread(target=lambda: _swallow(reader), name="trainer")
    thread.start()
    assert eventually(lambda: reader._session._control is not None)
    reader.close()
    thread.join(5.0)
    assert not thread.is_alive()


def test_take_with_a_timeout_returns_none(make_dispatcher, timing) -> None:
    dispatcher = make_dispatcher([])
    dispatcher.register(NAME, 1)
    session = Session(dispatcher.address, NAME, JobOptions(timing=timing))
    assert session.read().take(timeout_s=0.05) is None
    session.close()


def test_memory_is_bounded_by_the_limit(make_workers, make_dispatcher, timing) -> None:
    (worker,) = make_workers(1, 20_000, chunk=100)
    dispatcher = make_dispatcher([worker])
    dispatcher.register(NAME, 4)
    limit = 1 << 16
    session = Session(dispatcher.address, NAME, JobOptions(memory_limit=limit, timing=timing))
    reader = session.read()
    most = 0
    count = 0
    while isinstance(taken := reader.take(target_bytes=1000), Delivery):
        states = reader.core._splits.values()
        most = max(most, sum(state.buffered for state in states))
        count += sum(piece.chunk.count for piece in taken.each_piece())
    assert count == 80_000
    assert 0 < most <= limit + 16 * 800
    session.close()
