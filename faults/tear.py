"""Tears the last record of a journal, as a crash in the middle of a write does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import JournalError
from ..journal import verify
from ..journal.format import (
    SEGMENT_HEAD_BYTES,
    decode_segment_head,
    encode_record,
)
from ..journal.recovery import segment_path, take_inventory

if TYPE_CHECKING:
    from pathlib import Path

#: As long as a usual record; nobody reads it.
_PAYLOAD = bytes(range(200))


def tear(directory: Path) -> int:
    """Appends the first half of a record to a journal that nobody writes.

    Args:
        directory: of the journal.

    Returns:
        The bytes at its end that a recovery must cut.

    Raises:
        JournalError: it is damaged, or has nothing to be torn.
    """
    survey = verify(directory)
    if survey.torn_bytes:  # the kill has done it already
        return survey.torn_bytes
    segments = take_inventory([path.name for path in directory.iterdir()]).segments
    if not segments:
        raise JournalError(f"journal {directory} has no records that could be torn")
    path = segment_path(directory, segments[-1].seq, segments[-1].generation)
    with path.open("r+b") as file:
        head = decode_segment_head(file.read(SEGMENT_HEAD_BYTES))
        record = encode_record(head.log_id, survey.last_seq + 1, _PAYLOAD)
        file.seek(0, 2)
        file.write(record[: len(record) // 2])
    return verify(directory).torn_bytes
