"""`penstock diagnose --follow`: failures in logs that are still being written."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import UsageError
from ..timing import Timing
from .diagnose_advise import Adviser
from .diagnose_learn import keep_rule_of_model
from .diagnose_show import Output, document_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..recovery.alerts import Alerts
    from ..recovery.diagnosis.answer import Suggestion
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.follow import Stop
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.rules import Rule
    from ..recovery.diagnosis.watch import Told
    from .diagnose_advise import Asked

#: What is left to be posted at the end is given so long.
_ALERTS_S = 5.0


def follow_logs(
    files: list[Path],
    rules: tuple[Rule, ...],
    filters: tuple[Filter, ...],
    settle_s: float,
    output: Output,
    asked: Asked | None = None,
) -> None:
    """Prints failures as they come, until it is interrupted or standard input ends.

    A model that is configured is asked beside that; see `diagnose_advise`.

    Raises:
        UsageError: a file cannot be read, or is named twice.
        typer.Exit: with 130 if it was interrupted, 1 if no root cause was found.
    """
    from ..recovery.alerts import Alerts, url_in, url_of
    from ..recovery.diagnosis.follow import Stop, Tail, follow
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.watch import Watch

    if len(set(files)) != len(files):
        raise UsageError("--follow takes each log once")
    store = None if output.incidents is None else Incidents(output.incidents)
    file = output.alert_url_file
    webhook = url_of() if file is None else url_in(str(file), "--alert-url-file")
    alerts = None if webhook is None else Alerts(webhook)
    stop = Stop()
    adviser = None if asked is None else Adviser(asked, rules, _shown(files, output, rules))
    _end_by_signal(stop)
    watch = Watch(len(files), rules, filters, settle_s=settle_s)
    tails = [Tail(path, sys.stdin.fileno() if str(path) == "-" else None) for path in files]
    explained = False
    try:
        for told in follow(tails, watch, interval_s=Timing().follow_s, stop=stop):
            explained |= told.diagnosis.confidence > 0
            past = [] if store is None or adviser is None else store.similar(told.diagnosis)
            _tell(told, files, output.json, store, alerts)
            if adviser is not None:
                adviser.consider(told, past)
    finally:
        for tail in tails:
            tail.close()
        if adviser is not None:
            _end(adviser, interrupted=stop.is_set())
        if alerts is not None:
            alerts.close(_ALERTS_S)
    if watch.survived:
        typer.echo(f"not shown: {watch.survived} failures that training survived", err=True)
    if stop.is_set():
        raise typer.Exit(130)
    if not explained:
        raise typer.Exit(1)


def _end(adviser: Adviser, *, interrupted: bool) -> None:
    if interrupted:
        adviser.give_up()
    else:
        adviser.close()
    if adviser.left_out:
        text = f"not asked about: {adviser.left_out} failures, which came too fast for the model"
        typer.echo(text, err=True)


def _shown(
    files: list[Path], output: Output, rules: tuple[Rule, ...]
) -> Callable[[Told, Suggestion], None]:
    """What prints a suggestion, and keeps the rule that is learned from it."""

    def show(told: Told, suggestion: Suggestion) -> None:
        guess = {**suggestion.diagnosis.to_dict(), "model": suggestion.model}
        place = {"log": str(files[told.log]), "line": told.line}
        if output.json:
            typer.echo(jsonlib.dumps({**place, "suggestion": guess}))
        else:
            lines = text_of(told.diagnosis, suggestion).splitlines()
            start = next(n for n, line in enumerate(lines) if line.startswith("suggestion"))
            where = f"{place['log']}:{told.line}"
            typer.echo("\n".join([f"{time.strftime('%H:%M:%S')} {where}", *lines[start:], ""]))
        sys.stdout.flush()
        if output.pending is not None:
            keep_rule_of_model(suggestion, output.pending, rules)

    return show


def _end_by_signal(stop: Stop) -> None:
    """The first Ctrl-C or SIGTERM ends it in order, so that what was told is stored; another at
    once."""

    def ask(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)


def _tell(
    told: Told, files: list[Path], json: bool, store: Incidents | None, alerts: Alerts | None
) -> None:
    place = f"{files[told.log]}:{told.line}" if told.line else str(files[told.log])
    if json:
        more = {"log": str(files[told.log]), "line": told.line, "times": told.times}
        document = {**document_of(told.diagnosis), **more, "at_unix_s": round(time.time(), 3)}
        typer.echo(jsonlib.dumps(document))
    else:
        again = f", for the {told.times}th time" if told.times > 2 else ""
        again = ", for the second time" if told.times == 2 else again
        typer.echo(f"{time.strftime('%H:%M:%S')} {place}{again}\n{text_of(told.diagnosis)}\n")
    sys.stdout.flush()
    if store is not None and told.times == 1:
        number = store.add(told.diagnosis)
        typer.echo(f"stored as incident {number}", err=True)
    if alerts is not None:
        from ..recovery.alerts import Alert

        found = told.diagnosis
        summary = f"{found.root_cause} in {place}"
        alerts.send(Alert(summary, diagnosis=found, needs_operator=not found.recoverable))
