"""The tf.data side: `distribute`, for `ds.apply(...)`, and the datasets that the service feeds.

A stream becomes a dataset by `from_generator`, which is handed whole runs of elements: crossing
from Python to TensorFlow costs about 0.1 ms each time, so it is done per run, and C++ takes the
runs apart (`unbatch`, or directly the user's batches). Large elements are handed over one by one,
since `unbatch` would copy each of them. The plan then re-applies what it left for
the client. TensorFlow is imported when a function here is called.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import secrets
import weakref
from typing import TYPE_CHECKING, Any

from ..errors import RefusedError, SpecMismatchError, UsageError
from ..proto.spec import numpy_dtype
from .epoch import StreamInfo
from .reader import Reader
from .runs import rows_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import tensorflow as tf

    from ..graph.suffix import FinalBatch
    from ..proto.position import Position
    from ..proto.spec import ComponentSpec
    from ..security.settings import Security
    from ..timing import Timing
    from .options import JobOptions
    from .runs import Arrays

logger = logging.getLogger(__name__)

#: TensorFlow takes some 200 µs for what a generator hands over: joining up to here costs less.
_LARGE_BYTES = 256 << 10
#: Elements of so many bytes are handed over one by one: `unbatch` would copy each.
_SINGLE_BYTES = 1 << 20


class NotADatasetError(UsageError, TypeError):
    """Something else than a `tf.data.Dataset` was to be distributed."""


def distribute(
    service: Any = None,
    *,
    job_name: str | None = None,
    seed: int | None = None,
    lanes: int | None = None,
    block: int | None = None,
    deterministic: bool = True,
    exact: bool = True,
    strict: bool = False,
    ledger: str | os.PathLike[str] | None = None,
    attempts_max: int = 3,
    memory_limit: int = 256 << 20,
    cache: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    failover_extension: str | None = None,
    on_bad_element: str = "fail",
    max_bad: int = 10,
    element_spec: Any = None,
    restore: Position | str | None = None,
    resumable: bool = False,
    consumer: tuple[int, ...] | None = None,
    timing: Timing | None = None,
    security: Security | None = None,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Runs a pipeline on the service: `dataset = dataset.apply(distribute("host:5050"))`.

    The result has the original's element spec and cardinality; each iteration of it is the job's
    next epoch. Its attribute `penstock` is the `Reader` behind it. What the service cannot
    run, the end of the pipeline, runs here.

    Args:
        service: `host:port`, several separated by commas, or a `LocalCluster`; None starts one.
        job_name: names the job, so that it outlives this process.
        seed: decides the order and the randomness of every epoch; None draws one.
        lanes: number of lanes; by default 16, or 1 where the order must be the source's.
        block: elements of a lane before the next one's turn; by default about 256 KiB worth, 4 MiB
            where splits are mixed, 1 where the pipeline interleaves or shuffles what is in files.
        deterministic: False takes elements in whatever order they arrive.
        exact: False lets splits of files end in a short batch, for more work on the workers.
        strict: what a replay cannot reproduce is an error, not a warning.
        ledger: directory that gets a record of every element, for `penstock audit`.
        attempts_max: failed productions of one split before the job fails.
        memory_limit: bytes that may be buffered, but for one chunk of each lane.
        cache: `off`, `put`, `on` or `auto`; by default `on` if there is a `.cache()`, else `off`.
        cache_dir: of the workers of a cluster that is started here.
        failover_extension: `module::Class`, a `FailoverExtension` that the dispatcher asks what to
            do about the job's failures; it must be importable there and here.
        on_bad_element: what is done when the same element raises in all attempts: `fail` the job,
            `skip` it, or `quarantine` it: skip it and keep its error for `penstock quarantine`. The
            other two declare no cardinality.
        max_bad: elements that an epoch may lose so before the job fails.
        element_spec: the spec that the dataset is expected to have, if given.
        restore: where to go on: a position, its text, or "committed"; see `Reader`.
        resumable: the reader may be restored later: no cardinality is declared.
        consumer: (rank, world) of this process, where several share the job's lanes; see `Reader`.
        timing, security: intervals and deadlines; certificates and token (see `Security`).
    """
    arguments = locals()  # exactly the arguments above; `Reader` takes the same
    return functools.partial(_distributed, arguments)


def _distributed(arguments: dict[str, Any], dataset: tf.data.Dataset) -> tf.data.Dataset:
    reader = Reader(dataset, **arguments)
    for note in reader.plan.notes:
        logger.info("plan: %s", note)
    return reader.dataset()


def planned(
    dataset: Any, options: JobOptions, *, exact: bool, strict: bool, element_spec: Any
) -> tuple[Any, tuple[StreamInfo, ...], JobOptions]:
    """A dataset's plan, its streams, and the options completed by what the plan says."""
    import tensorflow as tf

    from ..graph import analyse

    if not isinstance(dataset, tf.data.Dataset):
        raise NotADatasetError(
            f"a tf.data.Dataset can be distributed, not {type(dataset).__name__} {dataset!r:.80}"
        )
    if element_spec is not None and element_spec != dataset.element_spec:
        raise SpecMismatchError(
            f"element_spec is expected to be {element_spec}, but the dataset's is "
            f"{dataset.element_spec}"
        )
    plan = analyse(
        dataset,
        lanes=options.lanes,
        exact=exact,
        strict=strict,
        cache=options.cache not in (None, "off"),
    )
    if options.on_bad_element != "fail":
        plan = dataclasses.replace(plan, cardinality=tf.data.UNKNOWN_CARDINALITY)
    for note in plan.notes:
        if note.kind == "replay":
            logger.warning("%s", note)
    shuffled = all(stream.shuffled for stream in plan.streams)
    seed = options.seed
    if seed is None and options.job_name is None:
        # The part of the pipeline that runs here shall follow the same seed.
        seed = secrets.randbits(64)
    options = dataclasses.replace(
        options,
        seed=seed,
        lanes=1 if plan.ordered else options.lanes,
        ordered=plan.ordered and not shuffled,
    )
    streams = tuple(
        StreamInfo(
            fingerprint=stream.fingerprint,
            num_splits=stream.num_splits,
            weights=stream.weights,
            replayable=stream.replayable,
            components=tuple(stream.components),
            graph=stream.blob,
            cache_key=stream.cache.key if stream.cache is not None else "",
            permuted=stream.permuted,
            blended=stream.blended,
        )
        for stream in plan.streams
    )
    return plan, streams, options


def dataset_of(
    reader: Reader, *, seed: int | None, epoch: int, resumable: bool = False
) -> tf.data.Dataset:
    """The dataset that a reader feeds: the user's, or flat tuples for one read by fingerprint.

    Its first iteration after the reader was restored is the rest of an epoch, if it is `resumable`.
    """
    plan = reader.plan
    if plan is None:
        result = _direct(reader, _stream_dataset(reader, 0, chunked=False))
    else:
        chunked = plan.rebatch
        streams = [_stream_dataset(reader, i, chunked=chunked) for i in range(len(plan.streams))]
        result = plan.apply_suffix(
            streams, chunked=chunked, seed=seed, epoch=epoch, assert_cardinality=not resumable
        )
        if resumable and reader.replays:
            result = _dropping(reader, result)
        elif len(streams) == 1 and not plan.client_steps:
            result = _direct(reader, result)
        elif plan.final_batch is not None:
            result = _batched(reader, result, plan.stream_spec(0), plan.final_batch)
        if resumable:
            _declare(result, reader.cardinality)
    # What keeps the reader alive: datasets made of this one refer to it, as do their iterators.
    result.penstock = reader
    return result


def _direct(reader: Reader, plain: tf.data.Dataset) -> tf.data.Dataset:
    """A dataset of the only stream's elements, iterated without TensorFlow where that can be."""
    from ..graph import is_cut
    from .direct import DistributedDataset, is_direct
    from .varying import is_varying, varying_dataset

    if is_cut(reader.components(0)) and is_varying(plain.element_spec):
        return varying_dataset(plain, functools.partial(reader.columns, 0))
    if not is_direct(plain.element_spec):
        return plain
    return DistributedDataset(
        plain, lambda: _stream_dataset(reader, 0, chunked=True), functools.partial(reader.runs, 0)
    )


def _batched(
    reader: Reader, plain: tf.data.Dataset, spec: Any, batch: FinalBatch
) -> tf.data.Dataset:
    """A dataset of batches of the only stream's elements, as `_direct` otherwise."""
    from .batches import batched
    from .direct import is_direct

    if not is_direct(spec):
        return plain
    runs = functools.partial(reader.runs, 0)
    return batched(plain, runs, spec, batch.size, drop_remainder=batch.drop_remainder)


def _declare(dataset: tf.data.Dataset, cardinality: int) -> None:
    """Tells Python code (Keras) how many elements an epoch has, without TensorFlow checking it."""
    import tensorflow as tf

    if cardinality >= 0:
        dataset.cardinality = lambda: tf.constant(cardinality, tf.int64)


def _dropping(reader: Reader, whole: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without what was consumed before, where its own end has to drop that."""
    import tensorflow as tf

    alive = weakref.ref(reader)

    def drop() -> Iterator[int]:
        kept = alive()
        yield 0 if kept is None else kept.take_drop()

    once = tf.data.Dataset.from_generator(drop, output_signature=tf.TensorSpec((), tf.int64))
    result = once.flat_map(whole.skip)
    result._penstock_keep = (whole, getattr(whole, "_penstock_keep", None))
    return result


def _stream_dataset(reader: Reader, stream: int, *, chunked: bool) -> tf.data.Dataset:
    import tensorflow as tf

    from ..graph import cut, is_cut, singles, unbatched

    components = reader.components(stream)
    flat = tuple(tf.TensorSpec(spec.shape, tf.dtypes.as_dtype(spec.dtype)) for spec in components)
    # TensorFlow never lets go of the generator function (script_ops ties it to the outermost
    # graph), so it must not be what keeps the reader, with its threads and sockets, alive.
    alive = weakref.ref(reader)

    def living() -> Reader:
        kept = alive()
        if kept is None:
            raise RefusedError("the dataset that `distribute` returned is gone: keep it to read it")
        return kept

    if is_cut(components):
        plan = reader.plan
        spec = flat if plan is None else plan.stream_spec(stream)
        return cut(lambda: living().columns(stream, idle=True), spec)

    single = not chunked and _is_large(components)

    def runs() -> Iterator[Arrays]:
        # Empty runs let tf.data notice that the iterator was dropped while nothing comes.
        found = living().runs(stream, idle=not chunked, large_bytes=_LARGE_BYTES)
        return rows_of(found) if single else found

    signature = tuple(
        tf.TensorSpec(None if spec.shape.rank is None else (None, *spec.shape), spec.dtype)
        for spec in flat
    )
    dataset = tf.data.Dataset.from_generator(runs, output_signature=signature).prefetch(2)
    if chunked:
        return dataset
    return singles(dataset) if single else unbatched(dataset)


def _is_large(components: Sequence[ComponentSpec]) -> bool:
    """Whether to copy an element costs more than to hand it over by itself."""
    shapes = [(numpy_dtype(spec.dtype), spec.static_shape) for spec in components]
    if any(shape is None or dtype.hasobject for dtype, shape in shapes):
        return False
    nbytes = sum(dtype.itemsize * math.prod(shape or ()) for dtype, shape in shapes)
    return nbytes >= _SINGLE_BYTES
