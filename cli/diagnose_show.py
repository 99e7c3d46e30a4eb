"""How `penstock diagnose` shows what it found."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..recovery.diagnosis import Diagnosis
    from ..recovery.diagnosis.answer import Suggestion
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.incidents import Incident
    from ..recovery.diagnosis.rules import Rule


@dataclass(frozen=True, slots=True)
class Output:
    """Where a diagnosis goes.

    Attributes:
        json: whether it is printed as an object.
        incidents: where it is stored, if anywhere.
        pending: where a rule of it waits, if anywhere.
        alert_url_file: holds the URL of a webhook.
    """

    json: bool
    incidents: Path | None
    pending: Path | None
    alert_url_file: Path | None


def document_of(found: Diagnosis, suggestion: Suggestion | None = None) -> dict[str, Any]:
    """The verdict of the rules; what a model suggests stands beside it."""
    suggested = None
    if suggestion is not None:
        suggested = {**suggestion.diagnosis.to_dict(), "model": suggestion.model}
    return {**found.to_dict(), "suggestion": suggested}


def text_of(found: Diagnosis, suggestion: Suggestion | None = None) -> str:
    """The same for people."""
    lines = [
        f"root cause   {found.root_cause} ({found.category.value})",
        f"confidence   {found.confidence:.0%}, by {found.source}",
        f"recoverable  {'yes' if found.recoverable else 'no'}; {found.strategy.value}",
    ]
    if found.entity:
        lines.append(f"what         {found.entity}")
    if found.contributing:
        lines.append(f"beside it    {', '.join(found.contributing)}")
    lines += [f"what to do   {found.mitigation}", "evidence"]
    lines += [f"  | {line}" for line in found.evidence]
    if suggestion is not None:
        guess = suggestion.diagnosis
        lines += [
            f"suggestion   {guess.root_cause} ({guess.category.value}), {guess.confidence:.0%}, by"
            f" the model {suggestion.model}: not verified, nothing acts on it",
            f"  what to do {guess.mitigation}",
            *(f"  | {line}" for line in guess.evidence),
        ]
    return "\n".join(lines)


def incident_line(one: Incident) -> str:
    """A past incident in one line."""
    note = f" ({one.note})" if one.note else ""
    return (
        f"like incident {one.number}: {one.root_cause}, {one.outcome}{note};"
        f" similarity {one.similarity:.0%}"
    )


def show_evaluation(
    directory: Path, rules: tuple[Rule, ...], filters: tuple[Filter, ...], json: bool
) -> None:
    """Prints how often the rules are right on the logs of a directory; exits with 1 if not always.

    Raises:
        typer.Exit: an answer is wrong.
    """
    from ..recovery.diagnosis.evaluate import by_reason, evaluate

    answers = evaluate(directory, rules=rules, filters=filters)
    wrong = [one for one in answers if not one.right]
    table = by_reason(answers)
    if json:
        typer.echo(
            jsonlib.dumps(
                {
                    "right": len(answers) - len(wrong),
                    "total": len(answers),
                    "by_reason": {name: list(counts) for name, counts in table.items()},
                    "wrong": {one.path.name: one.diagnosis.root_cause for one in wrong},
                }
            )
        )
    else:
        for name, (right, total) in sorted(table.items()):
            typer.echo(f"{name:32} {right:3} of {total:3}")
        for one in wrong:
            typer.echo(f"wrong: {one.path.name} was taken for {one.diagnosis.root_cause}")
        typer.echo(f"right: {len(answers) - len(wrong)} of {len(answers)}")
    if wrong:
        raise typer.Exit(1)
