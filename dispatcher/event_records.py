"""Events as records of the journal, and back.

A record is msgpack `[kind, version, fields...]`. Decoding is strict; what does not fit is a
`JournalCorruptError`, never a guess.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import JournalCorruptError
from .events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VERSION = 1
#: Kinds of a later version, and how many fields they had in version 1: the others have defaults.
_LATER: Mapping[str, tuple[int, int]] = {
    "FaultRaised": (2, 15),
    "WorkerPromoted": (2, 1),
}


def _is_unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: type(value) is list and all(map(check, value))


def _is_text(value: object) -> bool:
    return type(value) is str


#: How a field that is annotated so is checked, and what it is called in errors.
_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "int": (_is_unsigned, "an unsigned 64-bit integer"),
    "str": (_is_text, "a string"),
    "bool": (lambda value: type(value) is bool, "a boolean"),
    "bytes": (lambda value: type(value) is bytes, "bytes"),
    "tuple[int, ...]": (_is_list_of(_is_unsigned), "a list of unsigned 64-bit integers"),
    "tuple[str, ...]": (_is_list_of(_is_text), "a list of strings"),
}

_SIMPLE: Mapping[str, type[Any]] = {"int": int, "str": str, "bool": bool}

_KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}
_FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    name: tuple((field.name, str(field.type)) for field in dataclasses.fields(kind))
    for name, kind in _KINDS.items()
}


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of these attributes; `attrgetter` gives no tuple for one."""
    if len(names) == 1:
        return lambda event: (getattr(event, names[0]),)
    return attrgetter(*names)


_VALUES: Mapping[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    kind: _getter([field for field, _ in _FIELDS[name]]) for name, kind in _KINDS.items()
}
#: Of those kinds that hold numbers, strings and booleans only: the types of the fields, and what
#: gives the numbers (and one more, so that there are always two).
_PLAIN: Mapping[str, tuple[list[type[Any]], Callable[[list[Any]], tuple[Any, ...]]]] = {
    name: (
        [_SIMPLE[annotation] for _, annotation in fields],
        itemgetter(*numbers, numbers[0]),
    )
    for name, fields in _FIELDS.items()
    if all(annotation in _SIMPLE for _, annotation in fields)
    if (numbers := [at for at, (_, annotation) in enumerate(fields) if annotation == "int"])
}
_NOT_PLAIN: tuple[None, Callable[[list[Any]], tuple[Any, ...]]] = (None, tuple)


def values(event: Event) -> tuple[Any, ...]:
    """The fields of an event, in their order."""
    return _VALUES[type(event)](event)


def version_of(kind: str) -> int:
    """The version in which events of a kind are written."""
    return _LATER[kind][0] if kind in _LATER else VERSION


def encode(event: Event) -> bytes:
    """The record of an event."""
    kind = type(event)
    name = kind.__name__
    packed: bytes = msgpack.packb((name, version_of(name), *_VALUES[kind](event)))
    return packed


def decode(record: bytes) -> Event:
    """The event of a record.

    Raises:
        JournalCorruptError: the record is no event that this version of penstock knows.
    """
    try:
        parts = msgpack.unpackb(record)
    except (ValueError, msgpack.UnpackException) as error:
        raise JournalCorruptError(f"a record is not msgpack: {error}") from None
    if type(parts) is not list or len(parts) < 2 or type(parts[0]) is not str:
        raise JournalCorruptError("a record is not a list [kind, version, fields...]")
    kind, version = parts[0], parts[1]
    del parts[:2]
    if kind not in _KINDS or version not in (VERSION, version_of(kind)):
        raise JournalCorruptError(
            f"a record is of kind {kind[:80]!r}, version {version!r}, which this version of"
            " penstock does not know"
        )
    # A restart may read a million of these: the usual ones are checked without a loop in Python.
    types, numbers = _PLAIN.get(kind, _NOT_PLAIN)
    if list(map(type, parts)) != types or min(numbers(parts)) < 0:
        parts = _checked(kind, parts, _LATER[kind][1] if version != version_of(kind) else None)
    event: Event = _KINDS[kind](*parts)
    return event


def _checked(kind: str, parts: list[Any], had: int | None) -> list[Any]:
    """The fields, the first `had` of them, checked one by one, and lists made tuples."""
    fields = _FIELDS[kind][:had]
    if len(parts) != len(fields):
        raise JournalCorruptError(f"a {kind} record has {len(parts)} fields, not {len(fields)}")
    for (name, annotation), value in zip(fields, parts, strict=True):
        check, wanted = _CHECKS[annotation]
        if not check(value):
            raise JournalCorruptError(f"{name} of a {kind} record is not {wanted}")
    return [tuple(value) if type(value) is list else value for value in parts]


def as_dict(event: Event) -> dict[str, object]:
    """The event for people and tools: its kind and its fields by name."""
    return {"kind": type(event).__name__, **dataclasses.asdict(event)}
