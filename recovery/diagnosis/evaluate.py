"""How well the rules do on logs whose root cause is known: by name, `REASON-NUMBER.log`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UsageError
from .entry import diagnose_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .filters import Filter
    from .result import Diagnosis
    from .rules import Rule

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one log.

    Attributes:
        path: the log.
        expected: its root cause, by its name.
        diagnosis: what was found.
    """

    path: Path
    expected: str
    diagnosis: Diagnosis

    @property
    def right(self) -> bool:
        """Whether the root cause is the expected one."""
        return self.diagnosis.root_cause == self.expected


def blocks_of(path: Path) -> Iterator[bytes]:
    """The content of a log, in blocks.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def evaluate(
    directory: Path, *, rules: Iterable[Rule] | None = None, filters: Iterable[Filter] = ()
) -> list[Answer]:
    """Diagnoses every `REASON-NUMBER.log` of a directory.

    Raises:
        UsageError: there is no such file.
    """
    rules, filters = None if rules is None else tuple(rules), tuple(filters)
    answers = [
        Answer(
            path,
            path.stem.rpartition("-")[0],
            diagnose_logs([blocks_of(path)], rules=rules, filters=filters),
        )
        for path in sorted(directory.glob("*-*.log"))
    ]
    if not answers:
        raise UsageError(f"{directory} has no logs called REASON-NUMBER.log")
    return answers


def by_reason(answers: Iterable[Answer]) -> dict[str, tuple[int, int]]:
    """How many logs of each reason were diagnosed rightly, and how many there are."""
    table: dict[str, tuple[int, int]] = {}
    for answer in answers:
        right, total = table.get(answer.expected, (0, 0))
        table[answer.expected] = (right + answer.right, total + 1)
    return table
