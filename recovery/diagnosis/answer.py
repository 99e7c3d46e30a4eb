"""What a language model answered: read with limits, checked, and made into a suggestion. Pure.

An answer is of a closed form: its fields are known, category and action are chosen from lists, and
each quote must stand in a line that was shown. A suggestion is never carried out. It stands beside
the verdict of the rules, its confidence is bounded, and the rule that it may bring goes to a file
that waits for a person's yes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ProtocolError
from ..fingerprints import fingerprint
from ..masking import mask_secrets
from .result import Category, Diagnosis
from .rules import ACTIONS, STRATEGIES

if TYPE_CHECKING:
    from .prompt import Question

SOURCE = "model"
#: A model that is sure of itself is not surer than a rule that names a kind of exception.
CONFIDENCE_MAX = 0.5
QUOTES_MAX = 5
_QUOTE_CHARS_MIN = 8
_TEXT_CHARS_MAX = 1000
_FIELDS = {
    "root_cause", "category", "recoverable", "action", "mitigation", "quotes", "confidence",
    "pattern",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,60}")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a model thinks.

    Attributes:
        diagnosis: in the form of a diagnosis, with "model" as its source.
        model: the model's name.
        pattern: of lines that show such a failure; "" if it suggests none.
    """

    diagnosis: Diagnosis
    model: str
    pattern: str = ""


def content_of(body: bytes) -> str:
    """The text of a chat completion.

    Raises:
        ProtocolError: the body is no chat completion with a text.
    """
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        content = None
    if not isinstance(content, str):
        raise ProtocolError("the model's server did not answer with a chat completion")
    return content


def read_answer(content: str, question: Question, model: str) -> Suggestion:
    """The suggestion that a text stands for.

    Args:
        content: what the model wrote.
        question: what it was asked.
        model: its name.

    Raises:
        ProtocolError: it is not of the form asked for, or quotes what was not shown; the message
            says what is wrong.
    """
    fenced = _FENCE.fullmatch(content)
    try:
        fields = json.loads(fenced[1] if fenced else content)
    except (ValueError, RecursionError):
        raise ProtocolError("it is not one JSON object") from None
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise ProtocolError(f"it must be an object with the fields {', '.join(sorted(_FIELDS))}")
    root_cause, confidence, pattern = fields["root_cause"], fields["confidence"], fields["pattern"]
    if not isinstance(root_cause, str) or not _NAME.fullmatch(root_cause):
        raise ProtocolError("root_cause must be one word of letters and digits")
    if not isinstance(fields["recoverable"], bool):
        raise ProtocolError("recoverable must be true or false")
    number = isinstance(confidence, (int, float)) and not isinstance(confidence, bool)
    if not number or not 0 <= confidence <= 1:  # which no NaN is
        raise ProtocolError("confidence must be a number from 0 to 1")
    if pattern is not None and not isinstance(pattern, str):
        raise ProtocolError("pattern must be null or a text")
    action = _chosen(fields, "action", ACTIONS)
    category = Category(_chosen(fields, "category", tuple(one.value for one in Category)))
    quotes = _quotes(fields["quotes"], question)
    return Suggestion(
        Diagnosis(
            root_cause=root_cause,
            category=category,
            recoverable=fields["recoverable"],
            strategy=STRATEGIES[action],
            mitigation=_plain(fields["mitigation"]),
            evidence=quotes,
            confidence=round(min(confidence, CONFIDENCE_MAX), 2),
            source=SOURCE,
            action=action,
            fingerprint=fingerprint(f"{root_cause} {quotes[0]}"),
        ),
        model,
        pattern or "",
    )


def _chosen(fields: dict[str, Any], name: str, values: tuple[str, ...]) -> str:
    value = fields[name]
    if not isinstance(value, str) or value not in values:
        raise ProtocolError(f"{name} must be one of {', '.join(values)}")
    return value


def _quotes(said: object, question: Question) -> tuple[str, ...]:
    """The lines that the quotes are from: whole, and as they were shown."""
    if not isinstance(said, list) or not 1 <= len(said) <= QUOTES_MAX:
        raise ProtocolError(f"quotes must be a list of 1 to {QUOTES_MAX} texts")
    found: dict[str, None] = {}
    for number, quote in enumerate(said, 1):
        line = None
        if isinstance(quote, str):
            line = next((one for one in question.lines if _holds(one, quote)), None)
        if line is None:
            raise ProtocolError(f"quote {number} is in none of the lines that were given")
        found[line] = None
    return tuple(found)


def _holds(line: str, quote: str) -> bool:
    quote = quote.strip()
    if len(quote) < _QUOTE_CHARS_MIN:
        return bool(quote) and quote == line.strip()
    return quote in line


def _plain(said: object) -> str:
    """One line of text without control characters: it is shown on terminals."""
    if not isinstance(said, str) or not said.strip():
        raise ProtocolError("mitigation must be a text")
    text = "".join(char if char.isprintable() else " " for char in said[:_TEXT_CHARS_MAX])
    return mask_secrets(" ".join(text.split()))
