"""Past incidents: what was diagnosed, and how it ended, in one SQLite file.

A full-text search (FTS5) over the masked evidence gives the nearest candidates; these are ranked
again: the same fingerprint first, then the same root cause at the same place of the program, then
the same root cause, then the share of masked words in common, then the search's own order. A
process whose SQLite has no FTS5 (TensorFlow brings one) looks through the newest incidents instead;
what it stores is indexed by the next process that can. What is stored has its secrets masked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..fingerprints import mask
from ..masking import mask_secrets
from .result import diagnosis_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .answer import Suggestion
    from .result import Diagnosis

OUTCOMES = ("open", "recovered", "not recovered")
_CANDIDATES = 20
#: So many are looked through where there is no index.
_LOOKED_THROUGH_MAX = 1000
_WORDS_MAX = 64
_EVIDENCE_CHARS_MAX = 8000
_APPLICATION_ID = 0x70656E69  # "peni": another program's database is not written into
_WORD = re.compile(r"[A-Za-z_]{3,40}")
_FRAME = re.compile(r"File \"(?:[^\"]*/)?([^\"/]+)\", line \d+, in (\S+)")
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS incident (
  number INTEGER PRIMARY KEY, at REAL NOT NULL, root_cause TEXT NOT NULL, fingerprint TEXT NOT NULL,
  evidence TEXT NOT NULL, diagnosis TEXT NOT NULL,
  model TEXT NOT NULL, suggestion TEXT NOT NULL, outcome TEXT NOT NULL,
  note TEXT NOT NULL);
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""
_COLUMNS = "number, at, root_cause, evidence, diagnosis, model, suggestion, outcome, note"


@dataclass(frozen=True, slots=True)
class Incident:
    """A failure of the past.

    Attributes:
        number: by which it is called.
        at_unix_s: when it was stored.
        root_cause: what it was, as far as is known: a person's word, if there is one.
        diagnosis: what rules said, masked.
        model, suggestion: what a language model said, and which one; "" and None if none did.
        outcome: one of `OUTCOMES`.
        note: what a person wrote about it.
        similarity: to what was searched for, from 0 to 1.
    """

    number: int
    at_unix_s: float
    root_cause: str
    diagnosis: Diagnosis
    model: str
    suggestion: Diagnosis | None
    outcome: str
    note: str
    similarity: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON has them."""
        suggestion = None if self.suggestion is None else self.suggestion.to_dict()
        return {
            "number": self.number, "at_unix_s": self.at_unix_s, "root_cause": self.root_cause,
            "diagnosis": self.diagnosis.to_dict(), "model": self.model, "suggestion": suggestion,
            "outcome": self.outcome, "note": self.note, "similarity": round(self.similarity, 3),
        }  # fmt: skip


class Incidents:
    """The store; one process writes at a time, and others wait for it for 5 s.

    Args:
        path: the file, which is made if it does not exist.
        full_text: whether to search by FTS5; None: if this process's SQLite has it.

    Raises:
        UsageError: it is no store of incidents, or cannot be opened.
    """

    def __init__(self, path: Path, *, full_text: bool | None = None) -> None:
        self._path = path
        self._full_text = has_fts5() if full_text is None else full_text
        with self._open() as database:
            if database.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise UsageError(f"{path} is a database of something else than incidents")
                database.executescript(_SCHEMA)  # another process may do so, too
            if self._full_text:
                _index(database)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise UsageError(f"incidents {self._path}: {error}") from error

    def add(
        self,
        diagnosis: Diagnosis,
        *,
        outcome: str = "open",
        note: str = "",
        suggestion: Suggestion | None = None,
    ) -> int:
        """Stores a diagnosis, with what a model suggested beside it; returns the incident's number.

        Raises:
            UsageError: outcome is not one of `OUTCOMES`, or the file cannot be written.
        """
        _checked(outcome)
        masked = _masked(diagnosis)
        guess = None if suggestion is None else _masked(suggestion.diagnosis)
        row = (
            time.time(), diagnosis.root_cause, diagnosis.fingerprint, json.dumps(masked.evidence),
            json.dumps(masked.to_dict()), suggestion.model if suggestion else "",
            json.dumps(guess.to_dict()) if guess else "", outcome, mask_secrets(note),
        )  # fmt: skip
        with self._open() as database:
            number = database.execute(
                "INSERT INTO incident VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            ).lastrowid
            if self._full_text:
                _index(database)
        assert number is not None
        return number

    def close(
        self, number: int, outcome: str, note: str = "", *, root_cause: str | None = None
    ) -> None:
        """Says how an incident ended, and what it was if rules took it for something else.

        Raises:
            UsageError: there is no such incident or outcome.
        """
        _checked(outcome)
        with self._open() as database:
            changed = database.execute(
                "UPDATE incident SET outcome = ?, note = ?, root_cause = ifnull(?, root_cause)"
                " WHERE number = ?",
                (outcome, mask_secrets(note), root_cause, number),
            ).rowcount
        if not changed:
            raise self._unknown(number)

    def get(self, number: int) -> Incident:
        """One incident; raises UsageError if there is none of that number."""
        with self._open() as database:
            row = database.execute(
                f"SELECT {_COLUMNS} FROM incident WHERE number = ?", (number,)
            ).fetchone()
        if row is None:
            raise self._unknown(number)
        return self._incident(row)

    def newest(self, at_most: int = 20) -> list[Incident]:
        """The newest incidents, the newest one first."""
        with self._open() as database:
            return [self._incident(row) for row in _newest(database, at_most)]

    def similar(self, diagnosis: Diagnosis, *, at_most: int = 3) -> list[Incident]:
        """The incidents most like this one, the most similar one first."""
        words = _words(diagnosis.evidence)
        if not words:
            return []
        with self._open() as database:
            rows = _found(database, words) if self._full_text else _newest(database)
        found = []
        for rank, row in enumerate(rows):
            one = self._incident(row)
            likeness = _likeness(diagnosis, set(words), one)
            if likeness > 0:
                found.append((-likeness, rank, one))
        found.sort(key=lambda entry: entry[:2])
        return [
            dataclasses.replace(one, similarity=-likeness) for likeness, _, one in found[:at_most]
        ]

    def _incident(self, row: Sequence[Any]) -> Incident:
        number, at, root, _, diagnosis, model, suggestion, outcome, note = row
        name = f"{self._path}: incident {number}"
        return Incident(
            number, at, root, diagnosis_of(diagnosis, name), model,
            diagnosis_of(suggestion, name) if suggestion else None, outcome, note,
        )  # fmt: skip

    def _unknown(self, number: int) -> UsageError:
        return UsageError(f"there is no incident {number} in {self._path}")


@functools.cache
def has_fts5() -> bool:
    """Whether this process's SQLite can search texts: TensorFlow's, imported before, cannot."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE x USING fts5(y)")
        except sqlite3.OperationalError:
            return False
    return True


def _index(database: sqlite3.Connection) -> None:
    """Puts into the index what is not in it."""
    database.execute("CREATE VIRTUAL TABLE IF NOT EXISTS incident_text USING fts5(text)")
    rows = database.execute(
        "SELECT number, evidence FROM incident"
        " WHERE number NOT IN (SELECT rowid FROM incident_text)"
    ).fetchall()
    database.executemany(
        "INSERT INTO incident_text (rowid, text) VALUES (?, ?)",
        [(number, " ".join(_words(json.loads(evidence)))) for number, evidence in rows],
    )


def _found(database: sqlite3.Connection, words: Sequence[str]) -> list[Any]:
    query = " OR ".join(f'"{word}"' for word in words)
    return database.execute(
        f"SELECT {_COLUMNS} FROM incident_text JOIN incident ON number = incident_text.rowid"
        " WHERE incident_text MATCH ? ORDER BY rank, number DESC LIMIT ?",
        (query, _CANDIDATES),
    ).fetchall()


def _newest(database: sqlite3.Connection, at_most: int = _LOOKED_THROUGH_MAX) -> list[Any]:
    return database.execute(
        f"SELECT {_COLUMNS} FROM incident ORDER BY number DESC LIMIT ?", (at_most,)
    ).fetchall()


def _checked(outcome: str) -> None:
    if outcome not in OUTCOMES:
        raise UsageError(f"outcome must be {', '.join(OUTCOMES)}, not {outcome!r:.40}")


def _masked(diagnosis: Diagnosis) -> Diagnosis:
    evidence = [mask_secrets(line) for line in diagnosis.evidence]
    while len(json.dumps(evidence)) > _EVIDENCE_CHARS_MAX:
        evidence.pop()
    entity, mitigation = mask_secrets(diagnosis.entity), mask_secrets(diagnosis.mitigation)
    return dataclasses.replace(
        diagnosis, evidence=tuple(evidence), entity=entity, mitigation=mitigation
    )


def _likeness(diagnosis: Diagnosis, words: set[str], one: Incident) -> float:
    """How much an incident is like a diagnosis: by what they share of the best kind, 0 to 1."""
    past = one.diagnosis
    if diagnosis.fingerprint and past.fingerprint == diagnosis.fingerprint:
        return 1.0
    have = set(_words(past.evidence))
    shared = len(have & words) / len(have | words)
    if not diagnosis.confidence or diagnosis.root_cause not in (past.root_cause, one.root_cause):
        return shared / 2
    place = _place(diagnosis)
    return (3 + shared) / 4 if place and place == _place(past) else (2 + shared) / 4


def _place(diagnosis: Diagnosis) -> tuple[str, str] | None:
    """File and function of the innermost frame that the evidence shows."""
    frames = [match for line in diagnosis.evidence if (match := _FRAME.search(line))]
    return (frames[-1][1], frames[-1][2]) if frames else None


def _words(evidence: Sequence[str]) -> list[str]:
    """The words of the first lines of evidence, without what varies."""
    text = mask(mask_secrets(" ".join(evidence[:4])))
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:_WORDS_MAX]
