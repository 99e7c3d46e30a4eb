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
from .diagnose_show import Output, document_of, text_of

if TYPE_CHECKING:
    from ..recovery.alerts import Alerts
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.follow import Stop
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.rules import Rule
    from ..recovery.diagnosis.watch import Told

#: What is left to be posted at the end is given so long.
_ALERTS_S = 5.0


def follow_logs(
    files: list[Path],
    rules: tuple[Rule, ...],
    filters: tuple[Filter, ...],
    settle_s: float,
    output: Output,
) -> None:
    """Prints failures as they come, until it is interrupted or standard input ends.

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
    _end_by_signal(stop)
    watch = Watch(len(files), rules, filters, settle_s=settle_s)
    tails = [Tail(path, sys.stdin.fileno() if str(path) == "-" else None) for path in files]
    explained = False
    try:
        for told in follow(tails, watch, interval_s=Timing().follow_s, stop=stop):
            explained |= told.diagnosis.confidence > 0
            _tell(told, files, output.json, store, alerts)
    finally:
        for tail in tails:
            tail.close()
        if alerts is not None:
            alerts.close(_ALERTS_S)
    if watch.survived:
        typer.echo(f"not shown: {watch.survived} failures that training survived", err=True)
    if stop.is_set():
        raise typer.Exit(130)
    if not explained:
        raise typer.Exit(1)


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
