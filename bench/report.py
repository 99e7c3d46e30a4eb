"""Results as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .harness import Case, Environment, Result, Summary


def table(case: Case, results: Sequence[Result]) -> Table:
    """One row for each contestant; columns without any value are left out."""
    columns = [name for name in case.columns if any(name in one.summaries for one in results)]
    shown = Table(title=f"{case.name}: {case.title}")
    shown.add_column("", no_wrap=True)
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right")
    for result in results:
        cells = [cell(name, result.summaries.get(name)) for name in columns]
        shown.add_row(result.name, *cells)
    return shown


def cell(metric: str, summary: Summary | None) -> Text:
    """The median, and below it the least and the most if they differ from it."""
    if summary is None:
        return Text("")
    text = Text(value(metric, summary.median))
    least, most = value(metric, summary.least), value(metric, summary.most)
    if least != most:
        text.append(f"\n{least}–{most}", style="dim")
    return text


def value(metric: str, number: float) -> str:
    """A value as its metric's name says it: seconds, milliseconds, bytes, a part, a number."""
    if metric.endswith("_overhead"):
        return f"{number:+.1%}"
    if metric.endswith("bytes"):
        return f"{number / 1e6:,.1f} MB"
    if metric.endswith("_per_s"):
        return f"{number:,.0f}/s"
    if metric.endswith("_ms"):
        return f"{number:.2f} ms"
    if metric.endswith("_s"):
        return f"{number:.2f}"
    return f"{number:,.0f}"


def glossary(case: Case, results: Sequence[Result]) -> list[str]:
    """What each of the columns means, one line each."""
    return [
        f"{name.replace('_', ' ')}: {meaning}"
        for name, meaning in case.columns.items()
        if any(name in one.summaries for one in results)
    ]


def circumstances(environment: Environment, load_after: float) -> str:
    """One line about where and with what the figures were taken."""
    return (
        f"{environment.cpu}, {environment.cores} cores, "
        f"{environment.memory_bytes / (1 << 30):.0f} GiB, {environment.system}; "
        f"Python {environment.python}, TensorFlow {environment.tensorflow}, "
        f"penstock {environment.penstock}; load {environment.load_1min} before, "
        f"{load_after} after"
    )
