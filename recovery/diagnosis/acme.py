"""Acme's rule files, `filter_rules.json` and `diagnosis_rules.json`, made into ours.

Acme's rules have no examples, roles or priorities: they become roots of a middling priority. What
is refused (a pattern that may run for ever, a filter that would hide errors) is named and left
out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from .filters import Filter, parse_filter
from .rules import Rule, parse_rule, slow_rules
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable

PRIORITY = 50
#: Acme's `source` in our categories, and what is done by default.
_CATEGORIES = {
    "user_mistake": ("script", "abort"),
    "infrastructure_failure": ("infrastructure", "replace_worker"),
    "unknown": ("framework", "retry"),
}


def import_rules(document: Any) -> tuple[list[Rule], list[str]]:
    """Rules of a `diagnosis_rules.json`: an array of `{"regex": …, "diagnosis": {…}}`.

    Returns:
        the rules, and why each of the others was refused.

    Raises:
        UsageError: the document is not an array.
    """
    rules: list[Rule] = []
    refused: list[str] = []
    for number, entry in enumerate(_array(document, "diagnosis_rules.json")):
        try:
            rules.append(_rule(entry, number))
        except UsageError as error:  # noqa: PERF203 - each is judged on its own
            refused.append(str(error))
    slow = slow_rules(rules)
    refused += [f"{name}: {why}" for name, why in slow.items()]
    return [rule for rule in rules if rule.id not in slow], refused


def import_filters(document: Any, rules: Iterable[Rule]) -> tuple[list[Filter], list[str]]:
    """Filters of a `filter_rules.json`, an array of patterns; see `import_rules`."""
    filters: list[Filter] = []
    refused: list[str] = []
    rules = tuple(rules)
    for number, pattern in enumerate(_array(document, "filter_rules.json")):
        name = f"acme-filter-{number}"
        fields = {"id": name, "pattern": pattern, "example": "(none)", "origin": "acme"}
        try:
            filters.append(parse_filter(fields, name, rules))
        except UsageError as error:
            refused.append(str(error))
    slow = try_out({one.id: one.pattern for one in filters})
    refused += [f"{name}: {why}" for name, why in slow.items()]
    return [one for one in filters if one.id not in slow], refused


def _array(document: Any, name: str) -> list[Any]:
    if not isinstance(document, list):
        raise UsageError(f"{name} of Acme must be an array")
    return document


def _rule(entry: Any, number: int) -> Rule:
    name = f"acme-{number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("diagnosis"), dict):
        raise UsageError(f'{name} must have a "regex" and an object "diagnosis"')
    said = entry["diagnosis"]
    category, action = _CATEGORIES.get(str(said.get("source")), _CATEGORIES["unknown"])
    recoverable = bool(said.get("is_recoverable"))
    return parse_rule(
        {
            "id": name,
            "reason": said.get("error_type") or said.get("root_cause"),
            "pattern": entry.get("regex"),
            "role": "root",
            "priority": PRIORITY,
            "category": category,
            "recoverable": recoverable,
            "action": action if recoverable or action == "abort" else "abort",
            "mitigation": said.get("mitigation") or said.get("root_cause"),
            "origin": "acme",
        },
        name,
    )
