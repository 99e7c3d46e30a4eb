"""Slots that a worker lends: again when they are returned, within a budget, never waited for."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.borrowing import Borrower
from penstock.errors import ProtocolError
from penstock.proto.budget import Budget
from penstock.proto.slots import capacity_of
from penstock.worker.lending import Lender, Slot, fill
from penstock.worker.messages import Stored

from .clients import read_chunk

MIB = 1 << 20


@dataclass
class Payload:
    """As much of a piece as is sent."""

    data: bytes
    stored: Stored | None = None

    @property
    def nbytes(self) -> int:
        return len(self.data)

    @property
    def buffers(self) -> list[memoryview]:
        half = len(self.data) // 2
        return [memoryview(self.data)[:half], memoryview(self.data)[half:]]

    @property
    def header(self) -> dict[str, int]:
        return {"attempt": 7}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_what_was_lent_is_lent_again_only_when_it_was_returned(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    lender = Lender(pair[0], Budget(8 * MIB))
    first, second = lender.lend(MIB), lender.lend(MIB)
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert lender.returned([first.id])
    assert lender.lend(MIB - 5) is first
    assert not lender.returned([second.id, second.id])
    assert not lender.returned([99])


def test_beyond_its_budget_nothing_is_lent(pair: tuple[socket.socket, socket.socket]) -> None:
    budget = Budget(2 * MIB)
    lender, other = Lender(pair[0], budget), Lender(pair[0], budget)
    slots = [lender.lend(MIB), other.lend(MIB)]
    assert None not in slots
    assert lender.lend(MIB) is None
    other.close()
    assert other.lend(MIB) is None
    assert lender.lend(MIB) is not None


def test_whoever_wants_to_know_is_told_how_much_is_lent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    told: list[int] = []
    lender = Lender(pair[0], Budget(2 * MIB, told.append))
    small, large = lender.lend(MIB // 2), lender.lend(MIB)
    assert small is not None
    assert large is not None
    assert lender.lend(MIB) is None
    assert sum(told) == MIB + MIB // 2
    assert lender.returned([small.id])
    assert lender.lend(MIB) is not None  # the small one makes room
    assert sum(told) == 2 * MIB
    lender.close()
    assert sum(told) == 0


def test_slots_that_are_too_small_make_room(pair: tuple[socket.socket, socket.socket]) -> None:
    lender = Lender(pair[0], Budget(2 * MIB))
    small = [lender.lend(MIB), lender.lend(MIB)]
    ids = [slot.id for slot in small if slot is not None]
    assert lender.lend(2 * MIB) is None  # they are in use
    assert lender.returned(ids)
    large = lender.lend(2 * MIB)
    assert large is not None
    assert sorted(large.dropped) == ids


def test_what_no_slot_could_ever_hold_costs_no_slot(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    lender = Lender(pair[0], Budget(2 * MIB))
    slot = lender.lend(MIB)
    assert slot is not None
    assert lender.returned([slot.id])
    assert lender.lend(3 * MIB) is None
    assert lender.lend(MIB) is slot


@given(st.lists(st.tuples(st.integers(1, 3 * MIB), st.booleans()), max_size=60))
def test_lent_slots_are_large_enough_and_together_within_the_budget(
    wishes: list[tuple[int, bool]],
) -> None:
    near, far = socket.socketpair()
    with near, far:
        lender, out = Lender(near, Budget(8 * MIB)), []
        for nbytes, keep in wishes:
            slot = lender.lend(nbytes)
            if slot is None:
                assert sum(len(held.memory) for held in out) + capacity_of(nbytes) > 8 * MIB
                continue
            slot.close_descriptor()
            assert len(slot.memory) >= nbytes
            assert slot.id not in {held.id for held in out}
            out.append(slot)
            if not keep:
                assert lender.returned([out.pop(0).id])
        assert sum(len(held.memory) for held in out) <= 8 * MIB


def test_a_stored_payload_is_read_from_its_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + bytes(range(256)) * 300)
        file.flush()
        memory = np.zeros(80_000, np.uint8)
        fill(memory, Payload(b"", Stored(file.fileno(), 6, 256 * 300, 0)))  # type: ignore[arg-type]
        assert bytes(memory[: 256 * 300]) == bytes(range(256)) * 300
        os.ftruncate(file.fileno(), 1000)
        with pytest.raises(OSError, match="shorter"):
            fill(memory, Payload(b"", Stored(file.fileno(), 6, 256 * 300, 0)))  # type: ignore[arg-type]


class Talk:
    """A lender and a borrower, and the frames between them."""

    def __init__(self, near: socket.socket, far: socket.socket, budget: int) -> None:
        self.lender = Lender(near, Budget(budget))
        self.borrower = Borrower(far)

    def carry(self, data: bytes) -> memoryview | None:
        """Sends a payload; what came, or None if there was no slot for it."""
        if not self.lender.send(Payload(data)):  # type: ignore[arg-type]
            return None
        frame = read_chunk(self.borrower)
        assert frame.header["attempt"] == 7
        assert not len(frame.payload)
        return self.borrower.payload(frame.header)

    def give_back(self) -> int:
        ids = self.borrower.returnable(wanted=True)
        assert self.lender.returned(ids)
        return len(ids)


def test_a_payload_arrives_in_a_slot_and_stays_until_nobody_looks_at_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    talk = Talk(*pair, 2 * MIB)
    first = talk.carry(b"a" * 100_000)
    assert first is not None
    rows = np.frombuffer(first, np.uint8).reshape(-1, 10)[5:]
    del first
    assert talk.give_back() == 0
    second = talk.carry(b"b" * 100_000)
    assert second is not None
    assert second[:1] == b"b"
    assert rows.tobytes() == b"a" * (100_000 - 50)
    del second, rows
    assert talk.give_back() == 2
    third = talk.carry(b"c" * 90_000)
    assert third is not None
    assert bytes(third) == b"c" * 90_000


def test_slots_are_returned_when_they_are_many_or_wanted(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    talk = Talk(*pair, 8 * MIB)
    held = [talk.carry(b"x" * MIB) for _ in range(8)]
    assert None not in held
    del held[0]
    assert talk.borrower.returnable(wanted=False) == []
    assert len(talk.borrower.returnable(wanted=True)) == 1
    del held[:2]
    assert len(talk.borrower.returnable(wanted=False)) == 2


def test_small_payloads_and_those_beyond_the_budget_are_not_put_in_slots(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    talk = Talk(*pair, MIB)
    assert talk.carry(b"small") is None
    held = [talk.carry(b"x" * MIB)]
    assert held[0] is not None
    assert talk.carry(b"x" * MIB) is None
    held.clear()
    assert talk.give_back() == 1
    assert talk.carry(b"y" * MIB) is not None


def test_what_a_forked_process_looks_at_does_not_change_either(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    talk, (gate, key) = Talk(*pair, 2 * MIB), os.pipe()
    came = talk.carry(b"a" * 100_000)
    child = os.fork()
    if not child:
        os.close(key)  # so that it ends with us, whatever happens
        os.read(gate, 1)
        os._exit(0 if came == b"a" * 100_000 else 1)
    del came
    returned = talk.give_back()
    other = talk.carry(b"b" * 100_000)
    os.close(key)
    _, status = os.waitpid(child, 0)
    os.close(gate)
    assert (status, returned) == (0, 0)
    del other
    assert talk.give_back() == 1  # the child has not seen that one


@given(st.lists(st.integers(64 << 10, MIB), max_size=25), st.randoms(use_true_random=False))
def test_no_view_that_is_held_ever_changes(sizes: list[int], random: object) -> None:
    near, far = socket.socketpair()
    with near, far:
        talk, held = Talk(near, far, 2 * MIB), []
        for number, nbytes in enumerate(sizes):
            came = talk.carry(bytes([number]) * nbytes)
            if came is None:
                held.clear()
            else:
                held.append((number, nbytes, np.frombuffer(came, np.uint8)[:]))
                del came
            if held and random.random() < 0.5:  # type: ignore[attr-defined]
                held.pop(0)
            talk.give_back()
            for value, size, view in held:
                assert view.tobytes() == bytes([value]) * size


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({}, "does not say"),
        ({"slot": 1, "nbytes": "x", "dropped": []}, "does not say"),
        ({"slot": 1, "nbytes": 5, "dropped": []}, "without its descriptor"),
    ],
)
def test_a_slot_frame_that_is_none_is_refused(
    pair: tuple[socket.socket, socket.socket], header: dict[str, object], why: str
) -> None:
    with pytest.raises(ProtocolError, match=why):
        Borrower(pair[1]).learn(header)


@pytest.mark.parametrize(
    "header",
    [
        {"slot": 2, "nbytes": 5},
        {"slot": "1", "nbytes": 5},
        {"slot": 1},
        {"slot": 1, "nbytes": 2**40},
    ],
)
def test_a_chunk_that_is_in_no_slot_is_refused(
    pair: tuple[socket.socket, socket.socket], header: dict[str, object]
) -> None:
    talk = Talk(*pair, MIB)
    came = talk.carry(b"a" * MIB)
    with pytest.raises(ProtocolError):
        talk.borrower.payload({"slot": 1, "nbytes": 5})  # in use
    del came
    talk.give_back()
    with pytest.raises(ProtocolError):
        talk.borrower.payload(header)


def test_a_descriptor_is_closed_though_the_client_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    lender = Lender(pair[0], Budget(MIB))
    pair[1].close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BrokenPipeError):
        lender.send(Payload(b"x" * 100_000))  # type: ignore[arg-type]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_slot_is_made_known_with_its_descriptor_once() -> None:
    slot = Slot(1, np.zeros(1, np.uint8), os.memfd_create("test"))
    slot.close_descriptor()
    slot.close_descriptor()
    assert slot.descriptor is None
