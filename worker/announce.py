"""How a worker says that it is ready: one JSON line, for the supervisor that started it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def withdraw(target: str) -> None:
    """Removes what a former process announced: whoever waits for the file waits for this one.

    Raises:
        UsageError: the file cannot be removed.
    """
    if target in ("", "-"):
        return
    try:
        Path(target).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--announce {target}: {error}") from error


def announce(target: str, fields: Mapping[str, object]) -> None:
    """Writes one JSON line to a file, or to standard output for `-`; nothing for an empty name.

    Raises:
        UsageError: the file cannot be written.
    """
    if not target:
        return
    line = json.dumps(fields) + "\n"
    if target == "-":
        sys.stdout.write(line)
        sys.stdout.flush()
        return
    path = Path(target)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(line)
        temporary.replace(path)  # who waits for the file never sees half a line
    except OSError as error:
        raise UsageError(f"--announce {target}: {error}") from error
