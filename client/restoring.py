"""Arguments of `Reader` that say where a trainer is, or where it goes on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..errors import PositionError, UsageError
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

    Raises:
        PositionError: the user said something else.
    """
    if not isinstance(at, Position):
        return options
    found = [
        f"{name} is {getattr(options, name)}, it was {getattr(at, name)}"
        for name in ("seed", "lanes", "block")
        if getattr(options, name) not in (None, getattr(at, name))
    ]
    if found:
        raise PositionError(f"the position is one of something else: {'; '.join(found)}")
    lanes = at.lanes if at.lanes != DEFAULT_LANES else options.lanes
    return dataclasses.replace(options, seed=at.seed, lanes=lanes, block=at.block)
