"""Tries patterns on lines made to be slow for them, in a process that can be ended."""

from __future__ import annotations

import json
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
_START_SECONDS = 10.0

# It prints a number for each pattern that it is done with, so that it is known who hangs.
_SCRIPT = """
import json, re, sys, time
for number, (pattern, flags, texts) in enumerate(json.load(sys.stdin)):
    compiled = re.compile(pattern, flags)
    began = time.process_time()
    for text in texts:
        compiled.search(text)
    print(number, time.process_time() - began, flush=True)
"""


def slow_lines(pattern: Pattern) -> list[str]:
    """Lines of `LINE_CHARS_MAX` characters that make a backtracking engine try much."""
    seeds = {pattern.literals[:200], *pattern.literals[:40], "a", "0", " ", "a0 ", "a.", "= "}
    return [
        (seed * (LINE_CHARS_MAX // len(seed) + 1))[: LINE_CHARS_MAX - 1] + "\x00"
        for seed in sorted(seeds)
        if seed
    ]


def try_out(patterns: Mapping[str, Pattern]) -> dict[str, str]:
    """Runs each pattern on its slow lines.

    Args:
        patterns: by the name that an error calls them.

    Returns:
        why a pattern is refused, by name; empty if all are quick enough.

    Raises:
        UsageError: the process that measures could not be run.
    """
    refused: dict[str, str] = {}
    names = list(patterns)
    while names:
        done = _run([patterns[name] for name in names])
        for name, seconds in zip(names, done, strict=False):
            if seconds > PATTERN_SECONDS_MAX:
                refused[name] = f"its pattern took {seconds:.1f} s for a line made to be slow"
        if len(done) < len(names):  # ended at the next one
            refused[names[len(done)]] = "its pattern does not come to an end on some line"
        names = names[len(done) + 1 :]
    return refused


def _run(patterns: list[Pattern]) -> list[float]:
    """Seconds of each pattern, in order, up to the one that had to be ended."""
    work = [(one.compiled.pattern, one.compiled.flags, slow_lines(one)) for one in patterns]
    limit_s = _START_SECONDS + PATTERN_SECONDS_MAX * len(patterns)
    try:
        output = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SCRIPT],
            input=json.dumps(work),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=True,
        ).stdout
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else ""
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"patterns cannot be tried out: {error}") from error
    return [float(line.split()[1]) for line in output.splitlines() if len(line.split()) == 2]
