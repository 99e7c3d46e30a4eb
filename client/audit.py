"""Checking a ledger: what was lost, delivered twice, unexpected or altered, epoch by epoch.

Each client wrote a file of its own (see `ledger`); a *visit* is one client's run through one epoch
of one stream. A finished visit must have every element of every split exactly once, and hashes
that add up to the digest that was proven. An unfinished one (the trainer stopped or was killed)
must have no gap and nothing twice. What several lives of several consumers come to is in
`training`. A damaged file fails the audit as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError, VerificationError
from ..proto.hashing import Digest, DigestBuilder
from .ledger import SUFFIX, read_records
from .recorded import LifeRecord, Visit, against
from .training import trained

if TYPE_CHECKING:
    import os

    from .recorded import Truth
    from .training import TrainingAudit


@dataclass(frozen=True, slots=True)
class VisitAudit:
    """What was found in one client's visit of one epoch of one stream.

    Attributes:
        file: the ledger file's name.
        job: the job's id.
        stream: index of the stream in the job.
        epoch: the epoch's number.
        finished: its end was proven.
        elements: number of elements that were delivered.
        lost: elements that should have been delivered and were not.
        duplicated: deliveries of elements that had been delivered already.
        unexpected: deliveries of elements that do not exist.
        altered: elements whose bytes are not what they should be; 1 if only the digest tells.
        digest: of what was delivered, in its order.
    """

    file: str
    job: str
    stream: int
    epoch: int
    finished: bool
    elements: int
    lost: int
    duplicated: int
    unexpected: int
    altered: int
    digest: Digest

    @property
    def clean(self) -> bool:
        """Nothing is wrong with it."""
        return not (self.lost or self.duplicated or self.unexpected or self.altered)


@dataclass(frozen=True, slots=True)
class Skip:
    """Elements that the trainer left out on purpose: delivered, and not trained on.

    Attributes:
        file: of the ledger.
        epoch: of the job.
        first: number of the first one in that epoch of the distributed dataset.
        count: how many at most; the last batch of an epoch may be smaller.
        why: the error, one line.
    """

    file: str
    epoch: int
    first: int
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of `audit`.

    Attributes:
        visits: one for each visit of an epoch, by file, stream and epoch.
        damaged: what cannot be read, in words.
        skips: what the trainer left out.
        trainings: what trainings of several lives or consumers were trained on, by epoch.
    """

    visits: tuple[VisitAudit, ...]
    damaged: tuple[str, ...]
    skips: tuple[Skip, ...] = ()
    trainings: tuple[TrainingAudit, ...] = ()

    @property
    def clean(self) -> bool:
        """Every visit and training is clean, and everything could be read."""
        return not self.damaged and all(part.clean for part in self._parts)

    @property
    def lost(self) -> int:
        """Lost elements of all visits and trainings."""
        return sum(part.lost for part in self._parts)

    @property
    def duplicated(self) -> int:
        """Duplicated elements of all visits and trainings."""
        return sum(part.duplicated for part in self._parts)

    @property
    def unexpected(self) -> int:
        """Unexpected elements of all visits and trainings."""
        return sum(part.unexpected for part in self._parts)

    @property
    def _parts(self) -> list[VisitAudit | TrainingAudit]:
        return [*self.visits, *self.trainings]

    @property
    def reordered(self) -> int:
        """Reordered elements of all trainings."""
        return sum(training.reordered for training in self.trainings)

    @property
    def altered(self) -> int:
        """Altered elements of all visits and trainings."""
        return sum(part.altered for part in self._parts)


def audit(directory: str | os.PathLike[str], expected: Truth | None = None) -> AuditReport:
    """Checks every file of a ledger directory.

    Args:
        directory: what `ledger=` of `distribute` or `Reader` named.
        expected: what every finished epoch must consist of, in any order: a digest (see
            `digest_of`), or the hashes of all elements.

    Raises:
        UsageError: there is no ledger in `directory`.
    """
    paths = sorted(Path(directory).glob(f"*{SUFFIX}")) if Path(directory).is_dir() else []
    if not paths:
        raise UsageError(f"there is no ledger in {directory}: no *{SUFFIX} files")
    truth = expected
    if expected is not None and not isinstance(expected, Digest):
        truth = np.sort(np.asarray(expected, np.uint64))
    visits: list[VisitAudit] = []
    damaged: list[str] = []
    skips: list[Skip] = []
    records: list[LifeRecord] = []
    for path in paths:
        found = _File(path)
        try:
            found.read()
        except (VerificationError, OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(str(error) if path.name in str(error) else f"{path}: {error}")
        skips += found.skips
        visits += [found.audited(visit, truth) for visit in found.visits.values()]
        found.record.visits = found.visits
        records.append(found.record)
    return AuditReport(tuple(visits), tuple(damaged), tuple(skips), tuple(trained(records, truth)))


class _File:
    """One ledger file, as its visits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._job = ""
        self.visits: dict[tuple[int, int], Visit] = {}
        self.skips: list[Skip] = []
        self.record = LifeRecord()

    def read(self) -> None:
        for record in read_records(self._path):
            kind = record["kind"]
            if kind == "open":
                self._job = str(record["job"])
                self.record.opened(record)
            elif kind == "run":
                self._read_run(record)
            elif kind == "commit":
                self.record.committed(record)
            elif kind == "resume":
                visit = self._visit(record)
                visit.before = Digest(*map(int, record["digest"]))
                visit.begun = {int(split): int(count) for split, count in record["begun"]}
            elif kind == "skip":
                epoch, first, count = (int(record[name]) for name in ("epoch", "first", "count"))
                self.skips.append(Skip(self._path.name, epoch, first, count, str(record["why"])))
            elif kind == "end":
                visit = self._visit(record)
                visit.counts = {int(split): int(count) for split, count in record["splits"]}
                visit.proven = Digest(*map(int, record["digest"]))

    def _read_run(self, record: dict[str, Any]) -> None:
        visit = self._visit(record)
        pieces = [(int(split), int(start), int(count)) for split, start, count in record["pieces"]]
        hashes = np.frombuffer(record["hashes"], "<u8")
        if len(hashes) != sum(count for _, _, count in pieces):
            raise VerificationError(f"{self._path}: a record has not one hash for each element")
        visit.pieces += pieces
        visit.hashes.append(hashes)

    def _visit(self, record: dict[str, Any]) -> Visit:
        key = (int(record["stream"]), int(record["epoch"]))
        return self.visits.setdefault(key, Visit(*key))

    def audited(self, visit: Visit, truth: Truth | None) -> VisitAudit:
        builder = DigestBuilder.after(visit.before)
        for hashes in visit.hashes:
            builder.update(hashes)
        digest = builder.digest()
        lost, duplicated, unexpected = _positions(visit)
        altered = 0
        whole = not (lost or duplicated or unexpected)
        if visit.proven is not None and whole and visit.proven != digest:
            altered = 1
        shared = self.record.life is not None and self.record.life.consumer is not None
        if visit.proven is not None and truth is not None and not shared:
            missing, surplus = against(truth, visit.hashes, digest, visit.before.count)
            # A missing hash and one too many are one element that was altered.
            altered = max(altered, min(missing, surplus))
            lost = max(lost, missing - min(missing, surplus))
            unexpected = max(unexpected, surplus - min(missing, surplus) - duplicated)
        return VisitAudit(
            file=self._path.name,
            job=self._job,
            stream=visit.stream,
            epoch=visit.epoch,
            finished=visit.proven is not None,
            elements=digest.count - visit.before.count,
            lost=lost,
            duplicated=duplicated,
            unexpected=unexpected,
            altered=altered,
            digest=digest,
        )


def _positions(visit: Visit) -> tuple[int, int, int]:
    """(lost, duplicated, unexpected) by position: which elements of which splits came."""
    lost = duplicated = unexpected = 0
    spans: dict[int, list[tuple[int, int]]] = {}
    for split, start, count in visit.pieces:
        spans.setdefault(split, []).append((start, start + count))
    if visit.counts is not None:
        lost += sum(
            count - visit.begun.get(split, 0)
            for split, count in visit.counts.items()
            if split not in spans
        )
    for split, found in spans.items():
        # What an unfinished visit had yet to come is not known, so only gaps are losses there.
        limit = max(stop for _, stop in found)
        if visit.counts is not None:
            limit = visit.counts.get(split, 0)
        covered = visit.begun.get(split, 0)
        for start, stop in sorted(found):
            unexpected += max(0, stop - max(start, limit))
            start, stop = min(start, limit), min(stop, limit)
            lost += max(0, start - covered)
            duplicated += max(0, min(covered, stop) - start)
            covered = max(covered, stop)
        lost += max(0, limit - covered)
    return lost, duplicated, unexpected
