"""`penstock diagnose`: the root cause that logs tell of."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PenstockError, UsageError
from ..timing import Timing
from .diagnose_follow import follow_logs
from .diagnose_show import document_of, incident_line, show_evaluation, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..recovery.diagnosis import Diagnosis
    from ..recovery.diagnosis.answer import Suggestion
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.incidents import Incident
    from ..recovery.diagnosis.model import Model
    from ..recovery.diagnosis.rules import Rule
    from ..recovery.diagnosis.scanner import Scanner

_SETTLE_S = Timing().settle_s

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
        metavar="PENDING",
        help="Instead: add what was learned, of this file, to those of --filters and --rules.",
    ),
]
_Pending = Annotated[
    Path | None,
    typer.Option(
        metavar="PENDING", help="Where a rule that the model suggests waits for --accept."
    ),
]
_ModelUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A server of OpenAI's chat completions, such as http://127.0.0.1:8000/v1, that is"
        " asked where rules are not sure; it gets masked lines of the logs. Or PENSTOCK_MODEL_URL.",
    ),
]
_Model = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model. Or PENSTOCK_MODEL.")
]
_ModelKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file that holds its key. Or PENSTOCK_MODEL_KEY: the key."),
]
_ModelBelow = Annotated[
    float,
    typer.Option(min=0, max=1, help="Ask where the rules' confidence is less; 1: always."),
]
_Follow = Annotated[
    bool,
    typer.Option(
        "--follow",
        "-f",
        help="Go on reading, also where a file is cut or replaced, and print each failure when"
        " nothing more of it comes; with --json an object a line. Ends with Ctrl-C.",
    ),
]
_Settle = Annotated[
    float, typer.Option(min=0, help="With --follow: seconds without more of a failure.")
]
_ModelDeadline = Annotated[float, typer.Option(help="Seconds for all of the model's answer.")]


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
    follow: _Follow = False,
    settle: _Settle = _SETTLE_S,
    incidents: _Incidents = None,
    pending: _Pending = None,
    model_url: _ModelUrl = None,
    model: _Model = None,
    model_key_file: _ModelKey = None,
    model_below: _ModelBelow = 0.7,
    model_deadline: _ModelDeadline = 30.0,
) -> None:
    """Says what made a training or a service fail, from its logs, by rules.

    The earliest root cause after the last progress wins over what followed from it, such as the
    timeouts of other ranks. Logs of any size are read once, in bounded memory; nothing leaves this
    machine unless --model-url is given. A model's answer is a suggestion: it is shown beside the
    verdict of the rules, and only if what it quotes is in the log.

        penstock diagnose rank*.log
        tail -n 100000 big.log | penstock diagnose --json - | jq .root_cause
        penstock diagnose --follow rank*.log
        penstock diagnose good-run.log --learn pending.json
        penstock diagnose --accept pending.json --filters filters.json --rules rules.json

    Rules are data, described in docs/diagnosis.md. A rule file is refused as a whole if one of its
    rules contradicts its own examples or has a pattern that may run for ever.

    Exit codes: 0 a root cause was found, 1 none was (or, with --evaluate, an answer was wrong), 2
    a file cannot be read or is refused, 130 --follow was interrupted.
    """
    if follow and (not files or learn or model_url):
        raise UsageError("--follow needs logs, and neither learns nor asks a model")
    if sum(map(bool, (evaluate, files, accept))) != 1 or (learn is not None and not files):
        raise UsageError("give either logs (with --learn or without), --evaluate or --accept")
    if accept is not None:
        _accept(accept, filters or [], rules or [])
        return
    known, routine = _rules(rules or [], filters or [], acme_rules, acme_filters)
    if evaluate is not None:
        if not show_evaluation(evaluate, known, routine, json):
            raise typer.Exit(1)
    elif learn is not None:
        _learn(files or [], learn, known)
    elif follow:
        follow_logs(files or [], known, routine, settle_s=settle, json=json, incidents=incidents)
    else:
        asked = _model(model_url, model, model_key_file, model_below, model_deadline)
        _diagnose(files or [], known, routine, asked, _Output(json, incidents, pending))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model, and where rules are sure enough not to ask it."""

    model: Model
    below: float


@dataclass(frozen=True, slots=True)
class _Output:
    """Where a diagnosis goes."""

    json: bool
    incidents: Path | None
    pending: Path | None


def _model(
    url: str | None, name: str | None, key_file: Path | None, below: float, deadline_s: float
) -> _Asked | None:
    from ..recovery.diagnosis.model import model_of

    model = model_of(url, name, key_file, deadline_s=deadline_s)
    return None if model is None else _Asked(model, below)


def _diagnose(
    files: list[Path],
    rules: tuple[Rule, ...],
    filters: tuple[Filter, ...],
    asked: _Asked | None,
    output: _Output,
) -> None:
    from ..recovery.diagnosis.entry import scan_logs, verdict_of
    from ..recovery.diagnosis.incidents import Incidents

    scanner = scan_logs(map(_blocks, files), rules=rules, filters=filters)
    found = verdict_of(scanner)
    store = None if output.incidents is None else Incidents(output.incidents)
    past = [] if store is None else store.similar(found)
    suggestion = None
    if asked is not None and (found.confidence < asked.below or asked.below == 1):
        suggestion = _ask(asked.model, scanner, found, past, rules)
    if store is not None and found.evidence:
        number = store.add(found, suggestion=suggestion)
        typer.echo(f"stored as incident {number} in {output.incidents}", err=True)
    if output.json:
        similar = [dataclasses.asdict(one) for one in past]
        typer.echo(jsonlib.dumps({**document_of(found, suggestion), "similar": similar}))
    else:
        typer.echo("\n".join([text_of(found, suggestion), *map(incident_line, past)]))
    if suggestion is not None and output.pending is not None:
        _keep_rule(suggestion, output.pending, rules)
    if not found.confidence:
        raise typer.Exit(1)


def _ask(
    model: Model,
    scanner: Scanner,
    found: Diagnosis,
    past: list[Incident],
    rules: tuple[Rule, ...],
) -> Suggestion | None:
    """What the model suggests; None, with a warning, if there is nothing to be had from it."""
    from ..recovery.diagnosis.model import ask
    from ..recovery.diagnosis.prompt import question_of

    question = question_of(
        found,
        notes=scanner.notes,
        tail=scanner.tail,
        similar=past,
        reasons=(rule.reason for rule in rules),
        secrets=(model.key,),
    )
    if not question.lines:
        return None
    try:
        return ask(model, question)
    except PenstockError as error:
        typer.echo(f"warning: no suggestion: {error}", err=True)
        return None


def _keep_rule(suggestion: Suggestion, pending: Path, rules: tuple[Rule, ...]) -> None:
    from ..recovery.diagnosis.learning import learn_rule
    from ..recovery.diagnosis.pending import add_pending

    if not suggestion.pattern:
        return
    guess = suggestion.diagnosis
    try:
        rule = learn_rule(guess, suggestion.pattern, guess.evidence, name="the model's rule")
    except UsageError as error:
        typer.echo(f"warning: {error}", err=True)
        return
    if add_pending(pending, rules, rules=[rule]):
        typer.echo(f"the model's rule {rule.id} waits in {pending}: read it first", err=True)


def _learn(files: list[Path], pending: Path, rules: tuple[Rule, ...]) -> None:
    from ..recovery.diagnosis.learning import learn_filters
    from ..recovery.diagnosis.pending import add_pending
    from ..recovery.diagnosis.scanner import lines_of

    lines = (line for path in files for some in lines_of(_blocks(path)) for line in some)
    count = add_pending(pending, rules, filters=learn_filters(lines, rules))
    typer.echo(f"{count} filters in {pending}: read them, remove what is wrong, then accept")


def _accept(pending: Path, filters: list[Path], rules: list[Path]) -> None:
    from ..recovery.diagnosis.entry import builtin_rules
    from ..recovery.diagnosis.pending import accept_pending

    if len(filters) > 1 or len(rules) > 1:
        raise UsageError("--accept takes one --filters FILE and one --rules FILE, to which it adds")
    added = accept_pending(
        pending, builtin_rules(), filters=next(iter(filters), None), rules=next(iter(rules), None)
    )
    typer.echo("{} filters and {} rules were added".format(*added))


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
