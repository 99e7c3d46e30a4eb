"""The verdict: which of the findings is the root cause. Pure.

1. What was survived does not count: training made progress after it, more than what was in flight.
   Nor does what its writer called a warning or tries again.
2. Of what is left, the earliest root wins: by time where all findings show one, else by the order
   of logs and lines. A cascade (others' timeouts, the launcher's summary) counts where there is no
   root, and a confirmation is a root only where there is nothing else.
3. In one chain of tracebacks, or at one line, the rule of the highest priority speaks.
4. Hardware is often logged late, by the kernel: a finding that explains the winner takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..fingerprints import fingerprint
from ..strategy import FailoverStrategy
from .result import Category, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .scanner import Finding

UNKNOWN = "Unknown"
#: Steps that other ranks, and buffers, still finish after one of them has failed.
IN_FLIGHT = 8
EVIDENCE_MAX = 12
#: Rules below this name a kind of exception; those above it name a cause.
SPECIFIC = 40


def unknown(notes: Sequence[str] = ()) -> Diagnosis:
    """What is said of a failure that nothing explains: try again, within the usual budget."""
    evidence = tuple(notes[-EVIDENCE_MAX:])
    return Diagnosis(
        root_cause=UNKNOWN,
        category=Category.FRAMEWORK,
        recoverable=True,
        strategy=FailoverStrategy.NORMAL_FAILOVER,
        mitigation="No rule explains this log. Read the lines shown, or add a rule.",
        evidence=evidence,
        confidence=0.0,
        source="none",
        fingerprint=fingerprint(evidence[-1]) if evidence else "",
    )


def decide(
    findings: Sequence[Finding], progress: Mapping[int, int], notes: Sequence[str] = ()
) -> Diagnosis:
    """The diagnosis that findings amount to.

    Args:
        findings: what the scanner found.
        progress: by number of the log, how many lines of progress it has.
        notes: lines that look like trouble, for the case that no finding explains it.
    """
    ordered = _in_order(_spoken(findings))
    alive = not_survived(ordered, progress)
    hard = [one for one in alive if not one.soft]
    for pool, doubt in ((hard, 1.0), (alive, 0.5)):
        for role in ("root", "cascade", "confirmation"):
            if of_role := [one for one in pool if one.rule.role == role]:
                winner = _explained(of_role[0], pool)
                return _diagnosis(winner, ordered, alive, doubt if role == "root" else doubt * 0.6)
    if ordered:  # all of it was survived: the last one is the nearest to the end
        return _diagnosis(ordered[-1], ordered, alive, 0.25)
    return unknown(notes)


def not_survived(findings: Sequence[Finding], progress: Mapping[int, int]) -> list[Finding]:
    """Those after which training made no progress but for what was in flight; see `decide`."""
    return [one for one in findings if progress[one.log] - one.progress <= IN_FLIGHT]


def _spoken(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for each place: that of the rule with the highest priority."""
    best: dict[tuple[int, int, int], Finding] = {}
    for one in findings:
        place = (one.log, one.chain, 0) if one.chain else (one.log, 0, one.line)
        other = best.get(place)
        # Of a chain's exceptions that rank alike, the last one is what the program meant to say.
        if other is None or (one.rule.priority, one.line) > (other.rule.priority, other.line):
            best[place] = one
    return list(best.values())


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    if len({one.log for one in findings}) > 1 and all(one.when for one in findings):
        return sorted(findings, key=lambda one: (one.when or "", one.log, one.line))
    return sorted(findings, key=lambda one: (one.log, one.line))


def _explained(winner: Finding, pool: Sequence[Finding]) -> Finding:
    """Whatever explains the winner, or explains what explains it."""
    for _ in range(4):  # no chain of explanations is longer
        better = next((one for one in pool if winner.rule.reason in one.rule.explains), None)
        if better is None or better is winner:
            break
        winner = better
    return winner


def _diagnosis(
    winner: Finding, ordered: Sequence[Finding], alive: Sequence[Finding], doubt: float
) -> Diagnosis:
    rule = winner.rule
    confidence = (0.9 if rule.priority >= SPECIFIC else 0.6) * doubt
    same = [one for one in alive if one is not winner and one.rule.reason == rule.reason]
    if same and doubt == 1.0:
        confidence = min(confidence + 0.05, 0.95)
    after = dict.fromkeys(one.rule.reason for one in alive if one.rule.reason != rule.reason)
    others = [one.text for one in ordered if one is not winner and one in alive]
    evidence = dict.fromkeys([winner.text, *winner.context, *others])
    return Diagnosis(
        root_cause=rule.reason,
        category=rule.category,
        recoverable=rule.recoverable,
        strategy=rule.strategy,
        mitigation=rule.mitigation,
        evidence=tuple(evidence)[:EVIDENCE_MAX],
        confidence=round(confidence, 2),
        source=f"rule:{rule.id}",
        action=rule.action,
        entity=winner.entity,
        contributing=tuple(after)[:EVIDENCE_MAX],
        fingerprint=fingerprint(f"{rule.reason} {winner.text}"),
    )
