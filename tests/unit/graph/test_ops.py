"""The table of ops, op by op, against TensorFlow's registry and against real pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

from penstock.graph import ops
from penstock.graph.ir import capture_graph
from penstock.graph.ops import Kind

Dataset = tf.data.Dataset


def registered() -> dict[str, Any]:
    buffer = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    return {op.name: op for op in op_def_pb2.OpList.FromString(buffer).op}


#: Dataset ops that no pipeline holds: they take no part in iteration.
NOT_PIPELINE = {"WrapDatasetVariant", "SnapshotNestedDatasetReader"}


def test_every_dataset_op_of_tensorflow_is_in_the_table() -> None:
    missing = [
        name
        for name, op in registered().items()
        if name.removeprefix("Experimental").rstrip("V234").endswith("Dataset")
        and [arg.type for arg in op.output_arg] == [21]
        and ops.canonical(name) not in ops.TABLE
    ]
    assert sorted(missing) == []


def test_every_op_in_the_table_exists() -> None:
    known = {ops.canonical(name) for name in registered()}
    assert sorted(set(ops.TABLE) - known) == []
    assert sorted(ops.FILE_READERS - known) == []
    assert sorted(ops.PYTHON_OPS - known) == []


def test_sources_take_no_dataset_and_others_do() -> None:
    for name, op in registered().items():
        cls = ops.TABLE.get(ops.canonical(name))
        if cls is None or cls.kind is Kind.REFUSED:
            continue
        takes = any("dataset" in arg.name for arg in op.input_arg)
        assert takes == (cls.kind is not Kind.SOURCE), name


def test_grouping_ops_have_the_named_input() -> None:
    known = registered()
    for name, cls in ops.TABLE.items():
        if cls.group_input is not None:
            assert cls.group_input in [arg.name for arg in known[name].input_arg], name


def test_unknown_ops_are_treated_safely() -> None:
    assert ops.classify("NewFangledDataset").kind is Kind.GLOBAL
    assert ops.classify("NewFangledDataset", has_input=False).kind is Kind.SOURCE
    assert not ops.classify("NewFangledDataset", has_input=False).divisible


BASE = Dataset.range(6)
PIPELINES: list[tuple[Any, str, Kind]] = [
    (BASE, "Range", Kind.SOURCE),
    (Dataset.from_tensor_slices([1]), "TensorSlice", Kind.SOURCE),
    (Dataset.from_tensors([1]), "Tensor", Kind.SOURCE),
    (Dataset.random(seed=1), "Random", Kind.SOURCE),
    (BASE.map(lambda x: x), "Map", Kind.LOCAL),
    (BASE.map(lambda x: x, num_parallel_calls=2), "ParallelMap", Kind.LOCAL),
    (BASE.filter(lambda x: x > 1), "Filter", Kind.LOCAL),
    (BASE.flat_map(lambda x: BASE), "FlatMap", Kind.LOCAL),
    (BASE.interleave(lambda x: BASE), "Interleave", Kind.LOCAL),
    (BASE.interleave(lambda x: BASE, num_parallel_calls=2), "ParallelInterleave", Kind.LOCAL),
    (BASE.batch(2).unbatch(), "Unbatch", Kind.LOCAL),
    (BASE.shuffle(3), "Shuffle", Kind.LOCAL),
    (BASE.prefetch(3), "Prefetch", Kind.LOCAL),
    (BASE.cache(), "Cache", Kind.LOCAL),
    (BASE.with_options(tf.data.Options()), "Options", Kind.LOCAL),
    (BASE.ignore_errors(), "IgnoreErrors", Kind.LOCAL),
    (BASE.batch(2), "Batch", Kind.GLOBAL),
    (BASE.batch(2, num_parallel_calls=2), "ParallelBatch", Kind.GLOBAL),
    (BASE.padded_batch(2), "PaddedBatch", Kind.GLOBAL),
    (BASE.batch(2).rebatch(3), "Rebatch", Kind.GLOBAL),
    (BASE.repeat(2), "Repeat", Kind.GLOBAL),
    (BASE.take(2), "Take", Kind.GLOBAL),
    (BASE.skip(2), "Skip", Kind.GLOBAL),
    (BASE.shard(2, 0), "Shard", Kind.GLOBAL),
    (BASE.enumerate(), "Zip", Kind.GLOBAL),
    (Dataset.zip((BASE, BASE)), "Zip", Kind.GLOBAL),
    (BASE.scan(0, lambda s, x: (s, x)), "Scan", Kind.GLOBAL),
    (BASE.take_while(lambda x: x < 1), "TakeWhile", Kind.GLOBAL),
    (BASE.unique(), "Unique", Kind.GLOBAL),
    (BASE.window(2), "Window", Kind.GLOBAL),
    (BASE.group_by_window(lambda x: x, lambda k, w: w, 2), "GroupByWindow", Kind.GLOBAL),
    (BASE.concatenate(BASE), "Concatenate", Kind.GLOBAL),
    (Dataset.sample_from_datasets([BASE, BASE]), "DirectedInterleave", Kind.GLOBAL),
    (Dataset.choose_from_datasets([BASE, BASE], BASE), "DirectedInterleave", Kind.GLOBAL),
]


@pytest.mark.parametrize(("ds", "op", "kind"), PIPELINES)
def test_what_the_public_methods_make(ds: Any, op: str, kind: Kind) -> None:
    graph = capture_graph(ds)
    assert graph.op(graph.root).rstrip("V234").removesuffix("Dataset") == op
    assert graph.op_class(graph.root).kind is kind
