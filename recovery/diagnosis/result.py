"""What a diagnosis says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..strategy import FailoverStrategy


class Category(str, Enum):
    """Whose fault a failure is (Acme's four)."""

    INFRASTRUCTURE = "infrastructure"
    FRAMEWORK = "framework"
    SCRIPT = "script"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The root cause of a failure.

    Attributes:
        root_cause: its name, such as "OutOfMemory".
        category: whose fault it is.
        recoverable: whether trying again may help.
        strategy: what to do about it.
        mitigation: what a person can do about it, a sentence or two.
        evidence: the log lines that show it, the first one first.
        confidence: from 0 to 1.
        source: what said so: "rule:NAME", "model" or "none".
        action: what exactly would help: one of `rules.ACTIONS`; "" if nothing is known.
        entity: what it happened to, such as "device:0000:3b:00" or "split:17"; "" if not known.
        contributing: names of what followed from it, or that was seen beside it.
        fingerprint: the same for failures that look the same; "" without evidence.
    """

    root_cause: str
    category: Category
    recoverable: bool
    strategy: FailoverStrategy
    mitigation: str
    evidence: tuple[str, ...]
    confidence: float
    source: str
    action: str = ""
    entity: str = ""
    contributing: tuple[str, ...] = ()
    fingerprint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON has them."""
        document = dataclasses.asdict(self)
        document.update(category=self.category.value, strategy=self.strategy.value)
        return document
