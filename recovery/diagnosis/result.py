"""What a diagnosis says."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...errors import UsageError
from ..strategy import FailoverStrategy

_KINDS: dict[str, type | tuple[type, ...]] = {"recoverable": bool, "confidence": (int, float)}


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


def diagnosis_of(text: str, name: str) -> Diagnosis:
    """What `json.dumps(diagnosis.to_dict())` wrote.

    Raises:
        UsageError: it did not write that; `name` says in the error what is damaged.
    """
    try:
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(Diagnosis)}
        if not isinstance(fields, dict) or set(fields) != names:
            raise ValueError("its fields are others")
        for name_of_field, value in fields.items():
            if name_of_field in ("evidence", "contributing"):
                fields[name_of_field] = tuple(map(str, value))
            elif not isinstance(value, _KINDS.get(name_of_field, str)):
                raise ValueError(f"{name_of_field} is of another kind")
        fields["category"] = Category(fields["category"])
        fields["strategy"] = FailoverStrategy(fields["strategy"])
        return Diagnosis(**fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{name} is no diagnosis: {error}") from None
