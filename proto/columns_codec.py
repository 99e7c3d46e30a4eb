"""Columns as parts of a payload, and back from bytes that nobody vouches for.

A component is described in the chunk's header by

    dtype      a name of `spec.py`
    encoding   what its parts are, see `Encoding`
    shape      of every element; None if they vary
    offset, nbytes   where its items are in the payload
    offsets, ranks, dims   `[offset, nbytes]` of its further parts, where it has them

Parts stand in the payload in the order ranks, dims, offsets, items, one component after the
other. Each begins at a multiple of 64, with zeros before it and as near as that allows; nothing
follows the last. There is thus one valid layout, and anything else is refused.
"""

from __future__ import annotations

import enum
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ChunkError, UsageError
from .columns import Column, FixedShape, NumericItems, StringItems, VaryingShapes
from .spec import RANK_MAX, STRING, numpy_dtype
from .wire import ALIGNMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .columns import Shape
    from .hashing import Bytes

_ZEROS = bytes(ALIGNMENT)
#: No column may have more bytes than this, even one without items whose other dimensions say so:
#: numpy refuses to shape an array when the product of the non-zero dimensions overflows.
EXTENT_MAX = 1 << 62


class Encoding(str, enum.Enum):
    """How a component's elements are laid out.

    `STACKED`: the items. `VARYING`: ranks (uint8 each element), dims (int64 each dimension),
    items. `STRINGS`: offsets (int64, one more than strings), then the strings as items.
    `VARYING_STRINGS`: all four.
    """

    STACKED = "stacked"
    VARYING = "varying"
    STRINGS = "strings"
    VARYING_STRINGS = "varying_strings"


class PayloadWriter:
    """Lays parts out one after the other, without copying them."""

    __slots__ = ("buffers", "nbytes")

    def __init__(self) -> None:
        self.buffers: list[bytes | memoryview] = []
        self.nbytes = 0

    def add(self, *parts: NDArray[Any]) -> list[int]:
        """Appends one-dimensional arrays, with nothing between; returns `[offset, nbytes]`."""
        nbytes = sum(part.nbytes for part in parts)
        padding = -self.nbytes % ALIGNMENT
        if padding and nbytes:
            self.buffers.append(_ZEROS[:padding])
            self.nbytes += padding
        at = [self.nbytes, nbytes]
        self.buffers.extend(part.view(np.uint8).data for part in parts if part.nbytes)
        self.nbytes += nbytes
        return at


class PayloadReader:
    """Hands out a payload's parts as views, if they are where they must be."""

    __slots__ = ("_data", "_position")

    def __init__(self, payload: memoryview) -> None:
        self._data: Bytes = np.frombuffer(payload, np.uint8)
        self._position = 0

    def take(self, at: object, name: str) -> Bytes:
        """The next part, uint8.

        Args:
            at: its `[offset, nbytes]`, as the header says.
            name: what to call it in an error.

        Raises:
            ChunkError: it is not there.
        """
        if not isinstance(at, list) or len(at) != 2 or not all(type(n) is int for n in at):
            raise ChunkError(f"{name}: place {at!r:.80} is not [offset, nbytes]")
        offset, nbytes = at
        padding = -self._position % ALIGNMENT if nbytes else 0
        if nbytes < 0 or offset != self._position + padding or offset + nbytes > len(self._data):
            raise ChunkError(
                f"{name}: {nbytes} bytes at {offset} do not follow {self._position} of a payload"
                f" of {len(self._data)}"
            )
        if self._data[self._position : offset].any():
            raise ChunkError(f"{name}: the padding before {offset} is not zero")
        self._position = offset + nbytes
        return self._data[offset : self._position]

    def finish(self) -> None:
        """Checks that nothing is left.

        Raises:
            ChunkError: something is.
        """
        if self._position != len(self._data):
            raise ChunkError(f"{len(self._data) - self._position} bytes follow the last component")


def write_column(column: Column, writer: PayloadWriter) -> dict[str, Any]:
    """Lays out one column's parts and returns its description for the header."""
    component: dict[str, Any] = {"dtype": column.dtype, "shape": None}
    strings = isinstance(column.items, StringItems)
    if isinstance(column.shapes, FixedShape):
        component["shape"] = list(column.shapes.shape)
        component["encoding"] = (Encoding.STRINGS if strings else Encoding.STACKED).value
    else:
        shapes = column.shapes.shapes
        component["encoding"] = (Encoding.VARYING_STRINGS if strings else Encoding.VARYING).value
        component["ranks"] = writer.add(np.array([len(shape) for shape in shapes], np.uint8))
        dims = list(itertools.chain.from_iterable(shapes))
        component["dims"] = writer.add(np.array(dims, "<i8"))
    items = column.items
    if isinstance(items, StringItems):
        offsets = items.offsets
        component["offsets"] = writer.add((offsets - offsets[0]).astype("<i8", copy=False))
    component["offset"], component["nbytes"] = writer.add(*items.parts)
    return component


def read_column(component: object, count: int, reader: PayloadReader, name: str) -> Column:
    """The inverse of `write_column`, as views of the payload.

    Args:
        component: the description from the header.
        count: number of elements.
        reader: where the parts are.
        name: what to call the component in an error.

    Raises:
        ChunkError: description and payload do not make a column of `count` elements.
    """
    if not isinstance(component, dict):
        raise ChunkError(f"{name} is not a map")
    dtype = component.get("dtype")
    try:
        encoding = Encoding(component.get("encoding"))
        itemsize = numpy_dtype(dtype).itemsize if isinstance(dtype, str) else 0
    except (ValueError, UsageError) as error:
        raise ChunkError(f"{name}: {error}") from error
    strings = encoding in (Encoding.STRINGS, Encoding.VARYING_STRINGS)
    if not isinstance(dtype, str) or strings != (dtype == STRING):
        raise ChunkError(f"{name}: dtype {dtype!r:.80} cannot be {encoding.value}")
    shapes: FixedShape | VaryingShapes
    if encoding in (Encoding.STACKED, Encoding.STRINGS):
        shape = _checked_shape(component.get("shape"), name)
        _check_extent(shape, count * itemsize, name)
        shapes = FixedShape(count, shape)
    else:
        shapes = _read_shapes(component, count, itemsize, reader, name)
    items: NumericItems | StringItems
    if strings:
        items = _read_strings(component, shapes.first_item(count), reader, name)
    else:
        data = reader.take([component.get("offset"), component.get("nbytes")], name)
        if len(data) != shapes.first_item(count) * itemsize:
            raise ChunkError(
                f"{name}: {len(data)} bytes are not {shapes.first_item(count)} items of {dtype}"
            )
        items = NumericItems((data.view(numpy_dtype(dtype)),))
    return Column(dtype, shapes, items)


def _checked_shape(shape: object, name: str) -> Shape:
    if not isinstance(shape, list) or len(shape) > RANK_MAX:
        raise ChunkError(f"{name}: shape {shape!r:.80} is not a list of at most {RANK_MAX} sizes")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ChunkError(f"{name}: shape {shape!r:.80} has a dimension that is no size")
    return tuple(shape)


def _check_extent(shape: Shape, nbytes: int, name: str) -> None:
    # Python's integers do not overflow, so the product is what it says.
    extent = math.prod(size for size in shape if size) * max(1, nbytes)
    if extent > EXTENT_MAX:
        raise ChunkError(f"{name}: shape {list(shape)!r:.80} is of impossible size")


def _read_shapes(
    component: dict[str, Any], count: int, itemsize: int, reader: PayloadReader, name: str
) -> VaryingShapes:
    if component.get("shape") is not None:
        raise ChunkError(f"{name}: both one shape and one for each element")
    ranks = reader.take(component.get("ranks"), f"{name}, ranks").tolist()
    raw = reader.take(component.get("dims"), f"{name}, dims")
    if len(ranks) != count or len(raw) != 8 * sum(ranks):
        raise ChunkError(f"{name}: {len(ranks)} ranks and {len(raw)} bytes of dims do not agree")
    if max(ranks, default=0) > RANK_MAX:
        raise ChunkError(f"{name}: rank {max(ranks)} is above {RANK_MAX}")
    dims = iter(raw.view("<i8").tolist())
    shapes = [tuple(itertools.islice(dims, rank)) for rank in ranks]
    for shape in set(shapes):
        if min(shape, default=0) < 0:
            raise ChunkError(f"{name}: shape {list(shape)!r:.80} has a negative dimension")
        _check_extent(shape, count * itemsize, name)
    return VaryingShapes.of_shapes(shapes)


def _read_strings(
    component: dict[str, Any], count: int, reader: PayloadReader, name: str
) -> StringItems:
    raw = reader.take(component.get("offsets"), f"{name}, offsets")
    if len(raw) != 8 * (count + 1):
        raise ChunkError(f"{name}: {len(raw)} bytes of offsets are not those of {count} strings")
    offsets = raw.view("<i8").astype(np.int64, copy=False)
    strings = reader.take([component.get("offset"), component.get("nbytes")], name)
    # All comparisons, no difference: that of two hostile offsets could overflow.
    if offsets[0] != 0 or offsets[-1] != len(strings) or (offsets[1:] < offsets[:-1]).any():
        raise ChunkError(f"{name}: offsets do not rise from 0 to {len(strings)}")
    return StringItems(offsets, strings)
