"""A job that the dispatcher opens for a client: what is asked for, and what came of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..proto import control_pb2
from .options import DEFAULT_LANES, default_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.position import Consumer, Position
    from .epoch import StreamInfo
    from .options import JobOptions


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A job that the dispatcher opened for this client.

    Attributes:
        job: its id; the others are those of the job and of the client, too.
        next_epoch: the epoch that each stream begins with.
        consumer: which of several this client is; None if it has the job for itself.
    """

    job: str
    client: str
    term: int
    seed: int
    lanes: int
    block: int
    ordered: bool
    deterministic: bool
    next_epoch: tuple[int, ...]
    streams: tuple[StreamInfo, ...]
    consumer: Consumer | None = None


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
    block = options.block or min(
        default_block(
            stream.components,
            mixed=lanes == 1 or stream.permuted,
            blended=stream.blended,
        )
        for stream in streams
    )
    request = control_pb2.OpenJobRequest(
        job_name=options.job_name or "",
        client=client,
        streams=[stream.fingerprint for stream in streams],
        seed=options.seed if origin is None else origin.seed,
        lanes=lanes if origin is None else origin.lanes,
        block=block if origin is None else origin.block,
        ordered=options.ordered,
        attempts_max=options.attempts_max,
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
