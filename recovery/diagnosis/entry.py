"""`diagnose`: from the lines of a log to the root cause, in memory."""

from __future__ import annotations

import functools
import itertools
from importlib import resources
from typing import TYPE_CHECKING

from .documents import parse_json
from .rules import Rule, parse_rules, unique
from .scanner import Scanner, lines_of
from .verdict import decide

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .filters import Filter
    from .result import Diagnosis

#: The rule files that come with penstock, in the folder `builtin`.
BUILTIN_FILES = ("infrastructure", "framework", "script", "tensorflow", "penstock")


@functools.cache
def builtin_rules() -> tuple[Rule, ...]:
    """The rules that come with penstock, verified with their examples; read once a process."""
    folder = resources.files(__package__) / "builtin"
    documents = [
        parse_rules(parse_json((folder / f"{name}.json").read_bytes(), name), f"{name}.json")
        for name in BUILTIN_FILES
    ]
    return unique(itertools.chain(*documents))


def diagnose(
    lines: Iterable[str],
    *,
    rules: Iterable[Rule] | None = None,
    filters: Iterable[Filter] = (),
) -> Diagnosis:
    """The root cause of the failure that these lines tell of, by rules alone.

    Asks nobody, and reads nothing but the built-in rules, once a process; never raises for what a
    line holds.

    Args:
        lines: of a log, oldest first, with or without their line ends; a text of several lines,
            such as a formatted traceback, may stand for them.
        rules: what to look for; None: the built-in rules.
        filters: lines to pass by.

    Returns:
        the diagnosis; its `source` is "none" and its `confidence` 0 if no rule explains the lines.
    """
    scanner = Scanner(builtin_rules() if rules is None else rules, filters)
    for line in lines:
        scanner.feed(line.encode("utf-8", "replace").rstrip(b"\n").split(b"\n"))
    return verdict_of(scanner)


def diagnose_logs(
    logs: Iterable[Iterable[bytes]],
    *,
    rules: Iterable[Rule] | None = None,
    filters: Iterable[Filter] = (),
) -> Diagnosis:
    """The root cause that several logs tell of, for one: those of all ranks.

    Args:
        logs: each an iterable of blocks of bytes of any size, read once and not kept.
        rules, filters: as for `diagnose`.
    """
    return verdict_of(scan_logs(logs, rules=rules, filters=filters))


def verdict_of(scanner: Scanner) -> Diagnosis:
    """The diagnosis that what was found so far amounts to."""
    return decide(scanner.findings, scanner.progress, scanner.notes)


def scan_logs(
    logs: Iterable[Iterable[bytes]],
    *,
    rules: Iterable[Rule] | None = None,
    filters: Iterable[Filter] = (),
) -> Scanner:
    """What `diagnose_logs` decides on, for who wants more of the logs than the verdict."""
    scanner = Scanner(builtin_rules() if rules is None else rules, filters)
    for number, blocks in enumerate(logs):
        if number:
            scanner.next_log()
        for lines in lines_of(blocks):
            scanner.feed(lines)
    return scanner
