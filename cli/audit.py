"""`penstock audit`: was every element delivered exactly once and unaltered?"""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import VerificationError

if TYPE_CHECKING:
    from ..client.audit import AuditReport

_COUNTS = ("lost", "duplicated", "unexpected", "altered")
_TRAINED = (*_COUNTS, "reordered")


def audit_command(
    directory: Annotated[
        Path, typer.Argument(help="The ledger: what `ledger=` named in the trainer.")
    ],
    expected: str | None = typer.Option(
        None, help="Digest COUNT:TOTAL:CHAIN that every finished epoch must have, in any order."
    ),
    json: bool = typer.Option(False, "--json", help="Print the whole report as one JSON object."),
) -> None:
    """Checks a ledger for lost, duplicated, unexpected, altered and reordered elements.

    A ledger is written by `penstock.distribute(..., ledger=DIR)`. Each line of the report is one
    client's visit of one epoch. Where trainers commit positions, or several consumers share a job,
    a second table says what the training as a whole saw of each epoch: up to the commits of each
    life. Exits with 5 if anything is wrong, or a file is damaged, and with
    2 if there is no ledger in the directory.
    """
    from ..client.audit import audit
    from ..proto.hashing import Digest

    report = audit(directory, None if expected is None else Digest.parse(expected))
    if json:
        typer.echo(jsonlib.dumps(_document(report)))
    else:
        _print(report, Console())
    if not report.clean:
        raise typer.Exit(VerificationError.exit_code)


def _document(report: AuditReport) -> dict[str, Any]:
    return {
        "clean": report.clean,
        **{name: getattr(report, name) for name in _TRAINED},
        "damaged": list(report.damaged),
        "skipped": [dataclasses.asdict(skip) for skip in report.skips],
        "visits": [
            {**dataclasses.asdict(visit), "digest": str(visit.digest), "clean": visit.clean}
            for visit in report.visits
        ],
        "trainings": [
            {**dataclasses.asdict(training), "clean": training.clean}
            for training in report.trainings
        ],
    }


def _print(report: AuditReport, console: Console) -> None:
    table = Table(title="Deliveries on record")
    for column in ("client", "stream", "epoch", "state", "elements", *_COUNTS, "digest"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for visit in report.visits:
        table.add_row(
            escape(visit.file),
            str(visit.stream),
            str(visit.epoch),
            "finished" if visit.finished else "unfinished",
            str(visit.elements),
            *(str(getattr(visit, name)) for name in _COUNTS),
            f"{visit.digest.total:016x}",
            style=None if visit.clean else "red",
        )
    console.print(table)
    for skip in report.skips:
        last = skip.first + skip.count - 1
        console.print(
            f"skipped by the trainer: epoch {skip.epoch}, elements {skip.first} to {last}:"
            f" {escape(skip.why)}"
        )
    if report.trainings:
        _print_trainings(report, console)
    for text in report.damaged:
        console.print(f"[red]damaged:[/red] {escape(text)}")
    exact = "[green]every element exactly once[/green]"
    console.print(exact if report.clean else "[red]NOT exact[/red]")


def _print_trainings(report: AuditReport, console: Console) -> None:
    table = Table(title="What was trained, by commits")
    for column in ("training", "stream", "epoch", "state", "lives", "elements", *_TRAINED):
        table.add_column(column, justify="left" if column == "training" else "right")
    for training in report.trainings:
        table.add_row(
            escape(training.training),
            str(training.stream),
            str(training.epoch),
            "over" if training.over else "under way",
            str(training.lives),
            str(training.elements),
            *(str(getattr(training, name)) for name in _TRAINED),
            style=None if training.clean else "red",
        )
    console.print(table)
