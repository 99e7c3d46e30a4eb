"""Learning: filters from runs that went well, rules from failures whose root cause is known.

Lines of a good run that look like trouble are routine: their templates become filters; whatever
would hide a known error is left out. Lines of a failure that was understood become a rule, unless
it would find routine lines, too. Nothing is used before a person has said yes (`pending`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ...errors import UsageError
from ..fingerprints import fingerprint
from .filters import Filter, parse_filter
from .lines import cut
from .regexes import accept
from .rules import Rule, parse_rule
from .screen import NOTABLE
from .templates import Miner, to_pattern, to_phrase
from .trial import try_out
from .verdict import SPECIFIC, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .incidents import Incident
    from .result import Diagnosis

#: A template of fewer lines may be a coincidence.
LINES_MIN = 3
FILTERS_MAX = 200
_EXAMPLES_MAX = 5
#: Lines that no learned rule may find.
ROUTINE = (
    "2026-03-02 04:00:03,120 INFO trainer step=1200 loss=2.3127 lr=1.0e-4 tokens/s=8123",
    "[rank0]: 2026-03-02 04:00:03 Epoch 3/90 batch 17/500 loss 0.731 accuracy 0.802",
    "I0302 04:00:03.120000 4711 loader.py:88] shard-000017.tar opened, 4 workers, 0 errors",
    "WARNING: the checkpoint in /data/run/ckpt-1200 is overwritten",
    "gpu01:811:902 [0] NCCL INFO Channel 00/32 : 0[0] -> 1[1] via P2P/IPC/read",
    "INFO dispatcher.service: worker w3 registered at 10.0.0.3:5051, error_rate=0",
    "Traceback (most recent call last):",
    '  File "train.py", line 7, in main',
)


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


def learn_rule(found: Diagnosis, pattern: str, lines: Iterable[str], *, name: str) -> Rule:
    """A rule for failures like one of which the root cause is known.

    Args:
        found: what is known of it: whatever the rule says is taken from here.
        pattern: of the lines that show it.
        lines: those that the failure was seen in; its positive examples are among them.
        name: what the rule is called in an error.

    Raises:
        UsageError: the pattern is refused, may run for ever, matches none of the lines, would find
            routine lines, or holds no word.
    """
    search = accept(pattern, name=name).compiled.search
    examples = [line for line in dict.fromkeys(lines) if search(line)]
    made = parse_rule(
        {
            "id": f"learned-{fingerprint(pattern)}",
            "reason": found.root_cause,
            "pattern": pattern,
            "role": "root",
            "category": found.category.value,
            "recoverable": found.recoverable,
            "action": found.action or ("retry" if found.recoverable else "abort"),
            "mitigation": found.mitigation,
            "positive": examples[:_EXAMPLES_MAX],
            "origin": "learned",
        },
        name,
    )
    if not made.pattern.words:
        raise UsageError(f"{name} is refused: its pattern asks for no word of three letters")
    for line in ROUTINE:
        if made.pattern.compiled.search(line):
            raise UsageError(f"{name} is refused: it would find the routine line {line!r:.120}")
    for why in try_out({made.id: made.pattern}).values():
        raise UsageError(f"{name} is refused: {why}")
    return made


def learn_from_incident(one: Incident, past: Iterable[Incident], rules: Iterable[Rule]) -> Rule:
    """A rule for failures like an incident whose root cause a person has confirmed.

    What incidents of the same root cause have in common is its pattern; what is to be done comes
    from the rules of that root cause, else from what a model said of it, else from the incident.

    Args:
        one: the incident, closed.
        past: others, of which the closed ones count: the rule must find none of another root cause.
        rules: which are in use.

    Raises:
        UsageError: a rule finds such failures already, or the one that was made is refused.
    """
    name = f"the rule of incident {one.number}"
    if not one.diagnosis.evidence or one.root_cause == UNKNOWN:
        raise UsageError(f"{name}: give the root cause that it was, and lines that show it")
    if one.diagnosis.root_cause == one.root_cause:
        raise UsageError(f"{name} is not needed: {one.diagnosis.source} finds such failures")
    past, rules = [other for other in past if other.outcome != "open"], tuple(rules)
    line = _decisive(one.diagnosis)
    alike = [_decisive(other.diagnosis) for other in past if other.root_cause == one.root_cause]
    miner = Miner()
    for text in (*alike, line):
        template = miner.add(text)
    made = learn_rule(_known(one, rules), to_phrase(template), [line, *alike], name=name)
    search = made.pattern.compiled.search
    for other in past:
        if other.root_cause != one.root_cause and search(_decisive(other.diagnosis)):
            raise UsageError(f"{name} is refused: it would find incident {other.number}, too")
    for rule in rules:
        specific = rule.reason != made.reason and rule.priority >= SPECIFIC
        if specific and any(map(search, rule.positive)):
            raise UsageError(f"{name} is refused: it would find what rule {rule.id} is for")
    return made


def _decisive(diagnosis: Diagnosis) -> str:
    """The line that shows it: of lines that only look like trouble, the last one."""
    if not diagnosis.evidence:
        return ""
    return diagnosis.evidence[0 if diagnosis.confidence else -1]


def _known(one: Incident, rules: Iterable[Rule]) -> Diagnosis:
    """What a rule of the incident's root cause is to say."""
    found = one.diagnosis
    same = [rule for rule in rules if rule.reason == one.root_cause]
    if same:
        best = max(same, key=lambda rule: rule.priority)
        found = dataclasses.replace(
            found, category=best.category, recoverable=best.recoverable, action=best.action,
            mitigation=best.mitigation,
        )  # fmt: skip
    elif one.suggestion is not None and one.suggestion.root_cause == one.root_cause:
        found = one.suggestion
    elif not found.confidence:
        helped = one.outcome == "recovered"
        found = dataclasses.replace(
            found, recoverable=helped, action="retry" if helped else "abort",
            mitigation=f"It was {one.outcome} before: {one.note or 'nobody wrote how'}.",
        )  # fmt: skip
    return dataclasses.replace(
        found, root_cause=one.root_cause, mitigation=one.note or found.mitigation
    )
