"""Values of a program, summarised for a report: bounded, masked, and without running its code.

Only built-in types are shown by their `repr`; of everything else the type and, where there is one,
the shape is told, because a `__repr__` of the program may do or cost anything.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from .batches import as_array, leaves
from .masking import MASK, mask_secrets

_TEXT_CHARS_MAX = 200
_LEAVES_MAX = 32
_SHOWN_ELEMENTS_MAX = 6
#: Looking for NaNs in more than this takes longer than a person likes to wait.
_LOOKED_AT_BYTES_MAX = 256 << 20
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, dict, set, frozenset)
_SECRET_WORDS = ("password", "passwd", "secret", "token", "api_key", "apikey", "credential")


def named(name: str, value: Any) -> str:
    """A variable's value in one line; that of a secret's name is masked."""
    if any(word in name.lower() for word in _SECRET_WORDS) and isinstance(value, (str, bytes)):
        return MASK
    return summary(value)


def summary(value: Any) -> str:
    """A value in one line of bounded length, without secrets."""
    if isinstance(value, _PLAIN):
        return mask_secrets(_short().repr(value))
    if isinstance(value, _CONTAINERS):
        if _only_plain(value):
            return mask_secrets(_short().repr(value))
        return f"<{type(value).__name__} of {len(value)}>"
    array = _array(value)
    if array is not None:
        return of_array(array)
    shape = getattr(value, "shape", None)
    told = f" {tuple(shape)}" if isinstance(shape, tuple) else ""
    kind = type(value)
    return f"<{kind.__module__}.{kind.__qualname__}{told}>"[:_TEXT_CHARS_MAX]


def of_array(array: np.ndarray[Any, Any]) -> str:
    """Type, shape and range of an array, and how much of it is no number."""
    text = f"{array.dtype.name}{list(array.shape)}"
    if array.dtype.hasobject or not array.size or array.nbytes > _LOOKED_AT_BYTES_MAX:
        return text
    if array.size <= _SHOWN_ELEMENTS_MAX:
        return mask_secrets(f"{text} {array.tolist()!r}")[:_TEXT_CHARS_MAX]
    if array.dtype.kind not in "biuf":
        return text
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        strange = array.size - int(finite.sum())
        if strange:
            nans = int(np.isnan(array).sum())
            text += f" with {nans} NaN and {strange - nans} infinite"
            array = array[finite]
            if not array.size:
                return text
    return f"{text} from {array.min()!s} to {array.max()!s}"


def of_batch(batch: Any) -> list[str]:
    """A line for each leaf of a batch."""
    lines: list[str] = []
    for name, leaf in leaves(batch):
        if len(lines) == _LEAVES_MAX:
            lines.append("…")
            break
        lines.append(f"{name}: {named(name, leaf)}")
    return lines


def not_numbers(batch: Any) -> list[str]:
    """Names of the leaves of a batch that hold what is no finite number."""
    found = []
    for name, leaf in leaves(batch):
        array = None if isinstance(leaf, _PLAIN) else _array(leaf)
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            found.append(name)
    return found


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    try:
        return as_array(value)
    except Exception:  # a tensor without a value, as in a graph
        return None


def _only_plain(container: Any) -> bool:
    """Whether the first elements are of built-in types; no more of them is shown."""
    if len(container) > _LEAVES_MAX:
        return False
    parts = [*container, *container.values()] if isinstance(container, dict) else container
    return all(isinstance(part, _PLAIN) for part in parts)


def _short() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = _TEXT_CHARS_MAX
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = _SHOWN_ELEMENTS_MAX
    return short
