"""Memory that two processes share: sealed, sent as a descriptor, refused where it could change."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import ProtocolError
from penstock.proto.slots import (
    DescriptorReader,
    capacity_of,
    is_unix,
    make_slot,
    map_slot,
    send_with_descriptor,
)

KIB = 1 << 10


def test_what_one_side_writes_the_other_one_reads() -> None:
    descriptor, mine = make_slot(100 * KIB)
    theirs = map_slot(descriptor, 100 * KIB)
    os.close(descriptor)
    mine[:] = np.arange(100 * KIB, dtype=np.uint8)
    assert np.array_equal(theirs, mine)
    assert theirs.ctypes.data % 64 == 0


def test_a_slot_cannot_change_its_size() -> None:
    descriptor, _ = make_slot(100 * KIB)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_the_memory_of_a_slot_is_there_before_anybody_writes_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.proto.slots._mapped", lambda *_: None)  # it would touch it, too
    descriptor, _ = make_slot(100 * KIB)
    assert os.fstat(descriptor).st_blocks * 512 >= 100 * KIB
    os.close(descriptor)


@pytest.mark.parametrize("announced", [0, -1, 99 * KIB, 101 * KIB])
def test_a_slot_of_another_size_than_announced_is_refused(announced: int) -> None:
    descriptor, _ = make_slot(100 * KIB)
    with pytest.raises(ProtocolError, match="was announced"):
        map_slot(descriptor, announced)
    os.close(descriptor)


def test_memory_that_could_shrink_is_refused() -> None:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, KIB)
    with pytest.raises(ProtocolError, match="could change"):
        map_slot(descriptor, KIB)
    os.close(descriptor)


def test_a_file_is_refused() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(KIB)
        with pytest.raises(ProtocolError):
            map_slot(file.fileno(), KIB)


def test_descriptors_come_with_the_bytes_and_in_their_order() -> None:
    near, far = socket.socketpair()
    reader = DescriptorReader(far)
    with near, far:
        for number in (1, 2):
            descriptor, memory = make_slot(KIB)
            memory[0] = number
            send_with_descriptor(near, [b"slot", b" %d" % number], descriptor)
            os.close(descriptor)
        near.sendall(b", and no more")
        near.shutdown(socket.SHUT_WR)
        got, data = bytearray(64), b""
        while count := reader.recv_into(memoryview(got)):
            data += got[:count]
    assert data == b"slot 1slot 2, and no more"
    for number in (1, 2):
        descriptor = reader.take()
        assert not os.get_inheritable(descriptor)
        assert map_slot(descriptor, KIB)[0] == number
        os.close(descriptor)
    with pytest.raises(ProtocolError, match="without its descriptor"):
        reader.take()


def test_descriptors_that_nobody_announced_are_not_collected_for_ever() -> None:
    near, far = socket.socketpair()
    reader = DescriptorReader(far)
    before = len(os.listdir("/proc/self/fd"))

    def read_one() -> None:
        descriptor, _ = make_slot(1)
        send_with_descriptor(near, [b"x"], descriptor)
        os.close(descriptor)
        reader.recv_into(memoryview(bytearray(1)))

    with near, far:
        for _ in range(16):
            read_one()
        with pytest.raises(ProtocolError, match="more descriptors"):
            read_one()
        reader.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_slot_needs_no_descriptor_once_it_is_mapped() -> None:
    before = len(os.listdir("/proc/self/fd"))
    slots = []
    for _ in range(50):
        descriptor, memory = make_slot(KIB)
        slots += [memory, map_slot(descriptor, KIB)]
        os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({slot.ctypes.data for slot in slots}) == 100


def test_a_slot_is_unmapped_with_the_last_view_of_it() -> None:
    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("penstock-slot")

    before = mappings()
    descriptor, memory = make_slot(64 * KIB)
    os.close(descriptor)
    rows = memory[: 32 * KIB].reshape(-1, 64)[5:6]
    del memory
    assert mappings() == before + 1
    assert not rows.any()
    del rows
    assert mappings() == before


def test_descriptors_travel_over_plain_unix_sockets_only() -> None:
    near, far = socket.socketpair()
    with near, far, socket.socket() as tcp:
        assert is_unix(near)
        assert not is_unix(tcp)
        assert not is_unix(object())


@pytest.mark.parametrize("nbytes", [1, 64 * KIB, 100_000, 3 << 20, (3 << 20) + 1])
def test_capacities_are_at_most_a_quarter_more(nbytes: int) -> None:
    assert nbytes <= capacity_of(nbytes) <= 1.25 * nbytes + 1
