"""`penstock diagnose`: the root cause that logs tell of."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..recovery.diagnosis import Diagnosis
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.incidents import Incident
    from ..recovery.diagnosis.rules import Rule

_Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE…", help="Logs, for one of all ranks; - is standard input."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Rules = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="More rules, beside the built-in ones. May be repeated."),
]
_Filters = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Patterns of routine lines.")
]
_AcmeRules = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Acme's diagnosis_rules.json, as more rules.")
]
_AcmeFilters = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Acme's filter_rules.json, as more filters.")
]
_Evaluate = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Instead: diagnose every REASON-NUMBER.log of it, and show how often the rules are"
        " right.",
    ),
]


_Learn = Annotated[
    Path | None,
    typer.Option(
        metavar="PENDING",
        help="Instead: the logs are of runs that went well; write filters for what looks like"
        " trouble in them to this file, for you to read.",
    ),
]
_Incidents = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Past incidents: show the ones most like this, and store this one."
    ),
]
_Accept = Annotated[
    Path | None,
    typer.Option(
        metavar="PENDING", help="Instead: add the filters of this file to that of --filters."
    ),
]


def diagnose(
    files: _Files = None,
    json: _Json = False,
    rules: _Rules = None,
    filters: _Filters = None,
    acme_rules: _AcmeRules = None,
    acme_filters: _AcmeFilters = None,
    evaluate: _Evaluate = None,
    learn: _Learn = None,
    accept: _Accept = None,
    incidents: _Incidents = None,
) -> None:
    """Says what made a training or a service fail, from its logs, by rules.

    The earliest root cause after the last progress wins over what followed from it, such as the
    timeouts of other ranks and the launcher's report. Logs of any size are read once, in bounded
    memory; nothing leaves this machine.

        penstock diagnose rank*.log
        penstock diagnose --json worker.log | jq .root_cause
        tail -n 100000 big.log | penstock diagnose -
        penstock diagnose good-run.log --learn pending.json
        penstock diagnose --accept pending.json --filters filters.json

    Rules are data, described in docs/diagnosis.md. A rule file is refused as a whole if one of its
    rules contradicts its own examples or has a pattern that may run for ever.

    Exit codes: 0 a root cause was found, 1 none was (or, with --evaluate, an answer was wrong), 2
    a file cannot be read or is refused.
    """
    if sum(map(bool, (evaluate, files, accept))) != 1 or (learn is not None and not files):
        raise UsageError("give either logs (with --learn or without), --evaluate or --accept")
    if accept is not None:
        _accept(accept, filters or [])
        return
    known, routine = _rules(rules or [], filters or [], acme_rules, acme_filters)
    if evaluate is not None:
        _evaluate(evaluate, known, routine, json)
        return
    if learn is not None:
        _learn(files or [], learn, known)
        return
    from ..recovery.diagnosis.entry import diagnose_logs

    found = diagnose_logs(map(_blocks, files or []), rules=known, filters=routine)
    past = _past(incidents, found)
    document = {**_document(found), "similar": [dataclasses.asdict(one) for one in past]}
    typer.echo(jsonlib.dumps(document) if json else _text(found))
    for one in past if not json else ():
        note = f" ({one.note})" if one.note else ""
        typer.echo(
            f"like incident {one.number}: {one.root_cause}, {one.outcome}{note};"
            f" similarity {one.similarity:.0%}"
        )
    if not found.confidence:
        raise typer.Exit(1)


def _past(path: Path | None, found: Diagnosis) -> list[Incident]:
    """Incidents like this one, which is then stored if anything is known of it."""
    if path is None:
        return []
    from ..recovery.diagnosis.incidents import Incidents

    store = Incidents(path)
    past = store.similar(found)
    if found.evidence:
        typer.echo(f"stored as incident {store.add(found)} in {path}", err=True)
    return past


def _learn(files: list[Path], pending: Path, rules: tuple[Rule, ...]) -> None:
    from ..recovery.diagnosis.learning import learn_filters, write_pending
    from ..recovery.diagnosis.scanner import lines_of

    lines = (line for path in files for some in lines_of(_blocks(path)) for line in some)
    learned = learn_filters(lines, rules)
    write_pending(pending, learned)
    typer.echo(f"{len(learned)} filters in {pending}: read them, remove what is wrong, then accept")


def _accept(pending: Path, filters: list[Path]) -> None:
    from ..recovery.diagnosis.entry import builtin_rules
    from ..recovery.diagnosis.learning import accept_pending

    if len(filters) != 1:
        raise UsageError("--accept needs one --filters FILE, to which it adds")
    typer.echo(f"{accept_pending(pending, filters[0], builtin_rules())} filters were added")


def _blocks(path: Path) -> Iterator[bytes]:
    from ..recovery.diagnosis.evaluate import BLOCK_BYTES, blocks_of

    if str(path) != "-":
        return blocks_of(path)
    return iter(lambda: sys.stdin.buffer.read(BLOCK_BYTES), b"")


def _rules(
    rules: list[Path], filters: list[Path], acme_rules: Path | None, acme_filters: Path | None
) -> tuple[tuple[Rule, ...], tuple[Filter, ...]]:
    from ..recovery.diagnosis.acme import import_filters, import_rules
    from ..recovery.diagnosis.documents import read_json
    from ..recovery.diagnosis.entry import builtin_rules
    from ..recovery.diagnosis.filters import load_filters
    from ..recovery.diagnosis.rules import load_rules, unique

    known = list(builtin_rules())
    for path in rules:
        known += load_rules(path)
    refused: list[str] = []
    if acme_rules is not None:
        imported, refused = import_rules(read_json(acme_rules))
        known += imported
    routine: list[Filter] = []
    for path in filters:
        routine += load_filters(path, known)
    if acme_filters is not None:
        more, why = import_filters(read_json(acme_filters), known)
        routine += more
        refused = [*refused, *why]
    for reason in refused:
        typer.echo(f"warning: left out: {reason}", err=True)
    return unique(known), tuple(routine)


def _document(found: Diagnosis) -> dict[str, Any]:
    document = dataclasses.asdict(found)
    document.update(category=found.category.value, strategy=found.strategy.value)
    return document


def _text(found: Diagnosis) -> str:
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
    return "\n".join([*lines, *(f"  | {line}" for line in found.evidence)])


def _evaluate(
    directory: Path, rules: tuple[Rule, ...], filters: tuple[Filter, ...], json: bool
) -> None:
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
