"""Columns: one component of consecutive elements, held together.

A column is made of two parts that know nothing of each other. Its *shapes* say how many items
each element has: `FixedShape` if all are alike, `VaryingShapes` if each has its own. Its *items*
are those of all elements, one after the other in C order: `NumericItems` or `StringItems`. So
elements of equal shapes that follow each other are already a stacked array, whatever the column,
and what has a fixed shape and is numeric is stacked as a whole.

Columns are immutable and share memory when sliced. Indices here count from the column's first
element; `chunk.py` counts from the split's.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .hashing import fold_rows, fold_spans, fold_strings, signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from .hashing import Bytes, Hashes

Shape: TypeAlias = "tuple[int, ...]"

#: Up to this mean length, strings are cut out of one copy of their bytes instead of each from
#: the column: slicing `bytes` is several times as fast as slicing a view and copying that.
_COPIED_STRING_BYTES_MAX = 1 << 10


@dataclass(frozen=True, slots=True)
class FixedShape:
    """`count` elements of one shape."""

    count: int
    shape: Shape

    def of(self, index: int) -> Shape:
        """The shape of one element."""
        return self.shape

    def first_item(self, index: int) -> int:
        """How many items the elements before `index` have, `0 <= index <= count`."""
        return index * math.prod(self.shape)

    def slice(self, a: int, b: int) -> FixedShape:
        """Elements `a .. b-1`."""
        return FixedShape(b - a, self.shape)

    def changes(self) -> list[int]:
        """The elements whose shape is not that of the one before."""
        return []


@dataclass(frozen=True, slots=True, eq=False)
class VaryingShapes:
    """A shape for each element.

    Attributes:
        shapes: the shapes.
        bounds: the number of items before each element, and of all: one longer than `shapes`.
            Counted from an element that may have been sliced off, so `bounds[0]` may be > 0.
    """

    shapes: Sequence[Shape]
    bounds: Sequence[int]

    @classmethod
    def of_shapes(cls, shapes: Sequence[Shape]) -> VaryingShapes:
        """The shapes of elements that follow each other."""
        return cls(shapes, list(itertools.accumulate(map(math.prod, shapes), initial=0)))

    @property
    def count(self) -> int:
        """Number of elements."""
        return len(self.shapes)

    def of(self, index: int) -> Shape:
        """The shape of one element."""
        return self.shapes[index]

    def first_item(self, index: int) -> int:
        """How many items the elements before `index` have, `0 <= index <= count`."""
        return self.bounds[index] - self.bounds[0]

    def slice(self, a: int, b: int) -> VaryingShapes:
        """Elements `a .. b-1`."""
        return VaryingShapes(self.shapes[a:b], self.bounds[a : b + 1])

    def changes(self) -> list[int]:
        """The elements whose shape is not that of the one before."""
        pairs = enumerate(itertools.pairwise(self.shapes), 1)
        return [index for index, (before, after) in pairs if before != after]


@dataclass(frozen=True, slots=True, eq=False)
class NumericItems:
    """Items of one numeric dtype, in one place or, of large elements, in several.

    Attributes:
        parts: the items, at least one array, each one-dimensional, C-contiguous and
            little-endian; if there are several, each has whole elements, and at least one.
    """

    parts: tuple[NDArray[Any], ...]

    @property
    def count(self) -> int:
        """Number of items."""
        return sum(map(len, self.parts))

    @property
    def flat(self) -> NDArray[Any]:
        """The items in one place: copied there if they are in several."""
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        return sum(part.nbytes for part in self.parts)

    def slice(self, a: int, b: int) -> NumericItems:
        """Items `a .. b-1`, as views."""
        if len(self.parts) == 1:
            return NumericItems((self.parts[0][a:b],))
        ends = itertools.accumulate(map(len, self.parts))
        cut = [
            part[max(0, a - end + len(part)) : max(0, b - end + len(part))]
            for part, end in zip(self.parts, ends, strict=True)
        ]
        return NumericItems(tuple(part for part in cut if len(part)) or (cut[0],))

    def array(self, a: int, b: int, shape: Shape) -> NDArray[Any]:
        """Items `a .. b-1` as an array of that shape; a view if they are in one place."""
        return self.slice(a, b).flat.reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class StringItems:
    """Strings.

    Attributes:
        offsets: where each string begins in `strings` and where the last one ends, int64, one
            longer than there are strings. `offsets[0]` may be > 0 after slicing.
        strings: the strings one after the other, uint8.
    """

    offsets: NDArray[np.int64]
    strings: Bytes

    @property
    def count(self) -> int:
        """Number of strings."""
        return len(self.offsets) - 1

    @property
    def data(self) -> Bytes:
        """The strings' bytes, as a view; without those that were sliced off."""
        return self.strings[int(self.offsets[0]) : int(self.offsets[-1])]

    @property
    def parts(self) -> tuple[Bytes, ...]:
        """The same, as what numeric items are: in one place."""
        return (self.data,)

    @property
    def nbytes(self) -> int:
        """Bytes of all strings and of their offsets."""
        return int(self.offsets[-1] - self.offsets[0]) + self.offsets.nbytes

    @classmethod
    def of_list(cls, strings: Sequence[bytes]) -> StringItems:
        """Items with those strings; copies them, but for a lone one."""
        lengths = np.fromiter(map(len, strings), np.int64, len(strings))
        offsets = np.zeros(len(strings) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(strings), np.uint8))

    def slice(self, a: int, b: int) -> StringItems:
        """Strings `a .. b-1`."""
        return StringItems(self.offsets[a : b + 1], self.strings)

    def array(self, a: int, b: int, shape: Shape) -> NDArray[Any]:
        """Strings `a .. b-1` as an object array of `bytes` of that shape; a copy."""
        part = self.slice(a, b)
        data = part.data
        small = len(data) <= (b - a) * _COPIED_STRING_BYTES_MAX
        source = data.tobytes() if small else data.data
        bounds = (part.offsets - part.offsets[0]).tolist()
        flat = np.empty(b - a, object)
        flat[:] = [bytes(source[begin:end]) for begin, end in itertools.pairwise(bounds)]
        return flat.reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One component of consecutive elements.

    Attributes:
        dtype: name of the dtype, see `spec.py`.
        shapes: how many items each element has, and in which dimensions.
        items: those of all elements; as many as `shapes` says.
    """

    dtype: str
    shapes: FixedShape | VaryingShapes
    items: NumericItems | StringItems

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.shapes.count

    @property
    def nbytes(self) -> int:
        """Bytes of the items, and of the offsets of strings."""
        return self.items.nbytes

    def slice(self, a: int, b: int) -> Column:
        """Elements `a .. b-1`, sharing memory."""
        begin, end = self.shapes.first_item(a), self.shapes.first_item(b)
        return Column(self.dtype, self.shapes.slice(a, b), self.items.slice(begin, end))

    def element(self, index: int) -> NDArray[Any]:
        """One element; a view, or an object array of `bytes`."""
        begin, end = self.shapes.first_item(index), self.shapes.first_item(index + 1)
        return self.items.array(begin, end, self.shapes.of(index))

    def stack(self, a: int, b: int) -> NDArray[Any]:
        """Elements `a .. b-1`, `a < b`, which must have equal shapes, as `(b - a, *shape)`."""
        begin, end = self.shapes.first_item(a), self.shapes.first_item(b)
        return self.items.array(begin, end, (b - a, *self.shapes.of(a)))

    def fold(self, before: Hashes) -> Hashes:
        """The elements' hashes over one more component, given those over the ones before."""
        if isinstance(self.items, StringItems):
            return self._fold_strings(before, self.items)
        if isinstance(self.shapes, FixedShape):
            return self._fold_alike(before, self.items.parts, self.shapes.shape)
        flat, base = self.items.flat, self.shapes.bounds[0]
        ends = [(bound - base) * flat.itemsize for bound in self.shapes.bounds[1:]]
        return fold_spans(before, flat.view(np.uint8), ends, self.shapes.shapes, self.dtype)

    def _fold_alike(self, before: Hashes, parts: tuple[NDArray[Any], ...], shape: Shape) -> Hashes:
        size, sign = math.prod(shape), signature(self.dtype, shape)

        def folded(before: Hashes, part: NDArray[Any]) -> Hashes:
            return fold_rows(before, part.view(np.uint8), size * part.itemsize, sign)

        if len(parts) == 1:
            return folded(before, parts[0])
        ends = itertools.accumulate(len(part) // size for part in parts)
        cut = np.split(before, [*ends][:-1])
        return np.concatenate([*map(folded, cut, parts)])

    def _fold_strings(self, before: Hashes, items: StringItems) -> Hashes:
        firsts = [self.shapes.first_item(index) for index in range(self.count + 1)]
        signs: Iterable[int]
        if isinstance(self.shapes, FixedShape):
            signs = itertools.repeat(signature(self.dtype, self.shapes.shape), self.count)
        else:
            signs = [signature(self.dtype, shape) for shape in self.shapes.shapes]
        offsets = items.offsets - items.offsets[0]
        return fold_strings(before, items.data, offsets, firsts, signs)
