"""Learning: filters from runs that went well, rules from failures whose root cause is known.

Lines of a good run that look like trouble are routine: their templates become filters; whatever
would hide a known error is left out. Lines of a failure that was understood become a rule, unless
it would find routine lines, too. Nothing is used before a person has said yes (`pending`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UsageError
from .filters import Filter, parse_filter
from .lines import cut
from .regexes import accept
from .rules import Rule, parse_rule
from .scanner import NOTABLE
from .templates import Miner, fingerprint, to_pattern
from .trial import try_out

if TYPE_CHECKING:
    from collections.abc import Iterable

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
