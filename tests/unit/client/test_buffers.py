"""Receive buffers are used again when nobody looks at them any more, and not before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.buffers import BufferPool, capacity_of
from penstock.proto.budget import Budget

MIB = 1 << 20


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_a_buffer_is_used_again_when_its_last_view_is_gone() -> None:
    pool = BufferPool(Budget(8 * MIB))
    first = pool.allocate(MIB)
    at = address(first)
    rows = np.frombuffer(first, np.int64).reshape(-1, 8)[3:5]
    del first
    assert address(pool.allocate(MIB)) != at
    del rows
    assert at in {address(pool.allocate(MIB)) for _ in range(2)}


@pytest.mark.parametrize("nbytes", [0, 1, 1000, 64 << 10, MIB + 1, 3 * MIB])
def test_buffers_are_aligned_writable_and_of_the_wanted_length(nbytes: int) -> None:
    pool = BufferPool(Budget(64 * MIB))
    for _ in range(3):
        view = pool.allocate(nbytes)
        assert (view.nbytes, view.readonly) == (nbytes, False)
        assert address(view) % 64 == 0 or not nbytes


def test_beyond_its_limit_a_pool_keeps_nothing() -> None:
    pool = BufferPool(Budget(2 * MIB))
    held = [pool.allocate(MIB) for _ in range(5)]
    kept = {address(view) for view in held[:2]}
    held.clear()
    again = [pool.allocate(MIB) for _ in range(2)]
    assert {address(view) for view in again} == kept


def test_pools_share_a_budget_and_give_it_back_in_the_end() -> None:
    budget = Budget(2 * MIB)
    pool, other = BufferPool(budget), BufferPool(budget)
    held = [pool.allocate(MIB), pool.allocate(MIB)]
    assert budget.left == 0
    first = other.allocate(MIB)  # not kept: `other` has no share
    pool.close()
    assert budget.left == 2 * MIB
    second = other.allocate(MIB)
    assert budget.left == MIB
    assert len({address(view) for view in (*held, first, second)}) == 4


@given(st.lists(st.integers(1, 1 << 18), max_size=30), st.randoms())
def test_no_two_views_that_are_held_share_memory(sizes: list[int], random: object) -> None:
    pool = BufferPool(Budget(MIB))
    held: dict[int, memoryview] = {}
    for number, nbytes in enumerate(sizes):
        view = pool.allocate(nbytes)
        view[:] = bytes([number]) * nbytes
        held[number] = view
        if random.random() < 0.5:  # type: ignore[attr-defined]
            held.pop(random.choice(sorted(held)))  # type: ignore[attr-defined]
        for at, other in held.items():
            assert bytes(other[:1]) == bytes(other[-1:]) == bytes([at])
        del view


@given(st.integers(1, 1 << 40))
def test_a_capacity_is_at_most_a_quarter_more(nbytes: int) -> None:
    assert nbytes <= capacity_of(nbytes) <= 1.25 * nbytes
    assert capacity_of(capacity_of(nbytes)) == capacity_of(nbytes)
