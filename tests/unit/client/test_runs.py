"""Deliveries as stacked arrays."""

from __future__ import annotations

import numpy as np

from penstock.client.buffers import BufferPool
from penstock.client.events import Piece
from penstock.client.options import default_block
from penstock.client.runs import empty_run, rows_of, runs_of
from penstock.proto.budget import Budget
from penstock.proto.chunk import Chunk
from penstock.proto.spec import ComponentSpec


def test_small_blocks_are_put_together() -> None:
    pieces = [Piece(i, Chunk.from_stacked(0, [np.full(3, i), np.zeros((3, 2))])) for i in range(50)]
    ((first, second),) = runs_of(pieces)
    assert first.tolist() == [i for i in range(50) for _ in range(3)]
    assert second.shape == (150, 2)


def test_memory_of_what_was_put_together_is_used_again_once_nobody_looks_at_it() -> None:
    allocate = BufferPool(Budget(1 << 20)).allocate
    pieces = [Piece(i, Chunk.from_stacked(0, [np.full(1000, float(i))])) for i in range(20)]
    ((first,),) = runs_of(pieces, allocate=allocate)
    ((second,),) = runs_of(pieces, allocate=allocate)
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    assert not np.shares_memory(first, second)
    assert first.tolist() == second.tolist() == [float(i) for i in range(20) for _ in range(1000)]
    place, row = first.ctypes.data, second[:1]
    del first, second
    ((third,),) = runs_of(pieces, allocate=allocate)
    assert third.ctypes.data == place
    assert not np.shares_memory(third, row)


def test_a_large_run_is_handed_over_without_a_copy_and_in_its_place() -> None:
    large = np.zeros((4, 100_000))
    chunks = [[np.ones((2, 100_000))], [large], [np.ones((1, 100_000))]]
    runs = list(runs_of(Piece(0, Chunk.from_stacked(0, arrays)) for arrays in chunks))
    assert [run[0].shape[0] for run in runs] == [2, 4, 1]
    assert np.shares_memory(runs[1][0], large)


def test_runs_of_other_shapes_are_not_mixed() -> None:
    spec = (ComponentSpec("int64", (None,)),)
    elements = [(np.arange(length),) for length in (1, 1, 2, 2, 2, 1)]
    pieces = [Piece(0, Chunk.from_elements(0, elements, spec)) for _ in range(2)]
    assert [run[0].shape for run in runs_of(pieces)] == [(2, 1), (3, 2), (3, 1), (3, 2), (1, 1)]


def test_strings_come_as_bytes() -> None:
    arrays = [np.array([b"a", b"", b"long"], object)]
    ((texts,),) = runs_of([Piece(0, Chunk.from_stacked(0, arrays))] * 2)
    assert texts.tolist() == [b"a", b"", b"long"] * 2


def test_an_empty_run_has_the_right_types() -> None:
    specs = [
        ComponentSpec("float32", (3, None)),
        ComponentSpec("string", ()),
        ComponentSpec("bfloat16", None),
    ]
    arrays = empty_run(specs)
    assert [array.shape for array in arrays] == [(0, 3, 0), (0,), (0,)]
    assert [array.dtype.name for array in arrays] == ["float32", "object", "bfloat16"]


def test_a_block_is_about_256_kib_and_a_power_of_two() -> None:
    assert default_block([ComponentSpec("int64", ())]) == 256
    assert default_block([ComponentSpec("float32", (64, 64, 3)), ComponentSpec("int64", ())]) == 4
    assert default_block([ComponentSpec("float32", (1000, 1000))]) == 1
    assert default_block([ComponentSpec("float32", (None,))]) == 16
    assert default_block([ComponentSpec("string", ())]) == 16


def test_a_block_is_a_whole_piece_where_splits_are_mixed_already() -> None:
    assert default_block([ComponentSpec("int64", ())], mixed=True) == 4096
    assert default_block([ComponentSpec("float32", (64, 64, 3))], mixed=True) == 64
    assert default_block([ComponentSpec("float32", (1000, 1000))], mixed=True) == 1
    assert default_block([ComponentSpec("string", ())], mixed=True) == 16


def test_a_block_is_one_element_where_lanes_have_to_blend_their_splits() -> None:
    numbers, names = [ComponentSpec("int64", ())], [ComponentSpec("string", ())]
    assert default_block(numbers, blended=True) == default_block(names, blended=True) == 1
    # One lane, or splits that are mixed themselves, leave nothing to blend.
    assert default_block(numbers, mixed=True, blended=True) == 4096


def test_runs_are_cut_into_rows_without_a_copy_and_empty_ones_stay() -> None:
    run = np.arange(6).reshape(3, 2), np.arange(3)
    nothing = run[0][:0], run[1][:0]
    rows = list(rows_of([nothing, run]))
    assert [len(numbers) for _, numbers in rows] == [0, 1, 1, 1]
    assert [pair.tolist() for pair, _ in rows[1:]] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert all(np.shares_memory(pair, run[0]) for pair, _ in rows[1:])
