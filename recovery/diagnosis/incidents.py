"""Past incidents: what was diagnosed, and how it ended, in one SQLite file (FTS5).

A full-text search over the masked evidence gives the nearest candidates; these are ranked again:
the same fingerprint first, then the same root cause, then how many masked words they share.
What is stored has its secrets masked.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UsageError
from ..fingerprints import mask
from ..masking import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .result import Diagnosis

OUTCOMES = ("open", "recovered", "not recovered")
_CANDIDATES = 20
_WORDS_MAX = 64
_EVIDENCE_CHARS_MAX = 8000
_APPLICATION_ID = 0x70656E69  # "peni": another program's database is not written into
_WORD = re.compile(r"[A-Za-z_]{3,40}")
_SCHEMA = f"""
BEGIN;
CREATE TABLE incident (number INTEGER PRIMARY KEY, at REAL NOT NULL, root_cause TEXT NOT NULL,
  fingerprint TEXT NOT NULL, mitigation TEXT NOT NULL, evidence TEXT NOT NULL,
  outcome TEXT NOT NULL, note TEXT NOT NULL);
CREATE VIRTUAL TABLE incident_text USING fts5(text);
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Incident:
    """A failure of the past.

    Attributes:
        number: by which it is called.
        at_unix_s: when it was stored.
        root_cause, fingerprint, mitigation, evidence: of its diagnosis.
        outcome: one of `OUTCOMES`.
        note: what a person wrote about it.
        similarity: to what was searched for, from 0 to 1.
    """

    number: int
    at_unix_s: float
    root_cause: str
    fingerprint: str
    mitigation: str
    evidence: tuple[str, ...]
    outcome: str
    note: str
    similarity: float = 0.0


class Incidents:
    """The store; one process writes at a time, and others wait for it for 5 s.

    Args:
        path: the file, which is made if it does not exist.

    Raises:
        UsageError: it is no store of incidents, cannot be opened, or this Python's SQLite was built
            without FTS5.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            if database.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID:
                return
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise UsageError(f"{path} is a database of something else than incidents")
            database.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as database, database:
                yield database
        except sqlite3.Error as error:
            why = str(error)
            if "fts5" in why:
                # TensorFlow, imported before sqlite3, puts its own SQLite in the place of Python's.
                why = "the SQLite of this process was built without FTS5, which this needs"
            raise UsageError(f"incidents {self._path}: {why}") from error

    def add(self, diagnosis: Diagnosis, *, outcome: str = "open", note: str = "") -> int:
        """Stores a diagnosis; returns the incident's number.

        Raises:
            UsageError: outcome is not one of `OUTCOMES`, or the file cannot be written.
        """
        _checked(outcome)
        evidence = [mask_secrets(line) for line in diagnosis.evidence]
        while len(json.dumps(evidence)) > _EVIDENCE_CHARS_MAX:
            evidence.pop()
        row = (
            time.time(), diagnosis.root_cause, diagnosis.fingerprint, diagnosis.mitigation,
            json.dumps(evidence), outcome, mask_secrets(note),
        )  # fmt: skip
        with self._open() as database:
            number = database.execute(
                "INSERT INTO incident VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row
            ).lastrowid
            text = " ".join(_words(diagnosis))
            database.execute(
                "INSERT INTO incident_text (rowid, text) VALUES (?, ?)", (number, text)
            )
        assert number is not None
        return number

    def close(self, number: int, outcome: str, note: str = "") -> None:
        """Says how an incident ended.

        Raises:
            UsageError: there is no such incident or outcome.
        """
        _checked(outcome)
        with self._open() as database:
            changed = database.execute(
                "UPDATE incident SET outcome = ?, note = ? WHERE number = ?",
                (outcome, mask_secrets(note), number),
            ).rowcount
        if not changed:
            raise UsageError(f"there is no incident {number} in {self._path}")

    def similar(self, diagnosis: Diagnosis, *, at_most: int = 3) -> list[Incident]:
        """The incidents most like this one, the most similar one first."""
        words = _words(diagnosis)
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        with self._open() as database:
            rows = database.execute(
                "SELECT incident.*, incident_text.text FROM incident_text JOIN incident ON"
                " number = incident_text.rowid WHERE incident_text MATCH ? ORDER BY rank LIMIT ?",
                (query, _CANDIDATES),
            ).fetchall()
        wanted = set(words)
        found = []
        for number, at, root, fingerprint, mitigation, evidence, outcome, note, text in rows:
            have = set(text.split())
            likeness = len(have & wanted) / len(have | wanted)
            if diagnosis.fingerprint and fingerprint == diagnosis.fingerprint:
                likeness = 1.0
            elif root == diagnosis.root_cause:
                likeness = (1 + likeness) / 2
            lines = tuple(json.loads(evidence))
            found.append(
                Incident(number, at, root, fingerprint, mitigation, lines, outcome, note, likeness)
            )
        return sorted(found, key=lambda one: (-one.similarity, -one.number))[:at_most]


def _checked(outcome: str) -> None:
    if outcome not in OUTCOMES:
        raise UsageError(f"outcome must be {', '.join(OUTCOMES)}, not {outcome!r:.40}")


def _words(diagnosis: Diagnosis) -> list[str]:
    """The words of the first lines of evidence, without what varies."""
    text = mask(mask_secrets(" ".join(diagnosis.evidence[:4])))
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:_WORDS_MAX]
