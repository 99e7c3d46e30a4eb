"""Learning filters from logs of runs that went well; nothing is used before a person has said yes.

Lines of a good run that look like trouble are routine. Their templates become filters in a pending
file, which a person reads, cuts, and accepts; whatever would hide a known error is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UsageError
from ..fingerprints import fingerprint
from .documents import write_json
from .filters import Filter, load_filters, parse_filter, to_document
from .lines import cut
from .scanner import NOTABLE
from .templates import Miner, to_pattern
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .rules import Rule

#: A template of fewer lines may be a coincidence.
LINES_MIN = 3
FILTERS_MAX = 200


def learn_filters(lines: Iterable[bytes], rules: Iterable[Rule]) -> list[Filter]:
    """Filters for lines of a good run that look like trouble, or that rules take for it.

    Args:
        lines: of logs of runs that went well.
        rules: whose positive examples no filter may match.

    Returns:
        at most `FILTERS_MAX`, those of the most frequent lines first.
    """
    rules = tuple(rules)
    patterns = [rule.pattern.compiled for rule in rules if rule.scope == "line"]
    miner = Miner()
    for raw in lines:
        text = cut(raw)
        if NOTABLE.search(text) or any(pattern.search(text) for pattern in patterns):
            miner.add(text)
    learned: list[Filter] = []
    for template in miner.templates()[:FILTERS_MAX]:
        if template.count < LINES_MIN:
            break
        fields = {
            "id": f"learned-{fingerprint(template.text)}",
            "pattern": to_pattern(template),
            "example": template.example,
            "origin": "learned",
        }
        try:
            learned.append(parse_filter(fields, fields["id"], rules))
        except UsageError:
            continue
    slow = try_out({one.id: one.pattern for one in learned})
    return [one for one in learned if one.id not in slow]


def write_pending(path: Path, filters: Iterable[Filter]) -> None:
    """Writes what was learned for a person to read; replaces what was there."""
    write_json(path, to_document(filters))


def accept_pending(pending: Path, path: Path, rules: Iterable[Rule]) -> int:
    """Adds the filters of a pending file to a filter file, verifying them once more.

    Returns:
        how many were new.

    Raises:
        UsageError: a file cannot be read, or a filter is refused; nothing is changed then.
    """
    rules = tuple(rules)
    accepted = load_filters(pending, rules)
    have = load_filters(path, rules) if path.exists() else ()
    known = {one.id for one in have}
    new = [one for one in accepted if one.id not in known]
    write_json(path, to_document([*have, *new]))
    return len(new)
