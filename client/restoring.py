"""Arguments of `Reader` that say where a trainer is, or where it goes on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..proto.position import Position
from .options import DEFAULT_LANES, checked_consumer
from .session import COMMITTED

if TYPE_CHECKING:
    from .options import JobOptions
    from .positions import Counting

_COUNT_MAX = (1 << 63) - 1


def checked_restore(value: object, job_name: str | None) -> Position | str | None:
    """A position, `COMMITTED`, or None.

    Raises:
        UsageError: it is none of these.
    """
    if value is None or isinstance(value, Position):
        return value
    if value == COMMITTED:
        if job_name is None:
            raise UsageError('restore="committed" needs the job_name that it was committed under')
        return COMMITTED
    if not isinstance(value, str):
        raise UsageError(
            f'restore must be a Position, the text of one, "{COMMITTED}" or None, not {value!r:.80}'
        )
    return Position.parse(value)


def checked_consumed(name: str, value: object, least: int = 0) -> int:
    """A count.

    Raises:
        UsageError: it is none.
    """
    number = value.__index__() if hasattr(value, "__index__") else None
    if number is None or isinstance(value, bool) or not least <= number <= _COUNT_MAX:
        raise UsageError(f"{name} must be a whole number from {least}, not {value!r:.80}")
    return int(number)


def completed(
    options: JobOptions, at: Position | str | None, consumer: object = None
) -> JobOptions:
    """The options with what a position says where the user said nothing.

    Where the user said something else, the session says so, with all that differs. `consumer` is
    the one to be from now on, if it is another one.
    """
    if consumer is not None:
        options = dataclasses.replace(
            options, consumer=checked_consumer(consumer, options.job_name)
        )
    if not isinstance(at, Position):
        return options
    return dataclasses.replace(
        options,
        seed=at.seed if options.seed is None else options.seed,
        # Lanes that are asked for have to be possible, the default need not.
        lanes=at.lanes if options.lanes is None and at.lanes != DEFAULT_LANES else options.lanes,
        block=options.block or at.block,
    )


def shared_counting(
    counting: Counting, options: JobOptions, service: object, plan: Any
) -> Counting:
    """How elements are counted by a reader that may be one of several consumers.

    Raises:
        UsageError: several consumers cannot share this pipeline; the message says why.
    """
    consumer = options.consumer
    if consumer is None:
        return counting
    if service is None and consumer.world > 1:
        raise UsageError(
            f"{consumer.world} consumers need a service that they all reach, not service=None"
        )
    if plan is not None and len(plan.streams) > 1:
        raise UsageError(
            "consumer: a pipeline of several sources that meet at the client cannot be shared,"
            " since each consumer would put other elements together: let them meet behind"
            " distribute(...)"
        )
    if counting.rates is None:
        raise UsageError(
            f"consumer: the end of the pipeline needs all of an epoch ({counting.reason}), and a"
            " consumer gets a part of it: put that behind distribute(...)"
        )
    ordered = options.ordered or (plan is not None and plan.ordered)
    lanes = options.lanes or (1 if ordered else DEFAULT_LANES)
    if consumer.world > lanes and ordered:
        raise UsageError("consumer: elements in source order are one lane's, for one consumer")
    if consumer.world > lanes:
        raise UsageError(
            f"{consumer.world} consumers cannot share {lanes} lanes: set lanes={consumer.world} or"
            " more"
        )
    return dataclasses.replace(counting, cardinality=-2)
