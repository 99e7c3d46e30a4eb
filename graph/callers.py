"""Ops that run functions and can hand one more argument on to them."""

from __future__ import annotations

from typing import Any

from .body import INT64, data_inputs, set_data_inputs
from .ops import canonical

#: Ops that call functions.
PLAIN = ("PartitionedCall", "StatefulPartitionedCall")
LOOPS = ("While", "StatelessWhile")
CALLS = frozenset(("If", "StatelessIf", "Case", "StatelessCase", *PLAIN, *LOOPS))
#: Ops that run a function for each element of their first input, and those that only ask it
#: whether to hand the element on.
EACH = frozenset(
    (
        *("MapDataset", "ParallelMapDataset", "ParallelMapDatasetV2", "MapAndBatchDataset"),
        *("FlatMapDataset", "InterleaveDataset", "ParallelInterleaveDataset", "ScanDataset"),
        *("ParallelInterleaveDatasetV2", "ParallelInterleaveDatasetV3", "ReduceDataset"),
        *("ParallelInterleaveDatasetV4", "LegacyParallelInterleaveDatasetV2"),
    )
)
TESTS = frozenset(("FilterDataset", "ParallelFilterDataset", "TakeWhileDataset"))


def add_captured(node: Any, tensor: str) -> bool:
    """Hands an int64 tensor on to the functions that a node runs, as their last argument.

    What a loop carries, its body has to return as well.

    Returns:
        False, and nothing was done: not by this op.
    """
    op = canonical(node.op)
    if op in EACH or op in TESTS:
        inputs = data_inputs(node)
        states = len(node.attr["Tstate"].list.type) if "Tstate" in node.attr else 0
        captured = node.attr["Targuments"].list.type
        inputs.insert(1 + states + len(captured), tensor)
        captured.append(INT64)
        set_data_inputs(node, inputs)
        return True
    if op in CALLS:
        set_data_inputs(node, [*data_inputs(node), tensor])
        node.attr["T" if op in LOOPS else "Tin"].list.type.append(INT64)
        if op in LOOPS and node.attr["output_shapes"].list.shape:
            node.attr["output_shapes"].list.shape.add().unknown_rank = True
        return True
    return False
