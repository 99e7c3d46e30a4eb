"""Tells a supervisor where this process serves, in one line of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from ..errors import UsageError


def withdraw(target: str) -> None:
    """Removes what a former process announced: whoever waits for the file waits for this one.

    Args:
        target: as of `announce`; nothing is done for `-`.

    Raises:
        UsageError: the file cannot be removed.
    """
    if target == "-":
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
    except OSError as error:
        raise UsageError(f"cannot announce in {target}: {error.strerror}") from error


def announce(target: str, address: str, *, standby: bool = False) -> None:
    """Writes an announcement, whole or not at all.

    Args:
        target: a file, which is replaced, or `-` for standard output, which gets another line.
        address: `host:port` that is served, or will be.
        standby: nothing is served yet: another process has the journal.

    Raises:
        UsageError: the file cannot be written.
    """
    said = {"address": address, "pid": os.getpid()}
    line = json.dumps({"standby": True, **said} if standby else said) + "\n"
    if target == "-":
        sys.stdout.write(line)
        sys.stdout.flush()
        return
    beside = f"{target}.{os.getpid()}.tmp"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(line)
        os.replace(beside, target)
    except OSError as error:
        raise UsageError(f"cannot announce in {target}: {error.strerror}") from error
