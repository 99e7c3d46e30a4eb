"""Component specs: every dtype that TensorFlow shows as numpy, and nothing else."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given

from penstock.errors import ProtocolError, UsageError
from penstock.proto.spec import (
    NUMERIC_DTYPES,
    STRING,
    ComponentSpec,
    dtype_name,
    numpy_dtype,
)

from .elements import DTYPES, component_specs


@given(component_specs())
def test_a_spec_comes_back(spec: ComponentSpec) -> None:
    assert ComponentSpec.from_wire(msgpack.unpackb(msgpack.packb(spec.to_wire()))) == spec


@pytest.mark.parametrize("name", DTYPES)
def test_names_and_dtypes_are_inverse(name: str) -> None:
    assert dtype_name(numpy_dtype(name)) == name


def test_the_common_dtypes_are_there() -> None:
    assert {"bool", "int8", "uint64", "float16", "complex128"} <= set(NUMERIC_DTYPES)
    assert {"bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"} <= set(NUMERIC_DTYPES)
    assert {"qint8", "quint8", "qint16", "quint16", "qint32"} <= set(NUMERIC_DTYPES)
    assert dtype_name(np.dtype(">i4")) == "int32"


@pytest.mark.parametrize("name", ["object", "O", "float128", "<i4", "V8", "resource", "", None, 3])
def test_other_dtypes_are_refused(name: object) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        numpy_dtype(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["S3", "U3", "V3", "datetime64[s]", "timedelta64[s]", ">M8[s]"])
def test_other_numpy_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        dtype_name(np.dtype(dtype))


@pytest.mark.parametrize("shape", [(-1,), (True,), (1.0,), ("1",), (1,) * 64, [1], 3])
def test_other_shapes_are_refused(shape: object) -> None:
    with pytest.raises(UsageError, match="shape"):
        ComponentSpec("int32", shape)  # type: ignore[arg-type]


def test_what_a_spec_accepts() -> None:
    spec = ComponentSpec("int32", (None, 3))
    assert spec.accepts("int32", (0, 3))
    assert not spec.accepts("int32", (3, 4))
    assert not spec.accepts("int32", (3,))
    assert not spec.accepts("int64", (3, 3))
    assert ComponentSpec(STRING, None).accepts(STRING, (1, 2, 3))
    assert spec.static_shape is None
    assert ComponentSpec("int32", None).static_shape is None
    assert ComponentSpec("int32", (2, 3)).static_shape == (2, 3)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"dtype": "int32"},
        {"dtype": "int32", "shape": 3},
        {"dtype": "int32", "shape": [-1]},
        {"dtype": "object", "shape": []},
        {"dtype": [], "shape": []},
        {"dtype": "int32", "shape": [], "more": 1},
    ],
)
def test_what_is_no_spec_on_the_wire(value: object) -> None:
    with pytest.raises(ProtocolError, match="component spec"):
        ComponentSpec.from_wire(value)
