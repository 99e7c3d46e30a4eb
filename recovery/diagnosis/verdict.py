"""The verdict when nothing is known, and what others build on."""

from __future__ import annotations

from ..strategy import FailoverStrategy
from .result import Category, Diagnosis

UNKNOWN = "Unknown"


def unknown(evidence: tuple[str, ...] = ()) -> Diagnosis:
    """What is said of a failure that nothing explains: try again, within the usual budget."""
    return Diagnosis(
        root_cause=UNKNOWN,
        category=Category.FRAMEWORK,
        recoverable=True,
        strategy=FailoverStrategy.NORMAL_FAILOVER,
        mitigation="No rule explains this log. Read the lines shown, or add a rule.",
        evidence=evidence,
        confidence=0.0,
        source="none",
    )
