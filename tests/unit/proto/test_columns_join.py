"""Columns that were joined or woven hold the elements that they should, to the bit."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.proto.chunk import Chunk
from penstock.proto.columns_join import joined, shapes_of, woven
from penstock.proto.spec import ComponentSpec

from .elements import assert_elements, runs_of_elements

Drawn = tuple[list[ComponentSpec], list[tuple[Any, ...]]]


def parts_of(drawn: Drawn, cuts: list[int]) -> list[Chunk]:
    """The elements as chunks that end at `cuts`: views of one."""
    specs, elements = drawn
    whole = Chunk.from_elements(0, elements, specs)
    bounds = sorted({0, whole.count, *(cut % (whole.count + 1) for cut in cuts)})
    return [whole.slice(a, b) for a, b in itertools.pairwise(bounds)] or [whole]


@given(runs_of_elements(), st.lists(st.integers(0, 8), max_size=3))
def test_joined_columns_are_the_elements_in_a_row(drawn: Drawn, cuts: list[int]) -> None:
    parts = parts_of(drawn, cuts)
    columns = [joined(part) for part in zip(*[chunk.columns for chunk in parts], strict=True)]
    assert_elements(Chunk.from_columns(5, columns), 5, drawn[1])
    for column in columns:
        wanted = [column.shapes.of(index) for index in range(column.count)]
        assert [*shapes_of(column)] == wanted


@given(runs_of_elements(max_count=12), st.integers(1, 3), st.integers(1, 3))
def test_woven_columns_take_turns(drawn: Drawn, block: int, lanes: int) -> None:
    specs, elements = drawn
    rounds = len(elements) // (block * lanes)
    each = rounds * block
    if not each:
        return
    lists = [elements[lane * each : (lane + 1) * each] for lane in range(lanes)]
    chunks = [Chunk.from_elements(0, lane, specs) for lane in lists]
    columns = [woven(part, block) for part in zip(*[c.columns for c in chunks], strict=True)]
    wanted = [
        element
        for first in range(0, each, block)
        for lane in lists
        for element in lane[first : first + block]
    ]
    assert_elements(Chunk.from_columns(0, columns), 0, wanted)
