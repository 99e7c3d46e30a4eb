"""`penstock demo`: the main job in a minute, with a worker killed on the way."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .quiet import load_tensorflow

if TYPE_CHECKING:
    from .demo_run import DemoResult, Observer

FILES = 24


def demo(
    records: int = typer.Option(9600, min=FILES * 10, help="Records in an epoch."),
    epochs: int = typer.Option(3, min=1, help="Epochs to train; the second one sees the kill."),
    workers: int = typer.Option(3, min=2, help="Workers to start; one of them is killed."),
    json: bool = typer.Option(False, "--json", help="Make the last line one JSON object."),
) -> None:
    """Trains a small network on an embedded cluster and kills a worker on the way.

    Writes TFRecords of JPEG crops, starts a dispatcher and workers on this machine, trains with
    decoding and augmentation on the workers, kills one with SIGKILL in the second epoch, and
    compares every epoch with a plain local run. Exits with 1 if a single element was lost,
    duplicated or altered.
    """
    load_tensorflow()
    console = Console(stderr=json)
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as directory:
        result = _run(Path(directory), records, epochs, workers, console)
    console.print(_table(result))
    exact = all(epoch.exact for epoch in result.epochs)
    console.print(
        f"{result.kills} worker killed, its splits on other workers after "
        f"{result.recovery_s:.1f} s; {result.elements_per_s:,.0f} elements/s trained; "
        + ("[green]every element exactly once[/green]" if exact else "[red]NOT exact[/red]")
    )
    if json:
        typer.echo(jsonlib.dumps(dataclasses.asdict(result)))
    if not exact:
        raise typer.Exit(1)


def _run(directory: Path, records: int, epochs: int, workers: int, console: Console) -> DemoResult:
    from ..client.embedded import LocalCluster
    from .demo_data import write_records
    from .demo_run import Observer, run

    started = time.monotonic()
    per_file = records // FILES
    console.print(f"writing {FILES} TFRecord files of {per_file} JPEG crops each")
    paths = write_records(directory, files=FILES, records_per_file=per_file)
    console.print(f"starting a dispatcher and {workers} workers")
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]:>6,.0f}/s  loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[cluster]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with LocalCluster(workers=workers, worker_timeout_s=2.0) as cluster, progress:
        console.print(f"dispatcher at {cluster.address}, ready after {_since(started)}")
        observer = _observer(progress, epochs, per_file * FILES, Observer)
        return run(paths, cluster, epochs, observer)


def _observer(progress: Progress, epochs: int, total: int, observer: type[Observer]) -> Observer:
    """Shows progress as one bar an epoch, and events as lines above the bars."""
    started = time.monotonic()
    bars = [
        progress.add_task(
            f"epoch {epoch}", total=total, start=False, rate=0.0, loss=0.0, cluster=""
        )
        for epoch in range(epochs)
    ]
    first_at: dict[int, float] = {}

    def trained(epoch: int, elements: int, loss: float) -> None:
        if epoch not in first_at:
            first_at[epoch] = time.monotonic()
            progress.start_task(bars[epoch])
        rate = elements / max(1e-3, time.monotonic() - first_at[epoch])
        progress.update(bars[epoch], completed=elements, rate=rate, loss=loss)

    def looked(workers: int, delivered: int, splits: int) -> None:
        if first_at and delivered:  # between two epochs nothing is open
            text = f"{workers} workers, {delivered}/{splits} splits"
            progress.update(bars[max(first_at)], cluster=text)

    def said(text: str) -> None:
        progress.console.print(f"[yellow]{_since(started)}[/yellow] {text}")

    return observer(trained=trained, looked=looked, said=said)


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"


def _table(result: DemoResult) -> Table:
    table = Table(title="Against a plain local run of the same pipeline")
    for column in ("epoch", "elements", "lost", "duplicated", "altered", "digest", "seconds"):
        table.add_column(column, justify="right")
    for epoch in result.epochs:
        style = None if epoch.exact else "red"
        table.add_row(*(str(value) for value in dataclasses.astuple(epoch)), style=style)
    return table
