"""The stream server with slots: over Unix sockets, to clients that ask, while there are some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.client.borrowing import Borrower
from penstock.proto.wire import Frame, FrameType

from .clients import DEADLINE_S, Client, read_chunk
from .stations import Station

KIB = 1 << 10
SIZE = 100 * KIB


@pytest.fixture
def lending() -> Iterator[Station]:
    """A server whose slots hold four pieces of two elements of `SIZE` bytes."""
    station = Station(slots=4 * 256 * KIB)
    station.hold(1)
    station.produce(1, pieces=8, size=SIZE)
    yield station
    station.server.close(DEADLINE_S)


class Local(Client):
    """A client on the same machine that can do with slots."""

    def __init__(self, station: Station) -> None:
        super().__init__(station.server.unix_path, slots=True)
        self.borrower = Borrower(self.sock)

    def chunk(self) -> tuple[Frame, memoryview | None]:
        """The next CHUNK, and the slot that its payload is in."""
        frame = read_chunk(self.borrower)
        in_slot = "slot" in frame.header
        return frame, self.borrower.payload(frame.header) if in_slot else None


def test_payloads_come_in_slots_until_there_are_no_more(lending: Station) -> None:
    with Local(lending) as client:
        client.fetch(1)
        came = [client.chunk() for _ in range(8)]
    starts = [frame.header["start"] for frame, _ in came]
    assert starts == list(range(0, 16, 2))
    assert [slot is not None for _, slot in came] == [True] * 4 + [False] * 4
    for frame, slot in came:
        assert len(frame.payload if slot is None else slot) == 2 * SIZE
        assert not bytes(frame.payload if slot is None else slot).strip(b"\0")


def test_what_is_lent_is_not_the_buffers_until_the_client_is_gone(lending: Station) -> None:
    limit = lending.book.memory_limit
    with Local(lending) as client:
        client.fetch(1)
        held = [client.chunk() for _ in range(8)]
        assert sum(slot is not None for _, slot in held) == 4
        assert 4 * 2 * SIZE <= limit - lending.book.memory_limit <= 4 * 256 * KIB
    assert lending.closed_within(lambda: lending.book.memory_limit == limit)


def test_slots_that_are_returned_are_filled_again(lending: Station) -> None:
    with Local(lending) as client:
        client.fetch(1, credit=1)
        for number in range(8):
            frame, slot = client.chunk()
            assert slot is not None
            assert frame.header["slot"] == 1
            del slot
            client.send(FrameType.RETURN, slots=client.borrower.returnable(wanted=True))
            client.credit(1, 2 * number + 2, credit=2 * SIZE)
        assert client.expect(FrameType.END).header["count"] == 16


def test_another_client_gets_the_slots_of_one_that_is_gone(lending: Station) -> None:
    with Local(lending) as client:
        client.fetch(1)
        assert [client.chunk()[1] is not None for _ in range(8)] == [True] * 4 + [False] * 4

    def gets_a_slot() -> bool:
        with Local(lending) as client:
            client.fetch(1)
            return client.chunk()[1] is not None

    assert lending.closed_within(gets_a_slot)  # the server is not told of a closed socket at once


@pytest.mark.parametrize("greeting", [{}, {"slots": False}, {"slots": 1}])
def test_a_client_that_did_not_ask_is_sent_payloads(
    lending: Station, greeting: dict[str, object]
) -> None:
    with Client(lending.server.unix_path, **greeting) as client:
        client.fetch(1)
        assert len(client.expect(FrameType.CHUNK).payload) == 2 * SIZE


def test_over_tcp_payloads_are_sent(lending: Station) -> None:
    with Client(lending.tcp, slots=True) as client:
        client.fetch(1)
        assert len(client.expect(FrameType.CHUNK).payload) == 2 * SIZE


@pytest.mark.parametrize("slots", [[1], "1", None, [1, 1], ["1"], [True], list(range(65))])
def test_what_was_not_lent_cannot_be_returned(lending: Station, slots: object) -> None:
    with Client(lending.server.unix_path, slots=True) as client:
        client.send(FrameType.RETURN, slots=slots)
        fail = client.expect(FrameType.FAIL).header
    assert fail["code"] == "PROTOCOL"
    assert "slots" in fail["detail"] or "64" in fail["detail"]  # longer lists are not even read


def test_who_was_lent_nothing_cannot_return_it(lending: Station) -> None:
    with Client(lending.tcp) as client:
        client.send(FrameType.RETURN, slots=[1])
        assert client.expect(FrameType.FAIL).header["code"] == "PROTOCOL"
