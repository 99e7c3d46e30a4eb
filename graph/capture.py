"""The only module that touches TensorFlow's private API: datasets to graphs and back.

Everything here is a thin, typed wrapper, so that a TensorFlow release that moves one of these
names is a change to this file alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.core.framework import dataset_metadata_pb2, graph_pb2, node_def_pb2
from tensorflow.core.framework import dataset_options_pb2 as options_pb2
from tensorflow.core.protobuf import struct_pb2
from tensorflow.python.data.ops import dataset_ops
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops import script_ops
from tensorflow.python.saved_model import nested_structure_coder

__all__ = [
    "dataset_from_graph",
    "dataset_name",
    "decode_spec",
    "encode_spec",
    "graph_of",
    "graph_pb2",
    "has_automatic_cycle",
    "import_function",
    "inputs_of",
    "node_def_pb2",
    "of_components",
    "op_def",
    "options_pb2",
    "python_function_name",
    "register_python",
    "variant_dataset",
    "variant_of",
]

#: DatasetToGraphV2's external_state_policy: take the state's present value, silently.
_IGNORE_STATE = 1


def variant_of(ds: Any) -> Any:
    """The variant tensor that stands for a dataset in graphs."""
    return ds._variant_tensor


def inputs_of(ds: Any) -> list[Any]:
    """The datasets that this one was made from (empty where TensorFlow does not tell)."""
    inputs = list(ds._inputs())
    # Some objects only dress another dataset's variant in a new structure; they are no node.
    while len(inputs) == 1 and variant_of(inputs[0]) is variant_of(ds):
        inputs = list(inputs[0]._inputs())
    return inputs


def graph_of(ds: Any) -> Any:
    """The dataset as a GraphDef, contents of captured variables and tables included."""
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=variant_of(ds),
        external_state_policy=_IGNORE_STATE,
        strip_device_assignment=True,
    )
    return graph_pb2.GraphDef.FromString(graph.numpy())


def variant_dataset(variant: Any, spec: Any) -> Any:
    """A dataset object around a variant tensor."""
    return dataset_ops._VariantDataset(variant, spec)


def of_components(spec: Any, parts: tuple[Any, ...]) -> Any:
    """The value of a composite spec that has these components."""
    return spec._from_components(list(parts))


def dataset_from_graph(graph: bytes, spec: Any) -> Any:
    """A dataset from a serialised GraphDef; its functions and resources live with it."""
    return variant_dataset(tf.raw_ops.DatasetFromGraph(graph_def=graph), spec)


def import_function(graph: Any, placeholders: list[str], result: str) -> Any:
    """A callable that runs `graph` with variant tensors for its placeholders."""

    def body(*variants: Any) -> Any:
        mapping = dict(zip(placeholders, variants, strict=True))
        return tf.graph_util.import_graph_def(
            graph, input_map=mapping, return_elements=[f"{result}:0"], name=""
        )[0]

    signature = [tf.TensorSpec([], tf.variant)] * len(placeholders)
    return tf.compat.v1.wrap_function(body, signature)


def encode_spec(spec: Any) -> bytes:
    """An element spec as bytes."""
    encoded: bytes = nested_structure_coder.encode_structure(spec).SerializeToString()
    return encoded


def decode_spec(data: bytes) -> Any:
    """The inverse of `encode_spec`."""
    return nested_structure_coder.decode_proto(struct_pb2.StructuredValue.FromString(data))


def op_def(name: str) -> Any:
    """The OpDef of an op, or None if this TensorFlow does not know it."""
    return op_def_registry.get(name)


def python_function_name(token: bytes | str) -> str | None:
    """The user's function behind a py_function's registry token, if it is still known."""
    key = token.decode() if isinstance(token, bytes) else token
    function = script_ops._py_funcs._funcs.get(key)
    for attribute in ("_func", "__wrapped__"):  # EagerFunc, then what autograph put around it
        function = getattr(function, attribute, function)
    name = getattr(function, "__qualname__", None)
    return str(name) if name else None


def register_python(function: Any) -> bytes:
    """The token by which the py_function ops of a graph call a function, while it is alive.

    `tf.numpy_function` would do the same, and keep the function alive for ever.
    """
    token: str = script_ops._py_funcs.insert(function)
    return token.encode()


def dataset_name(node: Any) -> str:
    """The name that the user gave to a dataset (or TensorFlow did), from its node."""
    if "metadata" not in node.attr:
        return ""
    metadata = dataset_metadata_pb2.Metadata.FromString(node.attr["metadata"].s)
    name: bytes = metadata.name
    return name.decode(errors="replace")


def has_automatic_cycle(ds: Any) -> bool:
    """Whether an interleave was made with cycle_length=AUTOTUNE.

    Its graph does not tell: TensorFlow writes the number of cores in its place.
    """
    made = getattr(ds, "_impl", ds)  # readers with num_parallel_reads wrap their interleave
    cycle = getattr(made, "_cycle_length", None)
    return cycle is not None and int(cycle) == tf.data.AUTOTUNE
