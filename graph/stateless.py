"""Random ops in functions as stateless ones: which there are, and what takes the place of each.

A random op with state draws the next numbers of a generator that it owns, so what it draws depends
on all that drew before. Its stateless kin draws what a seed of two int64 says, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .body import INT32, INT64, data_inputs, set_data_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .body import Body

    Change = Callable[[Body, Any, str], None]


def is_random(node: Any) -> bool:
    """Whether a node is one of the random ops that can be made stateless."""
    return node.op in _KIN


def user_seeds(node: Any) -> tuple[int, int] | None:
    """The seeds that the user gave a random op, or TensorFlow for tf.random.set_seed, if any."""
    found = (node.attr["seed"].i, node.attr["seed2"].i)
    return found if any(found) else None


def make_stateless(body: Body, node: Any, seed: str) -> None:
    """Turns a random op into its stateless kin, in place: its name and outputs stay.

    Args:
        body: the function that it is in.
        node: one that `is_random`.
        seed: the tensor that is to be its seed, a vector of two int64.
    """
    change = _KIN[node.op]
    for attribute in ("seed", "seed2"):
        node.attr.pop(attribute, None)
    change(body, node, seed)


def _kin(op: str, seed_at: int) -> Change:
    """The change to an op that has the same inputs, and a seed among them."""

    def change(body: Body, node: Any, seed: str) -> None:
        inputs = data_inputs(node)
        set_data_inputs(node, [*inputs[:seed_at], seed, *inputs[seed_at:]])
        _become(node, op, {"dtype": "Tout"} if "Tout" in node.attr else {})

    return change


def _wider_kin(op: str, parameter: str, types: dict[str, str]) -> Change:
    """The change to an op that is told the whole shape of its result, not that of one sample.

    Args:
        op: its name.
        parameter: the old op's attribute that is the dtype of its parameter.
        types: the old op's attributes by the new one's.
    """

    def change(body: Body, node: Any, seed: str) -> None:
        shape, value = data_inputs(node)
        dtype = node.attr["S"].type
        held = {"T": node.attr[parameter].type, "out_type": dtype}
        inner = body.output(body.add(f"{node.name}_inner", "Shape", [value], **held))
        whole = _joined(body, f"{node.name}_whole", [shape, inner], dtype)
        set_data_inputs(node, [whole, seed, value])
        _become(node, op, types)

    return change


def _become(node: Any, op: str, types: dict[str, str]) -> None:
    """Another op, whose attributes are those of the old one under new names."""
    values = {new: node.attr[old].type for new, old in types.items()}
    for old in types.values():
        node.attr.pop(old, None)
    node.op = op
    for new, value in values.items():
        node.attr[new].type = value
    node.attr["Tseed"].type = INT64


def _joined(body: Body, name: str, vectors: list[str], dtype: int) -> str:
    axis = body.const(f"{name}_axis", 0, tf.int32)
    node = body.add(name, "ConcatV2", [*vectors, axis], T=dtype, Tidx=INT32)
    node.attr["N"].i = len(vectors)
    return body.output(node)


def _sample_box(body: Body, node: Any, seed: str) -> None:
    inputs = data_inputs(node)
    if node.op == "SampleDistortedBoundingBox":
        covered = node.attr["min_object_covered"].f if "min_object_covered" in node.attr else 0.1
        node.attr.pop("min_object_covered", None)
        inputs.append(body.const(f"{node.name}_covered", covered, tf.float32))
    set_data_inputs(node, [*inputs, seed])
    _become(node, "StatelessSampleDistortedBoundingBox", {})


def _shuffle(body: Body, node: Any, seed: str) -> None:
    """Rows in the order of numbers drawn for them. A scalar is a row, too."""
    (value,) = data_inputs(node)
    name, dtype = node.name, node.attr["T"].type
    at, one = body.const(f"{name}_at", [0], tf.int32), body.const(f"{name}_one", [1], tf.int32)
    scalar = body.const(f"{name}_scalar", tf.zeros([0], tf.int32).numpy(), tf.int32)
    axis = body.const(f"{name}_axis", 0, tf.int32)

    def add(part: str, op: str, inputs: list[str], **types: int) -> str:
        return body.output(body.add(f"{name}_{part}", op, inputs, **types))

    shape = add("shape", "Shape", [value], T=dtype, out_type=INT32)
    longer = _joined(body, f"{name}_longer", [shape, one], INT32)
    rows = add("rows", "Reshape", [value, longer], T=dtype, Tshape=INT32)
    count = add("count", "Slice", [longer, at, one], T=INT32, Index=INT32)
    op = "StatelessRandomUniformFullInt"
    drawn = add("drawn", op, [count, seed], dtype=INT64, T=INT32, Tseed=INT64)
    number = add("number", "Reshape", [count, scalar], T=INT32, Tshape=INT32)
    types = {"T": INT64, "Tk": INT32, "index_type": INT32}
    order = body.add(f"{name}_order", "TopKV2", [drawn, number], **types)
    types = {"Tparams": dtype, "Tindices": INT32, "Taxis": INT32}
    mixed = add("mixed", "GatherV2", [rows, f"{order.name}:indices:0", axis], **types)
    node.op = "Reshape"
    set_data_inputs(node, [mixed, shape])
    node.attr["Tshape"].type = INT32


_KIN: dict[str, Change] = {
    "RandomUniform": _kin("StatelessRandomUniform", 1),
    "RandomUniformInt": _kin("StatelessRandomUniformInt", 1),
    "RandomStandardNormal": _kin("StatelessRandomNormal", 1),
    "TruncatedNormal": _kin("StatelessTruncatedNormal", 1),
    "Multinomial": _kin("StatelessMultinomial", 2),
    "RandomGamma": _wider_kin("StatelessRandomGammaV2", "T", {"T": "S", "dtype": "T"}),
    "RandomPoissonV2": _wider_kin("StatelessRandomPoisson", "R", {"T": "S", "Rtype": "R"}),
    "SampleDistortedBoundingBox": _sample_box,
    "SampleDistortedBoundingBoxV2": _sample_box,
    "RandomShuffle": _shuffle,
}
