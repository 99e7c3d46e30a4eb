"""Batches of whatever structure: their leaves, and a hash of their bytes.

A batch is nested dicts, lists and tuples of leaves: numpy arrays, tensors of any framework (what
has `numpy()` or `__array__`), numbers, strings and bytes. Anything else has no bytes that could be
compared or stored, and is named as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def leaves(batch: Any, name: str = "batch") -> Iterator[tuple[str, Any]]:
    """The leaves of a batch in order, each with the expression that gives it."""
    if isinstance(batch, dict):
        for key, value in batch.items():
            yield from leaves(value, f"{name}[{key!r:.60}]")
    elif isinstance(batch, (list, tuple)):
        for number, value in enumerate(batch):
            yield from leaves(value, f"{name}[{number}]")
    else:
        yield name, batch


def as_array(leaf: Any) -> NDArray[Any] | None:
    """A leaf as a numpy array, without a copy where that can be; None if it is no array."""
    if isinstance(leaf, np.ndarray):
        return leaf
    if callable(getattr(leaf, "detach", None)):  # PyTorch's may be in a graph, or on a device
        leaf = leaf.detach().cpu()
    if callable(getattr(leaf, "numpy", None)):
        return np.asarray(leaf.numpy())
    if isinstance(leaf, np.generic) or hasattr(leaf, "__array__"):
        return np.asarray(leaf)
    return None


def hashes_of(batch: Any) -> dict[str, int | None]:
    """A 64-bit hash of each leaf's type, shape and bytes, by its name; None where there is none."""
    return {name: _hash(leaf) for name, leaf in leaves(batch)}


def differences(before: dict[str, int | None], after: dict[str, int | None]) -> tuple[str, ...]:
    """Names of the leaves that differ, or that only one side has."""
    names = dict.fromkeys([*before, *after])
    return tuple(
        name
        for name in names
        if name not in before or name not in after or before[name] != after[name]
    )


def pieces_of(array: NDArray[Any]) -> tuple[NDArray[Any], list[bytes]]:
    """The lengths and the bytes of an array of strings (dtype object), in C order."""
    rows = [
        row if isinstance(row, bytes) else str(row).encode("utf-8", "surrogateescape")
        for row in array.ravel().tolist()
    ]
    return np.asarray([len(row) for row in rows], np.uint64), rows


def _hash(leaf: Any) -> int | None:
    if isinstance(leaf, _PLAIN):
        return xxhash.xxh3_64_intdigest(f"{type(leaf).__name__} {leaf!r}".encode())
    try:
        array = as_array(leaf)
    except Exception:  # a tensor that has no value, or not here
        return None
    if array is None:
        return None
    hasher = xxhash.xxh3_64(f"{array.dtype.str}{array.shape}".encode())
    if array.dtype.hasobject:
        lengths, rows = pieces_of(array)
        hasher.update(lengths.tobytes())
        for row in rows:
            hasher.update(row)
    else:
        # Views of bytes, because the buffer protocol knows no bfloat16.
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.intdigest()
