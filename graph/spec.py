"""Element specs and their flat dense components: what travels instead of nested elements."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..proto.spec import ComponentSpec

_OPAQUE = (tf.variant, tf.resource)
#: Names of what TensorFlow has kernels for in the ops of ragged tensors.
RAGGED_DTYPES = frozenset(
    (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "string"),
    )
)


def leaves(spec: Any) -> list[Any]:
    """The specs of tensors, ragged tensors and the like in a nested one, in flat order."""
    return [leaf for leaf in tf.nest.flatten(spec) if not isinstance(leaf, tf.NoneTensorSpec)]


def parts_of(leaf: Any) -> list[Any]:
    """The dense components of a leaf of a spec, or of an element."""
    return list(tf.nest.flatten(leaf, expand_composites=True))


def flat_specs(spec: Any) -> tuple[Any, ...]:
    """The TensorSpecs of the dense components, in wire order."""
    return tuple(part for leaf in leaves(spec) for part in parts_of(leaf))


def is_dense(spec: Any) -> bool:
    """Whether every component is a plain tensor already (elements need no conversion)."""
    return all(type(leaf) is tf.TensorSpec for leaf in leaves(spec))


def is_wireable(spec: Any) -> bool:
    """Whether elements can be taken apart into tensors of bytes-like dtypes (at least one)."""
    try:
        parts = flat_specs(spec)
    except (TypeError, ValueError, NotImplementedError):
        # The ways in which TensorFlow's specs say that they have no dense components.
        return False
    return bool(parts) and all(
        isinstance(part, tf.TensorSpec) and part.dtype not in _OPAQUE for part in parts
    )


def graph_spec(node: Any) -> Any:
    """The flat spec that a node's own attributes declare (variants stay variants)."""
    # Reading a missing attribute would add it to the node.
    types = node.attr["output_types" if "output_types" in node.attr else "Toutput_types"].list.type
    shapes = node.attr["output_shapes"].list.shape
    return tuple(
        tf.TensorSpec(tf.TensorShape(shape), tf.as_dtype(dtype))
        for dtype, shape in zip(types, shapes, strict=True)
    )


def flatten_element(spec: Any, element: Any) -> tuple[Any, ...]:
    """An element's dense components; the inverse of `pack_element`."""
    specs, values = tf.nest.flatten(spec), tf.nest.flatten(element)
    return tuple(
        part
        for leaf, value in zip(specs, values, strict=True)
        if not isinstance(leaf, tf.NoneTensorSpec)
        for part in parts_of(value)
    )


def pack_element(spec: Any, flat: tuple[Any, ...]) -> Any:
    """The element of `spec` made of these dense components, in the form that datasets hold."""
    rest = iter(flat)

    def build(leaf: Any) -> Any:
        if isinstance(leaf, tf.NoneTensorSpec):
            return None
        if isinstance(leaf, tf.TensorSpec):
            return next(rest)
        parts = [next(rest) for _ in parts_of(leaf)]
        if isinstance(leaf, tf.RaggedTensorSpec) and not leaf.ragged_rank:
            # A row of a ragged tensor: dense, but datasets hold it as a variant nonetheless.
            return tf.raw_ops.RaggedTensorToVariant(
                rt_nested_splits=[], rt_dense_values=parts[0], batched_input=False
            )
        return tf.nest.pack_sequence_as(leaf, parts, expand_composites=True)

    return tf.nest.map_structure(build, spec)


def components_of(spec: Any) -> tuple[ComponentSpec, ...]:
    """The wire description of the flat components."""
    return tuple(
        ComponentSpec(
            dtype="string" if part.dtype == tf.string else str(part.dtype.name),
            shape=None if part.shape.rank is None else tuple(part.shape.as_list()),
        )
        for part in flat_specs(spec)
    )


def fixed_bytes(spec: Any) -> int | None:
    """The size of one element, where its dtypes and shapes fix it."""
    total = 0
    for part in flat_specs(spec):
        if part.dtype == tf.string or not part.shape.is_fully_defined():
            return None
        total += part.shape.num_elements() * part.dtype.size
    return total


def unbatched(runs: Any) -> Any:
    """The elements of a dataset of runs: flat tuples of components with a leading dimension.

    TensorFlow's `unbatch` crashes the process (2.21) on a component without any bytes, such as an
    empty row; where one could come, the runs are sliced another way, at some cost.
    """
    shapes = [part.shape[1:] for part in tf.nest.flatten(runs.element_spec)]
    if all(shape.is_fully_defined() and shape.num_elements() for shape in shapes):
        return runs.unbatch()
    return runs.flat_map(lambda *parts: tf.data.Dataset.from_tensor_slices(parts))


def singles(runs: Any) -> Any:
    """As `unbatched`, of runs that have one element at most; it is not copied.

    Args:
        runs: a dataset of flat tuples of components with a leading dimension of 0 or 1.
    """
    some = runs.filter(lambda *parts: tf.size(parts[0], tf.int64) > 0)
    return some.map(lambda *parts: tuple(tf.squeeze(part, 0) for part in parts))
