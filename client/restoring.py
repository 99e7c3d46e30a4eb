"""Arguments of `Reader` that say where a trainer is, or where it goes on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..errors import UsageError
from .options import DEFAULT_LANES
from .position import Position
from .session import COMMITTED

if TYPE_CHECKING:
    from .options import JobOptions

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


def completed(options: JobOptions, at: Position | str | None) -> JobOptions:
    """The options with what a position says where the user said nothing.

    Where the user said something else, the session says so, with all that differs.
    """
    if not isinstance(at, Position):
        return options
    return dataclasses.replace(
        options,
        seed=at.seed if options.seed is None else options.seed,
        # Lanes that are asked for have to be possible, the default need not.
        lanes=at.lanes if options.lanes is None and at.lanes != DEFAULT_LANES else options.lanes,
        block=options.block or at.block,
    )
