"""A journal that was torn is whole again after the next start, and has lost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import JournalError
from penstock.faults.tear import tear
from penstock.journal import Log, verify

RECORDS = [b"one", b"two" * 100, b""]


def write(directory: Path) -> None:
    log, _ = Log.open(directory)
    with log:
        for record in RECORDS:
            log.append(record)
        log.sync()


def test_the_torn_record_is_cut_and_those_before_it_stay(tmp_path: Path) -> None:
    write(tmp_path)
    nbytes = tear(tmp_path)
    assert verify(tmp_path).torn_bytes == nbytes > 0
    log, recovered = Log.open(tmp_path)
    log.close()
    assert [payload for _, payload in recovered.records] == RECORDS
    assert recovered.cut_bytes == nbytes


def test_a_journal_that_is_torn_already_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    assert tear(tmp_path) == tear(tmp_path)


def test_where_nothing_was_ever_written_nothing_can_be_torn(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        tear(tmp_path)
