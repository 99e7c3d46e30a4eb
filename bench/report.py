"""Results as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .harness import Case, Environment, Result, Summary
    from .targets import Verdict


def table(case: Case, results: Sequence[Result]) -> Table:
    """One row for each contestant; columns without any value are left out."""
    columns = [name for name in case.columns if any(name in one.summaries for one in results)]
    shown = Table(title=f"{case.name}: {case.title}")
    shown.add_column("", no_wrap=True)
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for result in results:
        cells = [cell(name, result.summaries.get(name)) for name in columns]
        if result.could_not and columns:
            cells[0] = Text("could not")
        shown.add_row(result.name, *cells)
    return shown


def failures(results: Sequence[Result]) -> list[str]:
    """What could not be measured and why, one line each."""
    return [f"{one.name} could not: {one.could_not}" for one in results if one.could_not]


def verdicts(judged: Iterable[Verdict]) -> Table:
    """Targets, what was measured, and whether that is what was wished."""
    shown = Table(title="targets")
    for name in ("", "of", "wished", "measured", ""):
        shown.add_column(name)
    for verdict in judged:
        target, measured = verdict.target, verdict.measured
        sign = "≤" if target.at_most else "≥"
        shown.add_row(
            target.text,
            target.contestant,
            f"{sign} {target.bound:g}",
            "" if measured is None else value(target.metric, measured),
            verdict.word,
        )
    return shown


def cell(metric: str, summary: Summary | None) -> Text:
    """The median, and below it the least and the most if they differ from it."""
    if summary is None:
        return Text("")
    text = Text(value(metric, summary.median))
    least, most = value(metric, summary.least), value(metric, summary.most)
    if least != most:
        # The unit once: there are many columns.
        unit = most.lstrip("+-0123456789,.e")
        text.append(f"\n{least.removesuffix(unit)}–{most}", style="dim")
    return text


def value(metric: str, number: float) -> str:
    """A value as its metric's name says it: seconds, milliseconds, bytes, parts, a number."""
    if metric.endswith("_overhead"):
        return f"{number:+.1%}"
    if metric.endswith("_part"):
        return f"{number:.1%}"
    if metric.startswith("times_") or metric.endswith("_cpu"):
        return f"{rounded(number)}×"
    if metric == "mb_per_s" or metric.endswith("_per_gb"):
        return rounded(number)
    if metric.endswith("bytes"):
        return f"{number / 1e6:,.1f} MB"
    if metric.endswith("_per_s"):
        return f"{number:,.0f}/s"
    if metric.endswith("_ms"):
        return f"{number:.2f} ms"
    if metric.endswith("_s"):
        return f"{number:.2f}"
    return f"{number:,.0f}"


def rounded(number: float) -> str:
    """Three digits of a number, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


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
