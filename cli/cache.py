"""`penstock cache`: what workers keep on their disks, whether it is whole; and gets rid of it."""

from __future__ import annotations

import json as jsonlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..worker.cache_files import CacheFile
    from ..worker.segment import SegmentReport

app = typer.Typer(
    no_args_is_help=True,
    help="""Looks after the directory that workers were given with --cache-dir. They may be running
    meanwhile.

    A cache holds segments: the elements of one split of the cached part of a pipeline, by the
    cache key of that part. What is in it can always be made again, so removing it costs time and
    never an element.

    Exit codes: 0 done, 2 no such cache or key, 5 some are damaged, 7 some are being written.""",
)

_Directory = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A worker's --cache-dir.", exists=True, file_okay=False),
]
_Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="Only this cache key, or as much of its beginning as tells it apart."
    ),
]


@dataclass(slots=True)
class Summary:
    """What there is of one cache key.

    Attributes:
        cache_key: of the cached part of a pipeline.
        splits: how many of its splits are cached.
        segments: how many segments these have; more than splits if the sources have changed.
        elements: how many elements the segments hold.
        bytes: how many all of its files have.
        last_used_s: seconds since 1970 when a segment was last written or read; 0: there is none.
        unfinished: how many segments workers have not finished.
        writing: how many of these they are writing at this moment.
        damaged: how many files are set aside, or ought to be.
    """

    cache_key: str
    splits: int = 0
    segments: int = 0
    elements: int = 0
    bytes: int = 0
    last_used_s: float = 0.0
    unfinished: int = 0
    writing: int = 0
    damaged: int = 0


@app.command()
def ls(
    directory: _Directory,
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Lists the cache keys, what each has, and when it was last used.

    Only the ends of the segments are read: `penstock cache verify` reads all of them. A segment
    that is not finished belongs to a worker that is writing it, or to one that died: that goes on
    with it when it is started again at its address.
    """
    files = _files(directory)
    summaries = [
        _summary(key, [file for file in files if file.name.cache_key == key])
        for key in sorted({file.name.cache_key for file in files})
    ]
    if json:
        typer.echo(jsonlib.dumps(_document(directory, summaries)))
    else:
        _print_list(directory, summaries, Console())


@app.command()
def verify(
    directory: _Directory,
    key: _Key = "",
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Reads every segment as a whole and checks all that a worker relies on.

    That is every byte by checksums, and every element by its hash. A worker checks the same when
    it reads, sets a damaged segment aside and produces its split again: this is for finding out
    about the disk, not needed for the data. Exits with 5 if one is damaged, and names it.
    """
    from ..worker.cache_files import Kind
    from ..worker.segment_file import DamagedSegmentError

    files = _of_key(_files(directory), key, directory)
    segments = [file for file in files if file.kind is Kind.SEGMENT]
    reports = _verified(segments, Console(stderr=True), quiet=json)
    damaged = [report for report in reports if report.damage]
    aside = sum(file.kind is Kind.ASIDE for file in files)
    nbytes = sum(report.nbytes for report in reports)
    if json:
        document = {
            "ok": not damaged,
            "segments": len(reports),
            "elements": sum(report.elements for report in reports),
            "bytes": nbytes,
            "damaged": [{"file": str(report.path), "reason": report.damage} for report in damaged],
            "set_aside": aside,
        }
        typer.echo(jsonlib.dumps(document))
    else:
        for report in damaged:
            typer.echo(f"damaged: {report.damage}")
        if aside:
            typer.echo(f"set aside before: {aside}; `penstock cache rm DIR --damaged` removes it")
        whole = f"{len(damaged)} damaged" if damaged else "all whole"
        typer.echo(f"segments: {len(reports)}, {decimal(nbytes)}, {whole}")
    if damaged:
        raise typer.Exit(DamagedSegmentError.exit_code)


@app.command()
def rm(
    directory: _Directory,
    key: _Key = "",
    all_: bool = typer.Option(False, "--all", help="Everything, of whatever key."),
    damaged: bool = typer.Option(
        False, "--damaged", help="Only what was set aside: damaged, or of another TensorFlow."
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
) -> None:
    """Removes segments, and what is unfinished or was set aside.

        penstock cache ls /local/cache && penstock cache rm /local/cache 3f2a

    Workers need not be stopped: one that is reading a segment reads it to its end, and a split
    that is not there any more is produced again. What a worker is writing at this moment stays,
    is named, and makes the exit code 7.
    """
    from ..worker.cache_files import Kind, is_written

    if key and all_:
        raise UsageError("a cache key and --all: which of the two?")
    if not (key or all_ or damaged):
        raise UsageError("what is to go? Name a cache key, --damaged or --all")
    files = _of_key(_files(directory), key, directory)
    chosen = [file for file in files if file.kind is Kind.ASIDE or not damaged]
    written = [f for f in chosen if f.kind is Kind.PARTIAL and is_written(f.path)]
    going = [file for file in chosen if file not in written]
    if going and not yes:
        typer.confirm(f"Remove from {directory}: {_counted(going)}?", abort=True)
    written += _remove(going)
    gone = [file for file in going if file not in written]
    typer.echo(f"removed: {_counted(gone) if gone else 'nothing'}")
    if written:
        named = ", ".join(f"split {file.name.split} by {file.owner}" for file in written[:3])
        more = f" and {len(written) - 3} more" if len(written) > 3 else ""
        raise RefusedError(
            f"what is being written stays ({named}{more}): stop these workers first, or wait"
            " until they have finished"
        )


def _files(directory: Path) -> list[CacheFile]:
    """The files of a cache.

    Raises:
        UsageError: the directory is none, or cannot be read.
    """
    from ..worker.cache_files import STORE_NAME, files_in

    if not (directory / STORE_NAME).is_file():
        raise UsageError(f"{directory} is not a worker's --cache-dir: it has no file {STORE_NAME}")
    try:
        return files_in(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error}") from error


def _of_key(files: list[CacheFile], key: str, directory: Path) -> list[CacheFile]:
    """The files of the only cache key that begins so; all, if it is empty.

    Raises:
        UsageError: there is none, or several.
    """
    if not key:
        return files
    keys = {file.name.cache_key for file in files}
    found = [key] if key in keys else sorted(each for each in keys if each.startswith(key))
    if len(found) != 1:
        what = f"{len(found)} cache keys begin with" if found else "there is no cache key"
        raise UsageError(f"{what} {key!r}; `penstock cache ls {directory}` shows them")
    return [file for file in files if file.name.cache_key == found[0]]


def _summary(key: str, files: list[CacheFile]) -> Summary:
    from ..worker.cache_files import Kind, is_written
    from ..worker.segment import elements_in
    from ..worker.segment_file import DamagedSegmentError

    summary, splits = Summary(key), set()
    for file in files:
        summary.bytes += file.nbytes
        if file.kind is Kind.ASIDE:
            summary.damaged += 1
        elif file.kind is Kind.PARTIAL:
            summary.unfinished += 1
            summary.writing += is_written(file.path)
        else:
            try:
                summary.elements += elements_in(file.path, file.name)
            except (DamagedSegmentError, OSError):
                summary.damaged += 1
                continue
            summary.segments += 1
            splits.add(file.name.split)
            summary.last_used_s = max(summary.last_used_s, file.used_s)
    summary.splits = len(splits)
    return summary


def _document(directory: Path, summaries: list[Summary]) -> dict[str, object]:
    from ..worker.cache_files import STORE_NAME

    totals = ("segments", "elements", "bytes", "unfinished", "writing", "damaged")
    return {
        "directory": str(directory),
        "store": (directory / STORE_NAME).read_text(encoding="utf-8", errors="replace").strip(),
        **{name: sum(getattr(each, name) for each in summaries) for name in totals},
        "keys": [asdict(summary) for summary in summaries],
    }


def _print_list(directory: Path, summaries: list[Summary], console: Console) -> None:
    if not summaries:
        console.print(f"{directory} is empty", markup=False)
        return
    table = Table(title=f"Cache in {escape(str(directory))}", show_footer=True)

    def column(title: str, text: Callable[[Summary], str], total: str = "") -> None:
        table.add_column(title, total, justify="left" if title == "cache key" else "right")
        texts.append(text)

    def summed(name: str) -> int:
        return sum(getattr(summary, name) for summary in summaries)

    texts: list[Callable[[Summary], str]] = []
    column("cache key", lambda each: each.cache_key, f"{len(summaries)} keys")
    column("splits", lambda each: f"{each.splits:,}", f"{summed('splits'):,}")
    column("elements", lambda each: f"{each.elements:,}", f"{summed('elements'):,}")
    column("size", lambda each: decimal(each.bytes), decimal(summed("bytes")))
    column("last used", lambda each: _ago(each.last_used_s))
    column("unfinished", _unfinished, f"{summed('unfinished'):,}")
    column("damaged", lambda each: f"{each.damaged:,}", f"{summed('damaged'):,}")
    for summary in summaries:
        row = [text(summary) for text in texts]
        table.add_row(*row, style="red" if summary.damaged else None)
    console.print(table)


def _unfinished(summary: Summary) -> str:
    writing = f" ({summary.writing} being written)" if summary.writing else ""
    return f"{summary.unfinished:,}{writing}"


def _ago(then_s: float) -> str:
    if not then_s:
        return "-"
    seconds = max(0.0, time.time() - then_s)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _verified(files: list[CacheFile], console: Console, *, quiet: bool) -> list[SegmentReport]:
    """Reads all of these; those that are gone by then are left out."""
    from ..worker.segment import SegmentReport
    from ..worker.segment import verify as verify_segment

    reports = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    ) as progress:
        bar = progress.add_task("reading", total=sum(file.nbytes for file in files))
        done = 0
        for file in files:
            progress.update(bar, description=f"{file.name.cache_key[:12]} split {file.name.split}")
            try:
                reports.append(
                    verify_segment(file.path, lambda nbytes: progress.advance(bar, nbytes))
                )
            except FileNotFoundError:
                pass  # a worker has removed it
            except OSError as error:
                damage = f"segment {file.path} cannot be read: {error}"
                reports.append(SegmentReport(file.path, file.nbytes, damage))
            done += file.nbytes
            progress.update(bar, completed=done)
    return reports


def _remove(files: list[CacheFile]) -> list[CacheFile]:
    """Removes these, save for those that a worker has begun to write meanwhile: they are returned.

    Raises:
        UsageError: the disk refuses.
    """
    from ..worker.cache_files import remove

    try:
        return [file for file in files if not remove(file)]
    except OSError as error:
        raise UsageError(f"cannot remove everything: {error}") from error


def _counted(files: list[CacheFile]) -> str:
    from ..worker.cache_files import Kind

    words = {Kind.SEGMENT: "finished", Kind.PARTIAL: "unfinished", Kind.ASIDE: "set aside"}
    counts = {word: sum(file.kind is kind for file in files) for kind, word in words.items()}
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    return f"{', '.join(parts)} ({decimal(sum(file.nbytes for file in files))})"
