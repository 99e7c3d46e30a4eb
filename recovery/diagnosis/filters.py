"""Filters: lines that are routine and say nothing about a failure, however they look.

A filter may hide no line that a rule is known to need: one that matches a positive example of any
rule, or a line of an obvious error, is refused when it is loaded or learned. So no `.*` can
silence everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from .documents import choice_of, entries, read_json, text_of
from .regexes import Pattern, accept
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .rules import Rule

SCHEMA = "penstock.diagnosis.filters"
VERSION = 1
FILTERS_MAX = 5000
#: Lines that no filter may match, whatever the rules are.
OBVIOUS = (
    "Traceback (most recent call last):",
    "RuntimeError: something went wrong",
    "ERROR: training failed",
    "FATAL: cannot continue",
    "Segmentation fault (core dumped)",
    "Killed",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A pattern of routine lines.

    Attributes:
        id: its name, unique among filters.
        pattern: what it matches.
        example: a line that it was made of.
        origin: "operator", "learned" or "acme".
    """

    id: str
    pattern: Pattern
    example: str
    origin: str

    def to_dict(self) -> dict[str, Any]:
        """What `parse_filters` makes it of."""
        pattern = self.pattern.compiled.pattern
        return {
            "id": self.id, "pattern": pattern, "example": self.example, "origin": self.origin,
        }  # fmt: skip


def parse_filters(document: Any, name: str, rules: Iterable[Rule]) -> tuple[Filter, ...]:
    """The filters of a document of the schema `penstock.diagnosis.filters`.

    Raises:
        UsageError: one is malformed, its pattern is refused, or it would hide an error.
    """
    found = entries(document, schema=SCHEMA, field="filters", version=VERSION, name=name)
    if len(found) > FILTERS_MAX:
        raise UsageError(f"{name} has {len(found)} filters, more than {FILTERS_MAX}")
    return tuple(
        parse_filter(one, f"{name}: filter {number}", rules) for number, one in enumerate(found)
    )


def parse_filter(fields: Any, name: str, rules: Iterable[Rule]) -> Filter:
    """One filter; see `parse_filters`."""
    if not isinstance(fields, dict):
        raise UsageError(f"{name} must be an object")
    made = Filter(
        id=text_of(fields, "id", name, chars_max=100),
        pattern=accept(fields.get("pattern"), name=name),
        example=text_of(fields, "example", name, chars_max=2000),
        origin=choice_of(fields, "origin", name, ("operator", "learned", "acme")),
    )
    if made.origin != "acme" and not made.pattern.compiled.search(made.example):
        raise UsageError(f"{name}: the pattern does not match its example {made.example!r:.120}")
    if (hidden := hides(made.pattern, rules)) is not None:
        raise UsageError(f"{name} is refused: it would hide {hidden!r:.120}")
    return made


def hides(pattern: Pattern, rules: Iterable[Rule]) -> str | None:
    """A line of an error that the pattern would hide; None if there is none."""
    known = [example for rule in rules for example in rule.positive]
    for line in (*OBVIOUS, *known):
        if pattern.compiled.search(line):
            return line
    return None


def load_filters(path: Path, rules: Iterable[Rule]) -> tuple[Filter, ...]:
    """The filters of a file, verified and tried out for slowness.

    Raises:
        UsageError: the file or a filter of it is refused.
    """
    filters = parse_filters(read_json(path), str(path), rules)
    for name, why in try_out({one.id: one.pattern for one in filters}).items():
        raise UsageError(f"{path}: filter {name!r} is refused: {why}")
    return filters


def to_document(filters: Iterable[Filter]) -> dict[str, Any]:
    """What `parse_filters` reads."""
    return {"schema": SCHEMA, "version": VERSION, "filters": [one.to_dict() for one in filters]}
