"""What every tf.data op does to splitting: the table that the analysis is driven by.

An op is a *source* (it makes elements), *local* (running it on each split and joining the results
gives what running it once on everything would), *global* (its output depends on elements of other
splits, so it runs at the client) or *refused* (it cannot run in another process). The names are
those of the GraphDef, so every public method's V2, V3, parallel and legacy forms are here.

An op that this table does not know is global if it has an input and an unsplittable source if it
has none: always correct, at worst slow.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """How an op relates to splits."""

    SOURCE = "source"
    LOCAL = "local"
    GLOBAL = "global"
    REFUSED = "not shippable"


@dataclass(frozen=True)
class OpClass:
    """What the analysis needs to know of one op."""

    kind: Kind
    #: Output element i is made from input element i alone.
    one_to_one: bool = False
    #: Changes the order of elements at random; its seeds are ours to choose.
    shuffle: bool = False
    #: Takes several input elements at a time from inner datasets, if its cycle_length says so.
    interleave: bool = False
    #: The result, as a multiset, depends on the order of the input.
    order_sensitive: bool = False
    #: Groups this many (constant input) consecutive elements into one.
    group_input: str | None = None
    #: Left out of the worker's graph: what it does there is penstock's business.
    dropped: bool = False
    #: A source whose elements can be divided by narrowing constant inputs.
    divisible: bool = False


_SOURCE = OpClass(Kind.SOURCE)
_DIVISIBLE = OpClass(Kind.SOURCE, divisible=True)
_EACH = OpClass(Kind.LOCAL, one_to_one=True)
_DROPPED = OpClass(Kind.LOCAL, one_to_one=True, dropped=True)
_LOCAL = OpClass(Kind.LOCAL)
_SHUFFLE = OpClass(Kind.LOCAL, shuffle=True)
_INTERLEAVE = OpClass(Kind.LOCAL, interleave=True)
_GLOBAL = OpClass(Kind.GLOBAL)
_ORDERED = OpClass(Kind.GLOBAL, order_sensitive=True)
_BATCH = OpClass(Kind.GLOBAL, group_input="batch_size")
_REFUSED = OpClass(Kind.REFUSED)

_GROUPS: tuple[tuple[OpClass, str], ...] = (
    (
        _DIVISIBLE,
        "RangeDataset TensorSliceDataset TextLineDataset TFRecordDataset TFRecordDatasetV2 "
        "FixedLengthRecordDataset FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2",
    ),
    (
        _SOURCE,
        "TensorDataset SparseTensorSliceDataset RandomDataset RandomDatasetV2 ListDataset "
        "LMDBDataset SqlDataset MatchingFilesDataset LoadDataset "
        "SnapshotChunkDataset ListSnapshotChunksDataset SnapshotDatasetReader",
    ),
    (
        _EACH,
        "MapDataset ParallelMapDataset ParallelMapDatasetV2 PrefetchDataset ParseExampleDataset "
        "ParseExampleDatasetV2 SleepDataset",
    ),
    (
        _DROPPED,
        "OptionsDataset CacheDataset CacheDatasetV2 SnapshotDataset SnapshotDatasetV2 "
        "ModelDataset OptimizeDataset OptimizeDatasetV2 FinalizeDataset RewriteDataset "
        "ThreadPoolDataset PrivateThreadPoolDataset MaxIntraOpParallelismDataset "
        "LatencyStatsDataset BytesProducedStatsDataset SetStatsAggregatorDataset "
        "AssertNextDataset AssertPrevDataset AssertCardinalityDataset",
    ),
    (
        _LOCAL,
        "FilterDataset ParallelFilterDataset FilterByLastComponentDataset FlatMapDataset "
        "UnbatchDataset IgnoreErrorsDataset",
    ),
    (_SHUFFLE, "ShuffleDataset ShuffleDatasetV2 ShuffleDatasetV3"),
    (
        _INTERLEAVE,
        "InterleaveDataset ParallelInterleaveDataset ParallelInterleaveDatasetV2 "
        "ParallelInterleaveDatasetV3 ParallelInterleaveDatasetV4 "
        "LegacyParallelInterleaveDatasetV2",
    ),
    (
        _BATCH,
        "BatchDataset BatchDatasetV2 ParallelBatchDataset PaddedBatchDataset "
        "PaddedBatchDatasetV2 MapAndBatchDataset DenseToSparseBatchDataset",
    ),
    (OpClass(Kind.GLOBAL, order_sensitive=True, group_input="size"), "WindowDataset"),
    (
        _GLOBAL,
        "RepeatDataset UniqueDataset GroupByWindowDataset GroupByReducerDataset RebatchDataset "
        "RebatchDatasetV2 ShuffleAndRepeatDataset ShuffleAndRepeatDatasetV2 GlobalShuffleDataset "
        "SamplingDataset AutoShardDataset SaveDatasetV2 ChooseFastestDataset "
        "ChooseFastestBranchDataset",
    ),
    (
        _ORDERED,
        "TakeDataset SkipDataset ShardDataset ScanDataset TakeWhileDataset ZipDataset "
        "ConcatenateDataset DirectedInterleaveDataset SlidingWindowDataset IndexFlatMapDataset "
        "WeightedFlatMapDataset",
    ),
    (
        _REFUSED,
        "GeneratorDataset DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 "
        "DataServiceDatasetV4 NonSerializableDataset UnwrapDatasetVariant DatasetFromGraph",
    ),
)

#: GraphDef op name -> its class.
TABLE: dict[str, OpClass] = {op: cls for cls, names in _GROUPS for op in names.split()}

#: Dataset ops that read files named by their first input, so that one file is one split.
FILE_READERS = frozenset(
    [
        "TextLineDataset",
        "TFRecordDataset",
        "TFRecordDatasetV2",
        "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2",
        "CSVDataset",
        "CSVDatasetV2",
        "LMDBDataset",
    ]
)

#: Ops inside user functions that only run in the process that made them.
PYTHON_OPS = frozenset(["PyFunc", "PyFuncStateless", "EagerPyFunc"])

#: Stateful ops whose result does not depend on that state (or only on constant content).
BENIGN_STATEFUL = frozenset(
    [
        "Assert",
        "Print",
        "PrintV2",
        "HashTableV2",
        "HashTable",
        "AnonymousHashTable",
        "MutableHashTableV2",
        "AnonymousMutableHashTable",
        "LookupTableFind",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "LookupTableImportV2",
        "LookupTableExportV2",
        "InitializeTableV2",
        "InitializeTableFromTextFileV2",
        "AnonymousMutableDenseHashTable",
        "MutableDenseHashTableV2",
        "VarHandleOp",
        "ReadVariableOp",
        "VarIsInitializedOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "StatefulPartitionedCall",
        "PartitionedCall",
        "If",
        "StatelessIf",
        "While",
        "StatelessWhile",
        "Case",
        "DummySeedGenerator",
        "DummyMemoryCache",
        "DummyIterationCounter",
        "OneShotIterator",
        "AnonymousSeedGenerator",
        "AnonymousMemoryCache",
        "ReduceDataset",
        "DatasetToSingleElement",
        "TensorListReserve",
        "EmptyTensorList",
        "DecodeImage",
    ]
)


def canonical(op: str) -> str:
    """The op's name without the prefix that the first release of many of them carried."""
    return op.removeprefix("Experimental")


def is_dataset_op(op: str) -> bool:
    """Whether a node of this op stands for a dataset."""
    return canonical(op) in TABLE or "Dataset" in op


def classify(op: str, *, has_input: bool = True) -> OpClass:
    """The class of an op; the safe one if it is unknown."""
    found = TABLE.get(canonical(op))
    if found is not None:
        return found
    return _ORDERED if has_input else _SOURCE
