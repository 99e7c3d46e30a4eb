"""Tries patterns on lines made to be slow for them, in a process that can be ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .regexes import Pattern

#: No line is longer for a pattern (see `lines.cut`).
LINE_CHARS_MAX = 1024
#: Processor seconds that one pattern may take for all of its slow lines together.
PATTERN_SECONDS_MAX = 1.0
#: Of the clock, for a pattern and for the start, on a machine that has much else to do.
_CLOCK_SECONDS = 30.0

# It prints a number for each pattern that it is done with, so that it is known who hangs. A search
# cannot be interrupted, but the process ends by a signal when a pattern has had its time.
_SCRIPT = """
import json, re, signal, sys
seconds, lines, patterns = json.load(sys.stdin)
signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
for number, (pattern, flags, texts) in enumerate(patterns):
    compiled = re.compile(pattern, flags)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    for text in texts:
        compiled.search("\\n".join([text] * lines))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    print(number, flush=True)
"""


def slow_lines(pattern: Pattern) -> list[str]:
    """Lines of `LINE_CHARS_MAX` characters that make a backtracking engine try much."""
    seeds = {pattern.literals[:200], *pattern.literals[:40], "a", "0", " ", "a0 ", "a.", "= "}
    return [
        (seed * (LINE_CHARS_MAX // len(seed) + 1))[: LINE_CHARS_MAX - 1] + "\x00"
        for seed in sorted(seeds)
        if seed
    ]


def try_out(patterns: Mapping[str, Pattern], *, lines: int = 1) -> dict[str, str]:
    """Runs each pattern on its slow lines.

    Args:
        patterns: by the name that an error calls them.
        lines: how many lines a text has that they are for.

    Returns:
        why a pattern is refused, by name; empty if all are quick enough.

    Raises:
        UsageError: the process that measures could not be run.
    """
    refused: dict[str, str] = {}
    names = list(patterns)
    while names:
        done = _run([patterns[name] for name in names], lines)
        if done < len(names):  # it ended at the next one
            refused[names[done]] = (
                f"its pattern needs more than {PATTERN_SECONDS_MAX:g} s for lines made to be slow"
            )
        names = names[done + 1 :]
    return refused


def _run(patterns: list[Pattern], lines: int) -> int:
    """How many patterns were quick enough, up to the first that was not."""
    work = [(one.compiled.pattern, one.compiled.flags, slow_lines(one)) for one in patterns]
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SCRIPT],
            input=json.dumps([PATTERN_SECONDS_MAX, lines, work]),
            capture_output=True,
            text=True,
            timeout=_CLOCK_SECONDS * (1 + len(patterns)),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"patterns cannot be tried out: {error}") from error
    if ended.returncode not in (0, -signal.SIGVTALRM):
        raise UsageError(f"patterns cannot be tried out: {ended.stderr.strip()[-200:]}")
    return len(ended.stdout.splitlines())
