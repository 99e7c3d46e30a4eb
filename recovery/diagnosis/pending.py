"""What was learned and waits for a person's yes: one file of filters and rules.

Nothing reads it but `accept`, which verifies all of it once more and adds it to the files that
`penstock diagnose --filters --rules` uses. Whoever does not want an entry removes it before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from . import filters as filter_files
from . import rules as rule_files
from .documents import entries, read_json, write_json
from .filters import Filter, load_filters
from .rules import Rule, load_rules, unique
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "penstock.diagnosis.pending"
VERSION = 1
#: More are not read by anybody.
ENTRIES_MAX = 500


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits.

    Attributes:
        filters, rules: what was learned.
    """

    filters: tuple[Filter, ...] = ()
    rules: tuple[Rule, ...] = ()


def load_pending(path: Path, rules: Iterable[Rule]) -> Pending:
    """The entries of a pending file, verified; empty if there is no such file.

    Args:
        path: the file.
        rules: whose positive examples no filter may match, beside those in the file.

    Raises:
        UsageError: the file or an entry is refused.
    """
    if not path.exists():
        return Pending()
    document, name = read_json(path), str(path)
    found = {
        field: entries(document, schema=SCHEMA, field=field, version=VERSION, name=name)
        for field in ("filters", "rules")
    }
    learned = unique(
        rule_files.parse_rule(one, f"{name}: rule {number}")
        for number, one in enumerate(found["rules"])
    )
    every = (*rules, *learned)
    made = tuple(
        filter_files.parse_filter(one, f"{name}: filter {number}", every)
        for number, one in enumerate(found["filters"])
    )
    slow = rule_files.slow_rules(learned) | try_out({one.id: one.pattern for one in made})
    for refused, why in slow.items():
        raise UsageError(f"{path}: {refused!r} is refused: {why}")
    return Pending(made, learned)


def add_pending(
    path: Path, known: Iterable[Rule], *, filters: Iterable[Filter] = (), rules: Iterable[Rule] = ()
) -> int:
    """Adds what was learned to a pending file; what is in it already stays as it is.

    Args:
        path: the file, which is made if it does not exist.
        known: the rules that are in use.
        filters, rules: what was learned.

    Returns:
        how many entries were new.

    Raises:
        UsageError: the file is refused, or would have more than `ENTRIES_MAX` entries.
    """
    have = load_pending(path, known)
    more = Pending(_new(filters, have.filters), _new(rules, have.rules))
    count = len(more.filters) + len(more.rules)
    if len(have.filters) + len(have.rules) + count > ENTRIES_MAX:
        raise UsageError(f"{path} would have more than {ENTRIES_MAX} entries: accept or cut it")
    write_json(path, _document((*have.filters, *more.filters), (*have.rules, *more.rules)))
    return count


def accept_pending(
    pending: Path, known: Iterable[Rule], *, filters: Path | None, rules: Path | None
) -> tuple[int, int]:
    """Adds the entries of a pending file to a filter file and a rule file, verified once more.

    Returns:
        how many filters and how many rules were new.

    Raises:
        UsageError: a file cannot be read, an entry is refused, or there is no file to add it to;
            nothing is changed then.
    """
    known = tuple(known)
    if not pending.exists():
        raise UsageError(f"{pending} does not exist")
    have_rules = load_rules(rules) if rules is not None and rules.exists() else ()
    waiting = load_pending(pending, (*known, *have_rules))
    for kind, path, some in (
        ("rules", rules, waiting.rules),
        ("filters", filters, waiting.filters),
    ):
        if some and path is None:
            raise UsageError(f"{pending} has {kind}: give one --{kind} FILE, to which they go")
    all_rules = unique((*known, *have_rules, *_new(waiting.rules, have_rules)))
    have_filters: tuple[Filter, ...] = ()
    if filters is not None and filters.exists():
        have_filters = load_filters(filters, all_rules)
    new_rules = _new(waiting.rules, have_rules)
    new_filters = _new(waiting.filters, have_filters)
    if rules is not None and new_rules:
        write_json(rules, rule_files.to_document((*have_rules, *new_rules)))
    if filters is not None and new_filters:
        write_json(filters, filter_files.to_document((*have_filters, *new_filters)))
    return len(new_filters), len(new_rules)


def _new(some: Iterable[Any], have: Iterable[Any]) -> tuple[Any, ...]:
    known = {one.id for one in have}
    return tuple(one for one in some if one.id not in known)


def _document(filters: Iterable[Filter], rules: Iterable[Rule]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "filters": [one.to_dict() for one in filters],
        "rules": [one.to_dict() for one in rules],
    }
