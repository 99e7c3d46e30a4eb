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
from .diagnose_show import document_of, text_of

if TYPE_CHECKING:
    from ..recovery.diagnosis.filters import Filter
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.rules import Rule
    from ..recovery.diagnosis.watch import Told


def follow_logs(
    files: list[Path],
    rules: tuple[Rule, ...],
    filters: tuple[Filter, ...],
    *,
    settle_s: float,
    json: bool,
    incidents: Path | None,
) -> None:
    """Prints failures as they come, until it is interrupted or standard input ends.

    Raises:
        UsageError: a file cannot be read, or is named twice.
        typer.Exit: with 130 if it was interrupted, 1 if no root cause was found.
    """
    from ..recovery.diagnosis.follow import Tail, follow
    from ..recovery.diagnosis.incidents import Incidents
    from ..recovery.diagnosis.watch import Watch

    if len(set(files)) != len(files):
        raise UsageError("--follow takes each log once")
    store = None if incidents is None else Incidents(incidents)
    watch = Watch(len(files), rules, filters, settle_s=settle_s)
    tails = [Tail(path, sys.stdin.fileno() if str(path) == "-" else None) for path in files]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    explained = interrupted = False
    try:
        for told in follow(tails, watch, interval_s=Timing().follow_s):
            explained |= told.diagnosis.confidence > 0
            _show(told, files, json, store)
    except KeyboardInterrupt:
        interrupted = True
        if last := watch.finish():
            _show(last, files, json, store)
    finally:
        for tail in tails:
            tail.close()
    if watch.survived:
        typer.echo(f"not shown: {watch.survived} failures that training survived", err=True)
    if interrupted:
        raise typer.Exit(130)
    if not explained:
        raise typer.Exit(1)


def _show(told: Told, files: list[Path], json: bool, store: Incidents | None) -> None:
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
