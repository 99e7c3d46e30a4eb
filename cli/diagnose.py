"""`penstock diagnose`: the root cause that logs tell of."""

from __future__ import annotations

import json as jsonlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PenstockError, UsageError
from ..timing import Timing
from .diagnose_follow import follow_logs
from .diagnose_learn import (
    Closing,
    accept_learned,
    blocks_of_input,
    close_incident,
    keep_rule_of_model,
    learn_routine,
    list_incidents,
)
from .diagnose_show import Output, document_of, incident_line, show_evaluation, text_of

if TYPE_CHECKING:
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
        metavar="FILE",
        help="Past incidents: show the ones most like this, and store this one; without logs:"
        " list them.",
    ),
]
_Close = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", help="Instead: say how an incident of --incidents ended."),
]
_Outcome = Annotated[
    str, typer.Option(metavar="OUTCOME", help="With --close: recovered, 'not recovered', or open.")
]
_Note = Annotated[str, typer.Option(metavar="TEXT", help="With --close: what was done about it.")]
_RootCause = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="With --close: what it was, if rules did not see it."),
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
        metavar="PENDING",
        help="Where rules wait for --accept: the model's, and with --close the incident's.",
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
_AlertUrlFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --follow: holds the URL of a webhook, to which each failure is posted. Or"
        " PENSTOCK_ALERT_URL.",
    ),
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
    alert_url_file: _AlertUrlFile = None,
    incidents: _Incidents = None,
    close: _Close = None,
    outcome: _Outcome = "recovered",
    note: _Note = "",
    root_cause: _RootCause = None,
    pending: _Pending = None,
    model_url: _ModelUrl = None,
    model: _Model = None,
    model_key_file: _ModelKey = None,
    model_below: _ModelBelow = 0.7,
    model_deadline: _ModelDeadline = 30.0,
) -> None:
    """Says what made a training or a service fail, from its logs, by rules.

    The earliest root cause after the last progress wins over what followed from it, such as the
    timeouts of other ranks. Logs of any size are read once, in bounded memory. Nothing leaves this
    machine without --model-url, and a model only suggests.

        penstock diagnose rank*.log
        penstock diagnose --incidents incidents.db --close 17
        penstock diagnose --accept pending.json --filters filters.json --rules rules.json

    Rules are data (docs/diagnosis.md). Exit codes: 0 a root cause was found, 1 none was (or, with
    --evaluate, an answer was wrong), 2 a file is refused, 130 --follow was interrupted.
    """
    output = Output(json, incidents, pending, alert_url_file)
    closing = None if close is None else Closing(close, outcome, note, root_cause)
    _check_modes(files or None, (evaluate, accept, closing), incidents)
    _check_follow(follow, learn, files, model_url)
    _check_effect(follow, alert_url_file, closing, {"--note": note, "--root-cause": root_cause})
    _check_numbers({"--settle": settle, "--model-below": model_below})
    if accept is not None:
        return accept_learned(accept, filters or [], rules or [])
    known, routine = _rules(rules or [], filters or [], acme_rules, acme_filters)
    if evaluate is not None:
        show_evaluation(evaluate, known, routine, json)
    elif closing is not None:
        close_incident(incidents, closing, pending, known)
    elif not files and incidents is not None:
        list_incidents(incidents, json)
    elif learn is not None:
        learn_routine(files or [], learn, known)
    elif follow:
        follow_logs(files or [], known, routine, settle, output)
    else:
        asking = model_url, model, model_key_file, model_below, model_deadline
        _diagnose(files or [], known, routine, _model(*asking), output)


def _check_modes(
    files: list[Path] | None, others: tuple[object, ...], incidents: Path | None
) -> None:
    """Refuses what asks for several things, or for nothing."""
    modes = sum(mode is not None for mode in (files, *others))
    if modes > 1 or (not modes and incidents is None):
        raise UsageError(
            "give either logs (with --learn or --follow, or without), --evaluate, --accept,"
            " --incidents FILE --close NUMBER, or --incidents FILE alone"
        )


def _check_follow(
    follow: bool, learn: Path | None, files: list[Path] | None, model_url: str | None
) -> None:
    if ((follow or learn) and not files) or (follow and (learn or model_url)):
        raise UsageError("--follow and --learn need logs; --follow neither learns nor asks a model")


def _check_numbers(given: dict[str, float]) -> None:
    """Refuses nan and inf, which no bound of an option keeps out."""
    for name, value in given.items():
        if not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value}")


def _check_effect(
    follow: bool,
    alert_url_file: Path | None,
    closing: Closing | None,
    of_closing: dict[str, str | None],
) -> None:
    """Refuses options that mean something only with another one, which is not there."""
    if alert_url_file is not None and not follow:
        raise UsageError("--alert-url-file needs --follow")
    for name, value in of_closing.items():
        if value and closing is None:
            raise UsageError(f"{name} needs --close")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model, and where rules are sure enough not to ask it."""

    model: Model
    below: float


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
    output: Output,
) -> None:
    from ..recovery.diagnosis.entry import scan_logs, verdict_of
    from ..recovery.diagnosis.incidents import Incidents

    scanner = scan_logs(map(blocks_of_input, files), rules=rules, filters=filters)
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
        similar = [one.to_dict() for one in past]
        typer.echo(jsonlib.dumps({**document_of(found, suggestion), "similar": similar}))
    else:
        typer.echo("\n".join([text_of(found, suggestion), *map(incident_line, past)]))
    if suggestion is not None and output.pending is not None:
        keep_rule_of_model(suggestion, output.pending, rules)
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
