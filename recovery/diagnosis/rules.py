"""Rules: which line says what went wrong, and what is to be done about it.

A rule is data, never code. When a rule file is loaded, each rule's pattern is checked (`regexes`),
must match all of the rule's positive examples and none of its negative ones; a file that was not
shipped with penstock is tried out for slowness as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..strategy import FailoverStrategy
from .documents import choice_of, entries, read_json, text_of, texts_of
from .episodes import KEPT_LINES
from .regexes import Pattern, accept
from .result import Category
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "penstock.diagnosis.rules"
VERSION = 1
RULES_MAX = 5000
CATEGORIES = tuple(one.value for one in Category)
ROLES = ("root", "cascade", "confirmation")
SCOPES = ("line", "episode")
ENTITIES = ("", "split", "worker", "node", "device", "rank", "path", "module", "address")
#: What a rule may ask for, and which strategy of the service does it.
STRATEGIES = {
    "retry": FailoverStrategy.NORMAL_FAILOVER,
    "refetch": FailoverStrategy.NORMAL_FAILOVER,
    "quarantine": FailoverStrategy.NORMAL_FAILOVER,
    "rewind": FailoverStrategy.NORMAL_FAILOVER,
    "replace_worker": FailoverStrategy.NODE_FAILOVER,
    "restart_all": FailoverStrategy.GLOBAL_FAILOVER,
    "abort": FailoverStrategy.ABORTION_FAILOVER,
}
ACTIONS = tuple(STRATEGIES)
_FIELDS = {
    "id", "reason", "pattern", "case", "scope", "role", "priority", "category", "recoverable",
    "action", "mitigation", "entity", "explains", "positive", "negative", "origin",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """What one pattern means.

    Attributes:
        id: its name, unique among all rules.
        reason: the root cause that it shows, such as "NCCLTimeoutError".
        pattern: what it looks for in a line or, with scope "episode", in a whole traceback.
        scope: "line" or "episode".
        role: "root": may be the cause; "cascade": follows from a cause elsewhere; "confirmation":
            makes its reason surer, and is a cause only where there is no other.
        priority: 0 to 100; the higher one wins where several match the same place.
        category, recoverable, action, mitigation: as in `Diagnosis`.
        entity: what the pattern's named group of that name stands for; "" if there is none.
        explains: reasons that this one is the cause of even if it is logged after them.
        origin: "builtin", "operator", "learned" or "acme".
        positive, negative: lines that it matches, and that it does not.
    """

    id: str
    reason: str
    pattern: Pattern
    scope: str
    role: str
    priority: int
    category: Category
    recoverable: bool
    action: str
    mitigation: str
    entity: str
    explains: tuple[str, ...]
    origin: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    @property
    def strategy(self) -> FailoverStrategy:
        """The strategy that carries out the action."""
        return STRATEGIES[self.action]

    def to_dict(self) -> dict[str, Any]:
        """What `parse_rule` makes it of."""
        fields = {name: getattr(self, name) for name in sorted(_FIELDS - {"pattern", "case"})}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        compiled = self.pattern.compiled
        return {
            **fields, **lists, "category": self.category.value, "pattern": compiled.pattern,
            "case": not compiled.flags & re.IGNORECASE,
        }  # fmt: skip


def parse_rule(fields: Any, name: str) -> Rule:
    """A rule of one entry of a rule file, verified with its own examples.

    Raises:
        UsageError: a field is missing, unknown or wrong, the pattern is refused, or an example
            contradicts it.
    """
    if not isinstance(fields, dict):
        raise UsageError(f"{name} must be an object")
    name = f"{name} ({fields.get('id')!r:.60})"
    if unknown := sorted(set(fields) - _FIELDS):
        raise UsageError(f"{name} has unknown fields {', '.join(unknown)[:200]}")
    priority, recoverable = fields.get("priority", 50), fields.get("recoverable")
    if not isinstance(priority, int) or not 0 <= priority <= 100:
        raise UsageError(f"{name}: priority must be a whole number from 0 to 100")
    if not isinstance(recoverable, bool) or not isinstance(fields.get("case", False), bool):
        raise UsageError(f"{name}: recoverable must be true or false, and so must case")
    rule = Rule(
        id=text_of(fields, "id", name, chars_max=100),
        reason=text_of(fields, "reason", name, chars_max=100),
        pattern=accept(fields.get("pattern"), name=name, ignore_case=not fields.get("case", False)),
        scope=choice_of(fields, "scope", name, SCOPES),
        role=choice_of(fields, "role", name, ROLES),
        priority=priority,
        category=Category(choice_of(fields, "category", name, CATEGORIES)),
        recoverable=recoverable,
        action=choice_of(fields, "action", name, ACTIONS),
        mitigation=text_of(fields, "mitigation", name, chars_max=2000),
        entity=choice_of(fields, "entity", name, ENTITIES),
        explains=texts_of(fields, "explains", name),
        origin=choice_of(fields, "origin", name, ("operator", "builtin", "learned", "acme")),
        positive=texts_of(fields, "positive", name),
        negative=texts_of(fields, "negative", name),
    )  # fmt: skip
    if rule.entity and rule.entity not in rule.pattern.compiled.groupindex:
        raise UsageError(f"{name}: the pattern has no group (?P<{rule.entity}>…) for the entity")
    _verify(rule, name)
    return rule


def _verify(rule: Rule, name: str) -> None:
    if not rule.positive and rule.origin != "acme":  # Acme's files have no examples
        raise UsageError(f"{name}: positive must hold an example at least")
    for example in rule.positive:
        if not rule.pattern.compiled.search(example):
            raise UsageError(f"{name}: the pattern does not match the positive {example!r:.120}")
        if not rule.pattern.may_match(example.lower()):
            raise UsageError(f"{name}: none of its words is in the positive {example!r:.120}")
    for example in rule.negative:
        if rule.pattern.compiled.search(example):
            raise UsageError(f"{name}: the pattern matches the negative {example!r:.120}")


def parse_rules(document: Any, name: str) -> tuple[Rule, ...]:
    """The rules of a document of the schema `penstock.diagnosis.rules`."""
    found = entries(document, schema=SCHEMA, field="rules", version=VERSION, name=name)
    if len(found) > RULES_MAX:
        raise UsageError(f"{name} has {len(found)} rules, more than {RULES_MAX}")
    return unique(parse_rule(one, f"{name}: rule {number}") for number, one in enumerate(found))


def unique(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules; raises UsageError if two have the same id."""
    named: dict[str, Rule] = {}
    for rule in rules:
        if rule.id in named:
            raise UsageError(f"two rules are called {rule.id!r}")
        named[rule.id] = rule
    return tuple(named.values())


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file that did not come with penstock: verified, and tried out for slowness.

    Raises:
        UsageError: the file or a rule of it is refused; the message says which and why.
    """
    rules = parse_rules(read_json(path), str(path))
    for name, why in slow_rules(rules).items():
        raise UsageError(f"{path}: rule {name!r} is refused: {why}")
    return rules


def slow_rules(rules: Iterable[Rule]) -> dict[str, str]:
    """Why a rule is refused that needs too long for lines, or tracebacks, made to be slow, by id.

    Raises:
        UsageError: the process that measures could not be run.
    """
    of_scope: dict[str, dict[str, Pattern]] = {scope: {} for scope in SCOPES}
    for rule in rules:
        of_scope[rule.scope][rule.id] = rule.pattern
    return try_out(of_scope["line"]) | try_out(of_scope["episode"], lines=KEPT_LINES)


def to_document(rules: Iterable[Rule]) -> dict[str, Any]:
    """What `parse_rules` reads."""
    return {"schema": SCHEMA, "version": VERSION, "rules": [one.to_dict() for one in rules]}
