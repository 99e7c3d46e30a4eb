"""Columns from what a pipeline yields: stacked arrays, or elements one by one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ChunkError, UsageError
from .columns import Column, FixedShape, NumericItems, StringItems, VaryingShapes
from .spec import RANK_MAX, STRING, dtype_name, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from .columns import Shape
    from .spec import ComponentSpec

#: Smaller arrays are put together: what a place of its own costs is worth more than the copy.
_APART_BYTES_MIN = 64 << 10


def stacked_column(arrays: Sequence[NDArray[Any]], where: str) -> Column:
    """A column of the elements `array[0]`, `array[1]`, … of the first array, then of the next.

    Args:
        arrays: `(n, *shape)` each, at least one, of one dtype and shape. Not copied if numeric,
            C-contiguous and little-endian, unless they are several and small.
        where: which component it is, for the error.

    Raises:
        ChunkError: the dtype cannot travel, there is no leading dimension, or a string is not
            `bytes`.
    """
    arrays = [np.asarray(array) for array in arrays]
    name, shape = _name(arrays[0], where), arrays[0].shape[1:]
    for array in arrays:
        if not 1 <= array.ndim <= RANK_MAX + 1:
            raise ChunkError(f"{where}: an array of rank {array.ndim} is not a stack of elements")
        if array.dtype != arrays[0].dtype or array.shape[1:] != shape:
            raise ChunkError(f"{where}: batches of different types follow each other")
    shapes = FixedShape(sum(map(len, arrays)), shape)
    if name == STRING:
        strings = [*itertools.chain.from_iterable(map(_flat, arrays))]
        if not _all_bytes(strings):
            for array in arrays:
                _check_strings(array, where)
        return Column(name, shapes, StringItems.of_list(strings))
    flat = [np.asarray(array, numpy_dtype(name), order="C").reshape(-1) for array in arrays]
    if len(flat) > 1 and min(array.nbytes for array in flat) < _APART_BYTES_MIN:
        flat = [np.concatenate(flat)]
    return Column(name, shapes, NumericItems(tuple(flat)))


def gathered_column(
    elements: Sequence[tuple[object, ...]], number: int, spec: ComponentSpec, start: int
) -> Column:
    """A column of one component of elements that come one by one.

    It has a fixed shape if they are all alike (or there are none and the spec is static). The
    array of a lone numeric element is not copied.

    Args:
        elements: their components are arrays, or scalars as `Tensor.numpy()` gives for rank 0.
        number: which component of them.
        spec: what it must be.
        start: index of the first element, for errors.

    Raises:
        ChunkError: an element is not of the spec.
    """
    dtype, shape = numpy_dtype(spec.dtype), spec.static_shape
    parts = []
    for index, element in enumerate(elements, start):
        part = element[number]
        if not isinstance(part, np.ndarray):
            # A bare `bytes` would become a fixed-length numpy string, which forgets its last zeros.
            part = np.asarray(part, object if isinstance(part, bytes) else None)
        # What nearly all elements are is checked in place: this loop bounds a worker's speed.
        if part.dtype != dtype or part.shape != shape or not part.flags.c_contiguous:
            part = _checked(part, spec, f"element {index}, component {number}")
        parts.append(part)
    if spec.dtype == STRING and not _all_bytes(itertools.chain(*map(_flat, parts))):
        for index, part in enumerate(parts, start):
            _check_strings(part, f"element {index}, component {number}")
    return _packed(parts, spec)


def flat_column(
    items: NDArray[Any], shapes: Sequence[Shape], spec: ComponentSpec, where: str
) -> Column:
    """A column of elements whose items are one after the other already; as `gathered_column`.

    Args:
        items: of all elements, one-dimensional; not copied if numeric.
        shapes: of each element.
        spec: what they must be.
        where: which component it is, for the error.

    Raises:
        ChunkError: they are not of the spec, or shapes and items do not agree.
    """
    name = _name(items, where)
    for shape in set(shapes):
        if not spec.accepts(name, shape):
            raise ChunkError(f"{where}: {name} {list(shape)} is not the announced {spec}")
    kind = _kind(shapes, spec)
    if items.ndim != 1 or kind.first_item(len(shapes)) != len(items):
        raise ChunkError(f"{where}: {list(items.shape)} items are not those of its elements")
    if name == STRING:
        strings = _flat(items)
        if not _all_bytes(strings):
            _check_strings(items, where)
        return Column(name, kind, StringItems.of_list(strings))
    return Column(name, kind, NumericItems((np.asarray(items, numpy_dtype(name), order="C"),)))


def _checked(part: NDArray[Any], spec: ComponentSpec, where: str) -> NDArray[Any]:
    name = _name(part, where)
    if not spec.accepts(name, part.shape):
        raise ChunkError(f"{where}: {name} {list(part.shape)} is not the announced {spec}")
    return np.asarray(part, numpy_dtype(name), order="C")


def _packed(parts: Sequence[NDArray[Any]], spec: ComponentSpec) -> Column:
    kind = _kind([part.shape for part in parts], spec)
    if spec.dtype == STRING:
        return Column(spec.dtype, kind, StringItems.of_list([*itertools.chain(*map(_flat, parts))]))
    if len(parts) == 1:
        flat = parts[0].reshape(-1)
    else:
        empty = np.empty(0, numpy_dtype(spec.dtype))
        flat = np.concatenate([empty, *(part.reshape(-1) for part in parts)])
    return Column(spec.dtype, kind, NumericItems((flat,)))


def _kind(shapes: Sequence[Shape], spec: ComponentSpec) -> FixedShape | VaryingShapes:
    alike = shapes[0] if shapes else spec.static_shape
    if alike is not None and all(shape == alike for shape in shapes):
        return FixedShape(len(shapes), alike)
    return VaryingShapes.of_shapes(shapes)


def _flat(array: NDArray[Any]) -> list[Any]:
    items: list[Any] = array.reshape(-1).tolist()
    return items


def _all_bytes(strings: Iterable[object]) -> bool:
    return set(map(type, strings)) <= {bytes, np.bytes_}


def _name(array: NDArray[Any], where: str) -> str:
    try:
        return dtype_name(array.dtype)
    except UsageError as error:
        raise ChunkError(f"{where}: {error}") from error


def _check_strings(array: NDArray[Any], where: str) -> None:
    for item in _flat(array):
        if not isinstance(item, bytes):
            raise ChunkError(f"{where}: a string is of type {type(item).__name__}, not bytes")
