"""What takes the place of a head at its cache point: a tee that writes, or a source that reads.

Both are a few nodes of plain tf.data around one op that calls Python:

    put: head > Batch(size) > Scan(write) > FlatMap(slices) > tail
    get: Range(chunks) > FlatMap(slices of read) > tail

A scan is run in order, one element at a time, whatever TensorFlow's optimiser makes of maps; what
it carries along is the index of the next element, so that an iterator's state knows it. Elements
that cannot be stacked go through one by one, without the batch and the slices. The functions are
written by hand: nothing is traced, and no name depends on what the process has done before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .ir import Graph
from .template import POINT

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Constants to be filled for each split: elements in a batch, number of chunks, and which of the
#: functions behind the token is meant.
SIZE = f"{POINT}/size"
CHUNKS = f"{POINT}/chunks"
HANDLE = f"{POINT}/handle"

_INT64 = tf.int64.as_datatype_enum
_VARIANT = tf.variant.as_datatype_enum


def writing(head: Any, specs: Sequence[Any], token: bytes, *, stacked: bool) -> Any:
    """The graph of a head whose elements pass a writer, called `(handle, start, *components)`.

    Args:
        head: its GraphDef; the root is called `POINT`.
        specs: of the components of its elements.
        token: of the Python function; that returns the index of the element that follows.
        stacked: it is called with `SIZE` elements at a time.
    """
    proto = capture.graph_pb2.GraphDef()
    proto.CopyFrom(head)
    graph = Graph(proto, POINT, {})
    graph.rename_all({POINT: f"{POINT}/head"})
    below = graph.root
    batched = [tf.TensorSpec([None, *s.shape], s.dtype) for s in specs] if stacked else specs
    if stacked:
        graph.add_const(SIZE, 1, tf.int64)
        graph.add_const(f"{POINT}/drop", False, tf.bool)
        below = f"{POINT}/batch"
        inputs = [graph.root, SIZE, f"{POINT}/drop"]
        _declare(graph.add(below, "BatchDatasetV2", inputs), batched)
    graph.add_const(f"{POINT}/start", 0, tf.int64)
    graph.add_const(HANDLE, 0, tf.int64)
    above = f"{POINT}/write" if stacked else POINT
    scan = graph.add(above, "ScanDataset", [below, f"{POINT}/start", HANDLE])
    _declare(scan, batched)
    scan.attr["f"].func.name = _write_function(graph, specs, token)
    scan.attr["Tstate"].list.type.append(_INT64)
    scan.attr["Targuments"].list.type.append(_INT64)
    scan.attr["preserve_cardinality"].b = True
    if stacked:
        body, parts = _function(graph, "penstock_slices", _types(specs))
        _return_elements(body, parts, specs, stacked=True)
        _flat_map(graph, [above], body, specs)
    return graph.to_proto(POINT, retval=False)


def reading(versions: Any, specs: Sequence[Any], token: bytes, *, stacked: bool) -> Any:
    """A graph whose elements come from a reader, called `(handle, chunk)`.

    Args:
        versions: of the GraphDef that it takes the place of.
        specs: of the components of an element.
        token: of the Python function; that returns the components.
        stacked: they are those of several elements.
    """
    proto = capture.graph_pb2.GraphDef()
    proto.versions.CopyFrom(versions)
    graph = Graph(proto, POINT, {})
    for name, value in ((f"{POINT}/first", 0), (CHUNKS, 0), (f"{POINT}/step", 1), (HANDLE, 0)):
        graph.add_const(name, value, tf.int64)
    numbers = f"{POINT}/numbers"
    made = graph.add(numbers, "RangeDataset", [f"{POINT}/first", CHUNKS, f"{POINT}/step"])
    _declare(made, [tf.TensorSpec([], tf.int64)])
    body, (chunk, handle) = _function(graph, "penstock_read", [_INT64, _INT64])
    _call(body, token, [handle, chunk], [_INT64, _INT64], _types(specs))
    parts = [f"call:output:{k}" for k in range(len(specs))]
    _return_elements(body, parts, specs, stacked=stacked)
    _flat_map(graph, [numbers, HANDLE], body, specs)
    return graph.to_proto(POINT, retval=False)


def _types(specs: Sequence[Any]) -> list[int]:
    return [spec.dtype.as_datatype_enum for spec in specs]


def _declare(node: Any, specs: Sequence[Any], types: str = "output_types") -> None:
    node.attr[types].list.type.extend(_types(specs))
    shapes = node.attr["output_shapes"].list.shape
    shapes.extend(tf.TensorShape(spec.shape).as_proto() for spec in specs)


def _function(graph: Graph, name: str, types: Sequence[int]) -> tuple[Any, list[str]]:
    """Adds an empty function; returns it and the names of its arguments."""
    body = graph.library.function.add()
    body.signature.name = name
    names = [f"argument_{k}" for k in range(len(types))]
    for argument, dtype in zip(names, types, strict=True):
        body.signature.input_arg.add(name=argument, type=dtype)
    return body, names


def _write_function(graph: Graph, specs: Sequence[Any], token: bytes) -> str:
    types = [_INT64, *_types(specs), _INT64]
    body, (start, *parts, handle) = _function(graph, "penstock_write", types)
    _call(body, token, [handle, start, *parts], [_INT64, *types[:-1]], [_INT64])
    body.signature.output_arg.add(name="next", type=_INT64)
    body.ret["next"] = "call:output:0"
    for k, (part, dtype) in enumerate(zip(parts, _types(specs), strict=True)):
        body.signature.output_arg.add(name=f"part_{k}", type=dtype)
        body.ret[f"part_{k}"] = part
    return str(body.signature.name)


def _call(body: Any, token: bytes, inputs: list[str], types: list[int], outputs: list[int]) -> None:
    # What a stateful op has made could not be saved with an iterator's state.
    call = body.node_def.add(name="call", op="PyFuncStateless", input=inputs)
    call.attr["token"].s = token
    call.attr["Tin"].list.type.extend(types)
    call.attr["Tout"].list.type.extend(outputs)


def _return_elements(
    body: Any, parts: Sequence[str], specs: Sequence[Any], *, stacked: bool
) -> None:
    """Makes a function return the dataset of the element or elements that are in its `parts`."""
    op = "TensorSliceDataset" if stacked else "TensorDataset"
    node = body.node_def.add(name="elements", op=op, input=parts)
    _declare(node, specs, "Toutput_types")
    body.signature.output_arg.add(name="elements", type=_VARIANT)
    body.ret["elements"] = "elements:handle:0"


def _flat_map(graph: Graph, inputs: list[str], body: Any, specs: Sequence[Any]) -> None:
    # Not `unbatch`, which ends the process on elements without any bytes (decision 14).
    node = graph.add(POINT, "FlatMapDataset", inputs)
    node.attr["f"].func.name = body.signature.name
    node.attr["Targuments"].list.SetInParent()
    node.attr["Targuments"].list.type.extend([_INT64] * (len(inputs) - 1))
    _declare(node, specs)
