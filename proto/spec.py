"""The types of an element as they travel: one `ComponentSpec` for each dense component.

Nested structures, ragged and sparse tensors are flattened to dense components before they reach
this package, so an element is a flat tuple and its type a flat tuple of specs. Dtypes are named
as TensorFlow, numpy and ml_dtypes name them; `"string"` is a numpy object array of `bytes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from ..errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

STRING = "string"
#: Highest rank of a component: numpy allows 64 and stacking elements takes one.
RANK_MAX = 63

_NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
#: Sub-byte types take a whole byte each. Older releases of ml_dtypes lack the last few.
_ML_DTYPES = (
    *("bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"),
    *("float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
)
#: TensorFlow shows quantised types to numpy as structures of one field, named like the type.
_QUANTISED = (("qint8", "<i1"), ("quint8", "<u1"), ("qint16", "<i2"), ("quint16", "<u2"))


def _numeric_dtypes() -> Mapping[str, np.dtype[Any]]:
    dtypes = {name: np.dtype(name).newbyteorder("<") for name in _NUMPY}
    for name in _ML_DTYPES:
        if hasattr(ml_dtypes, name):
            dtypes[name] = np.dtype(getattr(ml_dtypes, name))
    for name, code in (*_QUANTISED, ("qint32", "<i4")):
        dtypes[name] = np.dtype([(name, code)])
    return MappingProxyType(dtypes)


#: Every dtype that may stand on the wire, but for strings; little-endian. Nothing else is decoded.
NUMERIC_DTYPES = _numeric_dtypes()
_NAMES: Mapping[np.dtype[Any], str] = MappingProxyType(
    {dtype: name for name, dtype in NUMERIC_DTYPES.items()}
)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of that name; `object` for strings.

    Raises:
        UsageError: there is no such dtype, or it cannot travel.
    """
    if name == STRING:
        return np.dtype(object)
    try:
        return NUMERIC_DTYPES[name]
    except (KeyError, TypeError):
        raise UsageError(f"dtype {name!r} cannot be sent: it is none of penstock's") from None


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a numpy dtype in either byte order; "string" for `object`.

    Raises:
        UsageError: such values cannot travel.
    """
    if dtype == np.dtype(object):
        return STRING
    name = _NAMES.get(dtype)
    if name is None and dtype.byteorder == ">":
        name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise UsageError(f"dtype {dtype} cannot be sent: it is none of penstock's")
    return name


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """The type of one component of an element.

    Attributes:
        dtype: name of the dtype, see `NUMERIC_DTYPES`, or "string".
        shape: dimensions of one element, None where a dimension varies; None as a whole where
            even the rank does.

    Raises:
        UsageError: the dtype is unknown, or the shape is not one.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def __post_init__(self) -> None:
        numpy_dtype(self.dtype)
        if self.shape is None:
            return
        if not isinstance(self.shape, tuple) or len(self.shape) > RANK_MAX:
            raise UsageError(f"shape {self.shape!r} is not a tuple of at most {RANK_MAX} sizes")
        if any(size is not None and (type(size) is not int or size < 0) for size in self.shape):
            raise UsageError(f"shape {self.shape!r} has a dimension that is no size")

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if every dimension is known, else None."""
        if self.shape is None:
            return None
        known = tuple(size for size in self.shape if size is not None)
        return known if len(known) == len(self.shape) else None

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether a component of that dtype and exact shape is of this type."""
        if dtype != self.dtype:
            return False
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    def to_wire(self) -> dict[str, Any]:
        """The spec as values that msgpack can pack."""
        return {"dtype": self.dtype, "shape": None if self.shape is None else list(self.shape)}

    @classmethod
    def from_wire(cls, value: object) -> ComponentSpec:
        """The inverse of `to_wire`, for a value from outside.

        Raises:
            ProtocolError: the value is not a spec.
        """
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape"}:
            raise ProtocolError("a component spec is not a map of dtype and shape")
        shape = value["shape"]
        if shape is not None and not isinstance(shape, list):
            raise ProtocolError("the shape of a component spec is not a list")
        try:
            return cls(value["dtype"], None if shape is None else tuple(shape))
        except UsageError as error:
            raise ProtocolError(f"not a component spec: {error}") from error
