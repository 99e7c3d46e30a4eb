"""What opens a job: streams registered, a request made, the reply understood, a ledger begun."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import NotFoundError, UsageError
from ..proto import control_pb2
from ..proto.spec import ComponentSpec
from .epoch import StreamInfo
from .ledger import Ledger
from .opened import OpenedJob
from .options import DEFAULT_LANES, default_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..proto.position import Position
    from .control import Control
    from .ledger import Life
    from .options import JobOptions


def open_request(
    options: JobOptions,
    streams: Sequence[StreamInfo],
    client: str,
    origin: Position | None,
    *,
    committed: bool,
) -> control_pb2.OpenJobRequest:
    """What a client asks the dispatcher for.

    Args:
        options: how the job is consumed.
        streams: what is read.
        client: the client's incarnation.
        origin: where it goes on, if it knows that.
        committed: it goes on where the job was committed last.
    """
    lanes = options.lanes or (1 if options.ordered else DEFAULT_LANES)
    block = options.block or _default_block(streams, lanes)
    request = control_pb2.OpenJobRequest(
        job_name=options.job_name or "",
        client=client,
        streams=[stream.fingerprint for stream in streams],
        seed=options.seed if origin is None else origin.seed,
        lanes=lanes if origin is None else origin.lanes,
        block=block if origin is None else origin.block,
        ordered=options.ordered,
        attempts_max=options.attempts_max,
        failover_extension=options.failover_extension,
        on_bad_element=options.on_bad_element,
        max_bad=options.max_bad if options.on_bad_element != "fail" else 0,
        cache=options.cache or ("on" if any(s.cache_key for s in streams) else "off"),
        rewind=[stream.epoch for stream in origin.streams] if origin is not None else [],
    )
    consumer = options.consumer
    if consumer is not None:
        of = consumer if origin is None or committed else origin.consumer
        request.consumer.CopyFrom(
            control_pb2.Consumer(
                rank=consumer.rank,
                world=consumer.world,
                restore=committed,
                generation=0 if of is None else of.generation,
            )
        )
    return request


def opened_job(
    reply: control_pb2.OpenJobReply,
    options: JobOptions,
    client: str,
    streams: tuple[StreamInfo, ...],
) -> OpenedJob:
    """The job that the dispatcher has opened."""
    consumer = options.consumer
    if consumer is not None:
        consumer = dataclasses.replace(consumer, generation=reply.generation)
    return OpenedJob(
        job=reply.job,
        client=client,
        term=reply.term,
        seed=reply.seed,
        lanes=reply.lanes,
        block=reply.block,
        ordered=options.ordered,
        deterministic=options.deterministic,
        next_epoch=tuple(reply.next_epoch),
        streams=streams,
        consumer=consumer,
    )


def ledger_of(options: JobOptions, job: OpenedJob, life: Life) -> Ledger | None:
    """The ledger that the user wants, if any."""
    if options.ledger is None:
        return None
    return Ledger(
        options.ledger,
        job=job.job,
        client=job.client,
        seed=job.seed,
        streams=[stream.fingerprint for stream in job.streams],
        life=life,
    )


def _default_block(streams: Iterable[StreamInfo], lanes: int) -> int:
    """Elements of a block where the user said nothing: what suits all streams."""
    return min(
        default_block(
            stream.components, mixed=lanes == 1 or stream.permuted, blended=stream.blended
        )
        for stream in streams
    )


def resolve(control: Control, streams: Sequence[StreamInfo] | str) -> tuple[StreamInfo, ...]:
    """Registers the streams, or looks the one up that is given by its fingerprint."""
    if isinstance(streams, str):
        info = control.describe(streams)
        if info is None:
            raise NotFoundError(
                f"no dataset {streams!r} is registered at the dispatcher at {control.address}"
            )
        return (
            StreamInfo(
                info.fingerprint,
                info.num_splits,
                tuple(info.weights) or None,
                info.replayable,
                _components(info.components),
                cache_key=info.cache_key,
            ),
        )
    for stream in streams:
        if stream.graph is None:
            raise UsageError(f"stream {stream.fingerprint} has no graph to register")
        control.put(
            control_pb2.DatasetInfo(
                fingerprint=stream.fingerprint,
                num_splits=stream.num_splits,
                weights=stream.weights or (),
                replayable=stream.replayable,
                components=msgpack.packb([spec.to_wire() for spec in stream.components]),
                graph_bytes=len(stream.graph),
                cache_key=stream.cache_key,
            ),
            stream.graph,
        )
    return tuple(streams)


def _components(packed: bytes) -> tuple[ComponentSpec, ...]:
    values: Any = msgpack.unpackb(packed)
    return tuple(ComponentSpec.from_wire(value) for value in values)
