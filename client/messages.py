"""The core's instructions as frames to workers, and an epoch's state as told to the dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..proto import control_pb2
from ..proto.wire import FrameType
from .events import Credit, Done, Fail, Fetch, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..proto.hashing import Digest
    from ..proto.position import StreamPosition
    from .epoch import EpochReader
    from .events import Instruction


def frame_of(instruction: Instruction) -> tuple[FrameType, dict[str, object]]:
    """The frame that tells a worker what the core wants."""
    if isinstance(instruction, Fetch):
        return FrameType.FETCH, {
            "attempt": instruction.attempt,
            "from": instruction.start,
            "credit": instruction.credit,
            "verify": instruction.verify,
        }
    if isinstance(instruction, Credit):
        return FrameType.CREDIT, {
            "attempt": instruction.attempt,
            "received": instruction.received,
            "credit": instruction.credit,
        }
    assert not isinstance(instruction, (Done, Report, Fail))
    return FrameType.RELEASE, {"attempt": instruction.attempt}


def _digest(digest: Digest) -> control_pb2.Digest:
    return control_pb2.Digest(count=digest.count, total=digest.total, chain=digest.chain)


def _resumed(start: StreamPosition) -> control_pb2.Resumed:
    count, total = start.whole
    return control_pb2.Resumed(
        splits=[cursor.splits for cursor in start.cursors], count=count, total=total
    )


def progress_of(reader: EpochReader) -> control_pb2.EpochProgress:
    """What the dispatcher is told of an open epoch."""
    return control_pb2.EpochProgress(
        stream=reader.stream,
        epoch=reader.epoch,
        done=[
            control_pb2.SplitDone(split=split, digest=_digest(digest))
            for split, digest in reader.unacknowledged.items()
        ],
        finished=reader.finished is not None,
        digest=None if reader.finished is None else _digest(reader.finished),
        resumed=None if reader.start is None else _resumed(reader.start),
    )


def problems_of(readers: Iterable[EpochReader]) -> list[control_pb2.Problem]:
    """What is wrong with attempts, for the dispatcher."""
    return [
        control_pb2.Problem(attempt=problem.attempt, code=problem.code, detail=problem.detail)
        for reader in readers
        for problem in reader.core.problems()
    ]
