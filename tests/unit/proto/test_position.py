"""The text of a position: what comes back, what is damaged, and how it is said."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import PositionError
from penstock.proto.hashing import Digest
from penstock.proto.position import TEXT_CHARS_MAX, Cursor, Position, StreamPosition

_U64 = st.integers(0, (1 << 64) - 1)
_DIGESTS = st.builds(Digest, st.integers(1, 1 << 40), _U64, _U64)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    """Positions of any content."""
    lanes = draw(st.integers(1, 24))
    block = draw(st.integers(1, 1 << 30))

    def cursor() -> Cursor:
        digest = draw(_DIGESTS | st.just(Digest(0, 0, 0)))
        return Cursor(draw(st.integers(0, 1 << 32)), digest.count, digest)

    def stream() -> StreamPosition:
        started = draw(st.booleans())
        return StreamPosition(
            fingerprint=draw(st.text("0123456789abcdef", min_size=8, max_size=32)),
            num_splits=draw(_U64),
            weight=draw(_U64),
            sizes=draw(_U64),
            epoch=draw(_U64),
            digest=draw(_DIGESTS),
            whole=(draw(_U64), draw(_U64)),
            turn=draw(st.integers(0, lanes - 1)),
            left=draw(st.integers(0, block)),
            cursors=tuple(cursor() for _ in range(lanes)) if started else (),
        )

    return Position(
        dataset=draw(st.text("0123456789abcdef", max_size=32)),
        seed=draw(_U64),
        lanes=lanes,
        block=block,
        ordered=draw(st.booleans()),
        deterministic=draw(st.booleans()),
        epoch=draw(_U64),
        consumed=draw(_U64),
        replayed=draw(st.booleans()),
        streams=tuple(stream() for _ in range(draw(st.integers(1, 3)))),
    )


def in_lanes(lanes: int) -> Position:
    """A position in so many lanes, each in the middle of a split."""
    cursors = tuple(
        Cursor(3, 100, Digest(100, (lane * 0x9E3779B97F4A7C15) % (1 << 64), lane << 50 | 12345))
        for lane in range(lanes)
    )
    stream = StreamPosition("00ff", 10**6, 0, 0, 7, Digest(5, 6, 7), (8, 9), 0, 1, cursors)
    return Position("abcd", 5, lanes, 4, False, True, 7, 123, False, (stream,))


@given(positions())
def test_a_position_comes_back_from_its_text(position: Position) -> None:
    text = str(position)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", text)
    assert len(text) <= TEXT_CHARS_MAX
    assert Position.parse(text) == position


@given(positions(), st.data())
def test_damage_is_never_taken_for_a_position(position: Position, data: st.DataObject) -> None:
    text = str(position)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != text[at]))
    cut, rest = text[:at], text[at + 1 :]
    damaged = data.draw(st.sampled_from([cut + other + rest, cut, cut + rest, text + other]))
    with contextlib.suppress(PositionError):
        assert Position.parse(damaged) == position  # a space at the end, for instance


@given(st.text(max_size=200))
def test_any_text_is_a_position_or_an_error(text: str) -> None:
    with pytest.raises(PositionError):
        Position.parse(text)


def test_sixteen_lanes_are_short_and_many_lanes_are_not_proven() -> None:
    assert len(str(in_lanes(16))) < 700
    assert all(cursor.digest for cursor in Position.parse(str(in_lanes(100))).streams[0].cursors)
    many = Position.parse(str(in_lanes(1000)))
    assert [cursor.elements for cursor in many.streams[0].cursors] == [100] * 1000
    assert {cursor.digest for cursor in many.streams[0].cursors} == {None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "not a position"),
        (lambda text: "hello world", "not a position: it begins with 'hello world'"),
        (lambda text: text.replace(".1.", ".2.", 1), "version '2'; this penstock knows 1"),
        (lambda text: text.replace(".1.", ".1.x", 1), "its length is 'x"),
        (lambda text: text[:100], "cut or has grown"),
        (lambda text: text[:-1], "a check of 15 of 16"),
        (lambda text: text[:60] + "AAAA" + text[64:], "its check does not fit"),
        (lambda text: text[:-16] + "0" * 16, "its check does not fit"),
        (lambda text: text + "A" * TEXT_CHARS_MAX, "longer than 4096"),
    ],
)
def test_what_is_damaged_is_named(change, said: str) -> None:
    with pytest.raises(PositionError, match=said):
        Position.parse(change(str(in_lanes(16))))


def test_the_printed_form_is_for_people() -> None:
    assert repr(in_lanes(2)) == "<Position epoch 7, 123 elements, seed 5, dataset abcd>"
