"""From the journal's directory to a state that can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import JournalCorruptError
from .event_records import decode
from .snapshot import from_snapshot
from .state import InvalidEventError, State
from .validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterable


def replay(snapshot: bytes | None, records: Iterable[tuple[int, bytes]]) -> State:
    """The state that a snapshot and the records after it add up to.

    Args:
        snapshot: the newest snapshot, or None.
        records: the records that follow it, with their numbers.

    Raises:
        JournalCorruptError: a record is no event, or does not fit what came before it.
    """
    state = State() if snapshot is None else from_snapshot(snapshot)
    apply, entry = state.apply, (0, b"")
    try:
        for entry in records:
            apply(decode(entry[1]))
    except (InvalidEventError, JournalCorruptError) as error:
        raise JournalCorruptError(f"record {entry[0]} of the journal: {error}") from error
    validate(state)
    return state
