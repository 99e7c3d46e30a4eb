"""Deliveries as columns: joined while they are small, in the order of their elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.client import columns as module
from penstock.client.columns import AsColumns, columns_of
from penstock.client.events import Piece
from penstock.client.weave import Woven
from penstock.proto.chunk import Chunk
from penstock.proto.spec import ComponentSpec

SPECS = (ComponentSpec("int64", (None,)), ComponentSpec("string", ()))


def chunk(*numbers: int) -> Chunk:
    elements = [(np.arange(n), np.array(b"x" * n, object)) for n in numbers]
    return Chunk.from_elements(0, elements, SPECS)


def sizes(found: Any) -> list[list[int]]:
    """The sizes of each run's elements, which say which they are."""
    return [[len(run[0].element(i)) for i in range(run[0].count)] for run in found]


def test_small_pieces_are_joined_and_large_ones_come_alone(monkeypatch: Any) -> None:
    pieces = [Piece(0, chunk(*numbers)) for numbers in ((1, 2), (2, 2), (30, 2), (4,))]
    assert sizes(columns_of(pieces)) == [[1, 2, 2, 2, 30, 2, 4]]
    monkeypatch.setattr(module, "_JOINED_BYTES", 200)
    assert sizes(columns_of(pieces)) == [[1, 2, 2, 2, 30, 2], [4]]


def test_woven_pieces_take_turns() -> None:
    pieces = [Piece(n, chunk(*numbers)) for n, numbers in enumerate(((1, 2, 3, 4), (5, 6, 7, 8)))]
    for block, wanted in ((1, [1, 5, 2, 6, 3, 7, 4, 8]), (2, [1, 2, 5, 6, 3, 4, 7, 8])):
        (run,) = columns_of([Woven.of(pieces, block)])
        assert sizes([run]) == [wanted]
        assert [len(run[1].element(i).item()) for i in range(8)] == wanted


def test_nothing_has_the_right_types() -> None:
    form = AsColumns()
    nothing = form.nothing(SPECS)
    assert form.count(nothing) == 0
    assert [column.dtype for column in nothing] == ["int64", "string"]
    assert form.count(next(form.of([Piece(0, chunk(1, 2))]))) == 2
