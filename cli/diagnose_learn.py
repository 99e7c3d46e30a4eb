"""What `penstock diagnose` learns: routine lines, incidents and their outcome, rules."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..recovery.diagnosis.answer import Suggestion
    from ..recovery.diagnosis.rules import Rule


@dataclass(frozen=True, slots=True)
class Closing:
    """What a person says of an incident: its number, how it ended, and what it was."""

    number: int
    outcome: str
    note: str
    root_cause: str | None


def blocks_of_input(path: Path) -> Iterator[bytes]:
    """The content of a log in blocks; - is standard input."""
    from ..recovery.diagnosis.evaluate import BLOCK_BYTES, blocks_of

    if str(path) != "-":
        return blocks_of(path)
    return iter(lambda: sys.stdin.buffer.read(BLOCK_BYTES), b"")


def learn_routine(files: list[Path], pending: Path, rules: tuple[Rule, ...]) -> None:
    """Adds filters for the lines of good runs to a pending file."""
    from ..recovery.diagnosis.learning import learn_filters
    from ..recovery.diagnosis.pending import add_pending
    from ..recovery.diagnosis.scanner import lines_of

    lines = (line for path in files for some in lines_of(blocks_of_input(path)) for line in some)
    count = add_pending(pending, rules, filters=learn_filters(lines, rules))
    typer.echo(f"{count} filters in {pending}: read them, remove what is wrong, then accept")


def accept_learned(pending: Path, filters: list[Path], rules: list[Path]) -> None:
    """Moves what was learned to where it is used."""
    from ..recovery.diagnosis.entry import builtin_rules
    from ..recovery.diagnosis.pending import accept_pending

    if len(filters) > 1 or len(rules) > 1:
        raise UsageError("--accept takes one --filters FILE and one --rules FILE, to which it adds")
    added = accept_pending(
        pending, builtin_rules(), filters=next(iter(filters), None), rules=next(iter(rules), None)
    )
    typer.echo("{} filters and {} rules were added".format(*added))


def keep_rule_of_model(suggestion: Suggestion, pending: Path, rules: tuple[Rule, ...]) -> None:
    """Adds the rule that a model suggests to a pending file, or says why not."""
    from ..recovery.diagnosis.learning import learn_rule

    guess = suggestion.diagnosis
    if not suggestion.pattern:
        return
    try:
        rule = learn_rule(guess, suggestion.pattern, guess.evidence, name="the model's rule")
    except UsageError as error:
        typer.echo(f"warning: {error}", err=True)
        return
    _keep(rule, pending, rules, "the model's rule")


def close_incident(
    incidents: Path | None, closing: Closing, pending: Path | None, rules: tuple[Rule, ...]
) -> None:
    """Stores how an incident ended, and learns a rule of it if there is a file for that."""
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.learning import learn_from_incident

    if incidents is None:
        raise UsageError("--close needs --incidents FILE")
    store = Incidents(incidents)
    store.close(closing.number, closing.outcome, closing.note, root_cause=closing.root_cause)
    one = store.get(closing.number)
    typer.echo(f"incident {one.number}: {one.root_cause}, {one.outcome}")
    if pending is None or one.outcome == "open":
        return
    past = [other for other in store.newest(1000) if other.number != one.number]
    try:
        rule = learn_from_incident(one, past, rules)
    except UsageError as error:
        typer.echo(f"nothing is learned: {error}", err=True)
        return
    _keep(rule, pending, rules, "a rule of it")


def _keep(rule: Rule, pending: Path, rules: tuple[Rule, ...], what: str) -> None:
    from ..recovery.diagnosis.pending import add_pending

    if add_pending(pending, rules, rules=[rule]):
        typer.echo(f"{what}, {rule.id}, waits in {pending}: read it first", err=True)


def list_incidents(incidents: Path, json: bool) -> None:
    """Prints the newest incidents, with --json an object a line."""
    from ..recovery.diagnosis.incidents import Incidents

    if not incidents.exists():
        raise UsageError(f"{incidents} does not exist")
    for one in Incidents(incidents).newest():
        if json:
            typer.echo(jsonlib.dumps(one.to_dict()))
            continue
        clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at_unix_s))
        guess = (
            f", the model {one.model} said {one.suggestion.root_cause}" if one.suggestion else ""
        )
        note = f" ({one.note})" if one.note else ""
        typer.echo(f"{one.number:5} {clock} {one.root_cause}{guess}: {one.outcome}{note}")
