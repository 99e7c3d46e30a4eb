"""Events as records of the journal, and back.

A record is msgpack `[kind, version, fields...]`. Decoding is strict; what does not fit is a
`JournalCorruptError`, never a guess.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import JournalCorruptError
from .events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    _Function = Callable[[Any], Any]

VERSION = 1
#: Kinds of a later version, and how many fields they had in version 1: the others have defaults.
_LATER: Mapping[str, tuple[int, int]] = {
    "FaultRaised": (2, 15),
    "WorkerPromoted": (2, 1),
}


def _is_unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: type(value) is tuple and all(map(check, value))


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


def fields(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """The names of a kind's fields and their types, as they are written, in their order."""
    if dataclasses.is_dataclass(kind):
        return tuple((field.name, str(field.type)) for field in dataclasses.fields(kind))
    return tuple((name, type_.__forward_arg__) for name, type_ in kind.__annotations__.items())


_FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    name: fields(kind) for name, kind in _KINDS.items()
}


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of these attributes; `attrgetter` gives no tuple for one."""
    if len(names) == 1:
        return lambda event: (getattr(event, names[0]),)
    return attrgetter(*names)


_VALUES: Mapping[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    kind: _getter([field for field, _ in _FIELDS[name]]) for name, kind in _KINDS.items()
}


def _maker(kind: type[Any]) -> Callable[[tuple[Any, ...]], Any]:
    """What makes an event of its fields; of a named tuple without a look at each."""
    if issubclass(kind, tuple):
        return partial(tuple.__new__, kind)
    return lambda parts: kind(*parts)


_MAKERS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    name: _maker(kind) for name, kind in _KINDS.items()
}
#: Of those kinds that hold numbers, strings and booleans only: the types of a record's parts, what
#: gives those that are numbers, and what makes the event.
_PLAIN: Mapping[str, tuple[tuple[type[Any], ...], _Function, _Function]] = {
    name: (
        (str, int, *(_SIMPLE[annotation] for _, annotation in fields)),
        itemgetter(1, 1, *(at for at, (_, kind) in enumerate(fields, 2) if kind == "int")),
        _MAKERS[name],
    )
    for name, fields in _FIELDS.items()
    if all(annotation in _SIMPLE for _, annotation in fields)
}


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
        parts = msgpack.unpackb(record, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise JournalCorruptError(f"a record is not msgpack: {error}") from None
    # A restart may read a million of these: the usual ones are checked without a loop in Python.
    named = type(parts) is tuple and parts and type(parts[0]) is str
    plain = _PLAIN.get(parts[0]) if named else None
    if plain is not None:
        types, numbers, make = plain
        if tuple(map(type, parts)) == types and parts[1] == VERSION and min(numbers(parts)) >= 0:
            usual: Event = make(parts[2:])
            return usual
    kind = _check(parts)
    event: Event = _MAKERS[kind](parts[2:])
    return event


def _check(parts: Any) -> str:
    """Looks at a record's parts one by one; returns its kind."""
    if type(parts) is not tuple or len(parts) < 2 or type(parts[0]) is not str:
        raise JournalCorruptError("a record is not a list [kind, version, fields...]")
    kind: str = parts[0]
    version = parts[1]
    if kind not in _KINDS or version not in (VERSION, version_of(kind)):
        raise JournalCorruptError(
            f"a record is of kind {kind[:80]!r}, version {version!r}, which this version of"
            " penstock does not know"
        )
    wanted = _FIELDS[kind] if version == version_of(kind) else _FIELDS[kind][: _LATER[kind][1]]
    if len(parts) - 2 != len(wanted):
        raise JournalCorruptError(f"a {kind} record has {len(parts) - 2} fields, not {len(wanted)}")
    for (name, annotation), value in zip(wanted, parts[2:], strict=True):
        check, what = _CHECKS[annotation]
        if not check(value):
            raise JournalCorruptError(f"{name} of a {kind} record is not {what}")
    return kind


def as_dict(event: Event) -> dict[str, object]:
    """The event for people and tools: its kind and its fields by name."""
    names = (name for name, _ in _FIELDS[type(event).__name__])
    return {"kind": type(event).__name__, **dict(zip(names, values(event), strict=True))}
