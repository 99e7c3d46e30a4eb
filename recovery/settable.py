"""What an operator may set in a waiting program: attributes of objects that it registered.

`settable={"config": config}` allows `--set config.rate=0.1`. Only what is there already can be set,
nothing private, nothing that is a function, and only to a value of its kind; so a typo is refused,
and no new behaviour can be put in. Everything of a request is checked before any of it is set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .batches import as_array
from .values import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PARTS_MAX = 8
_SHOWN_MAX = 64


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is about to be set.

    Attributes:
        name: as the operator wrote it.
        apply: sets it.
        undo: sets what was there before.
    """

    name: str
    apply: Callable[[], None]
    undo: Callable[[], None]


def checked_settable(settable: object) -> dict[str, Any]:
    """What a program registers.

    Raises:
        UsageError: it is no dict of names and objects.
    """
    if settable is None:
        return {}
    if not isinstance(settable, dict) or not all(
        isinstance(name, str) and name.isidentifier() for name in settable
    ):
        raise UsageError(
            f"settable must be a dict from names, without dots, to objects, not {settable!r:.80}"
        )
    return dict(settable)


def shown(settable: Mapping[str, Any]) -> dict[str, str]:
    """The names that may be set, with their values now."""
    found: dict[str, str] = {}
    for root, target in settable.items():
        for name in _names(target):
            value = _get(target, name)
            if _kind(value) is not None and len(found) < _SHOWN_MAX:
                found[f"{root}.{name}"] = named(name, _plain(value))
    return found


def changes(settable: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Change]:
    """What a request would set; nothing is set yet.

    Args:
        settable: what the program registered.
        wanted: new values, as JSON has them, by name.

    Raises:
        UsageError: a name cannot be set, or not to that value; the message says what can.
    """
    return [_change(settable, name, value) for name, value in wanted.items()]


def apply_all(todo: list[Change]) -> None:
    """Sets all, or none.

    Raises:
        UsageError: the program's object refused one.
    """
    done: list[Change] = []
    for change in todo:
        try:
            change.apply()
        except Exception as error:
            for past in reversed(done):
                past.undo()
            raise UsageError(f"{change.name} cannot be set: {error}") from error
        done.append(change)


def _change(settable: Mapping[str, Any], name: str, value: Any) -> Change:
    root, *parts = name.split(".")
    if root not in settable or not parts or len(parts) > _PARTS_MAX:
        known = ", ".join(shown(settable)) or "nothing"
        raise UsageError(f"{name!r:.80} is not settable; {known} is")
    target = settable[root]
    for part in parts[:-1]:
        target = _get(target, _public(name, target, part))
    last = _public(name, target, parts[-1])
    now = _get(target, last)
    made = _converted(name, now, value)
    if callable(getattr(now, "assign", None)):  # a variable of TensorFlow or Keras
        before = as_array(now)
        return Change(name, lambda: now.assign(made), lambda: now.assign(before))
    if isinstance(now, np.ndarray):  # others may hold the same array
        old = now.copy()
        return Change(name, lambda: np.copyto(now, made), lambda: np.copyto(now, old))
    return Change(name, lambda: _set(target, last, made), lambda: _set(target, last, now))


def _public(name: str, target: Any, part: str) -> str:
    if part.startswith("_") or part not in _names(target):
        raise UsageError(f"{name!r:.80} is not settable: there is no {part!r:.40}")
    return part


def _names(target: Any) -> list[str]:
    """The public names that an object, a namespace or a dict has."""
    if isinstance(target, dict):
        return [name for name in target if isinstance(name, str) and not name.startswith("_")]
    slots = [slot for kind in type(target).__mro__ for slot in _slots(kind)]
    of_kind = [
        name
        for kind in type(target).__mro__
        for name, value in vars(kind).items()
        if (isinstance(value, property) and value.fset is not None)
        # A default that stands in the class: what is set goes to the object.
        or (hasattr(target, "__dict__") and _kind(value) is not None)
    ]
    names = dict.fromkeys([*getattr(target, "__dict__", {}), *slots, *of_kind])
    return [name for name in names if not name.startswith("_") and hasattr(target, name)]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _get(target: Any, name: str) -> Any:
    return target[name] if isinstance(target, dict) else getattr(target, name)


def _set(target: Any, name: str, value: Any) -> None:
    if isinstance(target, dict):
        target[name] = value
    else:
        setattr(target, name, value)


def _plain(value: Any) -> Any:
    return as_array(value) if callable(getattr(value, "assign", None)) else value


def _kind(value: Any) -> str | None:
    """What a value is, in JSON's words; None if it cannot be set."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, np.integer)):
        return "a whole number"
    if isinstance(value, (float, np.floating)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if value is None:
        return "any value"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, np.ndarray) or callable(getattr(value, "assign", None)):
        return "a number, or a list of its shape"
    return "an object" if isinstance(value, dict) else None


def _converted(name: str, now: Any, value: Any) -> Any:
    """The new value, of the kind of the one that is there."""
    kind = _kind(now)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "any value" or (kind == "true or false" and isinstance(value, bool)):
        return value
    if kind == "a whole number" and number and isinstance(value, int):
        return value
    if kind == "a number" and number and math.isfinite(value):
        return float(value)
    if kind == "a text" and isinstance(value, str):
        return value
    if kind == "a list" and isinstance(value, list):
        return type(now)(value) if type(now) in (list, tuple) else value
    if kind == "an object" and isinstance(value, dict):
        return value
    if kind == "a number, or a list of its shape" and (number or isinstance(value, list)):
        array = as_array(now)
        assert array is not None, "what has an assign has a value"
        try:
            made = np.asarray(value, array.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{name}: {error}") from None
        if made.dtype.kind in "fc" and not np.isfinite(made).all():
            raise UsageError(f"{name} must be finite, not {value!r:.80}")
        if made.shape == array.shape:
            return made
    raise UsageError(f"{name} must be {kind or 'left alone'}, not {value!r:.80}")
