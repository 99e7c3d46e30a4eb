"""What a process notes down of the exception that ends it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import atexit, sys
from penstock.client import crash
crash.watch()
crash.watch()
atexit.register(lambda: print(crash.told(), flush=True))
"""


@pytest.mark.parametrize(
    ("options", "typed", "wanted"),
    [
        (["-c", _SCRIPT + "raise ValueError('no') from KeyError(1)"], "", True),
        (["-c", _SCRIPT + "raise KeyboardInterrupt"], "", False),
        (["-c", _SCRIPT + "sys.exit(3)"], "", False),
        # Who types is told of an exception by the same hook, and goes on.
        (["-i", "-c", _SCRIPT + "raise ValueError('no')"], "", False),
        (["-i", "-c", _SCRIPT], "oops\n", False),
    ],
)
def test_only_an_exception_that_ends_the_process_is_noted_down(
    options: list[str], typed: str, wanted: bool
) -> None:
    command = [sys.executable, *options]
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, check=False, timeout=60
    )
    shown = "('ValueError: no', 'KeyError: 1')" if wanted else "()"
    assert done.stdout.split("\n")[0] == shown, done.stderr
    if typed:
        assert "NameError" in done.stderr  # it was shown all the same
