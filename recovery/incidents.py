"""Incidents: a directory for each fault that a person is told of.

Below a root of the user's own, mode 0700, an incident is a directory `YYYYMMDD-HHMMSS-MICROS` with
`report.json`, `report.txt`, while the program waits `control.sock`, and at its end `outcome.json`.
Files are written under another name and renamed, so whoever reads them sees all or nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NotFoundError, UsageError
from .operator_socket import is_served

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "PENSTOCK_INCIDENTS"
_FILE_BYTES_MAX = 8 << 20
_IDENTITY = re.compile(r"\d{8}-\d{6}-\d{6}")


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as it is on disk.

    Attributes:
        identity: names it; also the directory's name.
        directory: where it is.
        report: see `reports`; empty if it cannot be read.
        outcome: `{"action", "by", "result"}`; None if there is none yet.
        waiting: a program waits for an answer.
    """

    identity: str
    directory: Path
    report: dict[str, Any]
    outcome: dict[str, Any] | None
    waiting: bool


def default_root(environment: Mapping[str, str] | None = None) -> Path:
    """Where incidents are if nobody says; `$PENSTOCK_INCIDENTS` says it."""
    values = os.environ if environment is None else environment
    if values.get(VARIABLE):
        return Path(values[VARIABLE])
    state = values.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "penstock" / "incidents"


def checked_root(directory: str | os.PathLike[str] | bool) -> Path:
    """A root for incidents, made if it is not there; True is the default one.

    Raises:
        UsageError: it cannot be made, or others may write to it.
    """
    if directory is True:
        root = default_root()
    elif isinstance(directory, (str, os.PathLike)):
        root = Path(os.fsdecode(directory))
    else:
        raise UsageError(f"incidents must be the path of a directory, or True, not {directory!r}")
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        seen = root.stat()
    except OSError as error:
        raise UsageError(f"incidents must be a directory: {error}") from error
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
        raise UsageError(f"incidents: {root} is not a directory of this user")
    if seen.st_mode & 0o022:
        raise UsageError(f"incidents: others may write to {root}; chmod it to 0700")
    return root


def create(root: Path, report: dict[str, Any], text_of: Any) -> tuple[str, Path]:
    """Makes an incident with its report.

    Args:
        root: see `checked_root`.
        report: see `reports`.
        text_of: gives the report for people, from the report and the identity.

    Returns:
        its identity and directory.
    """
    directory = _fresh(root)
    identity = directory.name
    _write(directory / "report.txt", text_of(report, identity))
    document = json.dumps({**report, "id": identity}, indent=1, ensure_ascii=False)
    _write(directory / "report.json", document)
    return identity, directory


def conclude(directory: Path, outcome: dict[str, Any]) -> None:
    """Writes what became of an incident; written again, it is replaced."""
    _write(directory / "outcome.json", json.dumps(outcome))


def load_all(root: Path) -> list[Incident]:
    """All incidents below a root, the oldest first."""
    if not root.is_dir():
        return []
    return [_load(path) for path in sorted(root.iterdir()) if _IDENTITY.fullmatch(path.name)]


def find(root: Path, identity: str) -> Incident:
    """An incident by its identity, or the last digits of it.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    found = [one for one in load_all(root) if one.identity.endswith(identity)]
    if len(found) != 1 or not identity:
        what = "more than one incident" if found else "no incident"
        raise NotFoundError(f"there is {what} {identity!r:.80} in {root}")
    return found[0]


def _fresh(root: Path) -> Path:
    """A directory of its own, named by the time of day in UTC, so that names sort by age."""
    while True:
        directory = root / datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        with contextlib.suppress(FileExistsError):  # another rank had the same microsecond
            directory.mkdir(mode=0o700)
            return directory


def _load(directory: Path) -> Incident:
    outcome = _read(directory / "outcome.json")
    return Incident(
        directory.name,
        directory,
        _read(directory / "report.json") or {},
        outcome,
        outcome is None and is_served(directory),
    )


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size <= _FILE_BYTES_MAX:
            value = json.loads(path.read_bytes())
            return value if isinstance(value, dict) else None
    return None


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(text.encode("utf-8", "replace"))  # half characters cannot be shown either
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
