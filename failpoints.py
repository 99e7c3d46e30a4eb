"""Named points in the code at which a test can end, pause or fail the process.

Theory of operation. `failpoint("journal.before_fsync")` stands before or after every durable or
remote step. It does nothing unless `PENSTOCK_FAILPOINTS` names it in the process's environment:

    PENSTOCK_FAILPOINTS="journal.before_fsync=kill@3;worker.checkpoint.before_rename=raise"

`NAME=ACTION[@N][:ARGUMENT]`, several separated by `;`. The action is carried out the Nth time (the
first if N is not given) that this process passes the point, and only then. Actions: `kill` (SIGKILL
to this process, what a power cut looks like to the others), `stop` (SIGSTOP), `raise` (an OSError
with EIO), `sleep:SECONDS`. Each action that fires is first written to standard error, so that a
test can see that it did. A name that the text gets wrong is an error at start, not a silence.

Leaf module: imports nothing of penstock but its errors. Names are literals, so that a test can list
them from the source (tests/faults).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "PENSTOCK_FAILPOINTS"
_ENTRY = re.compile(
    r"([a-z0-9_.]+)=(kill|stop|raise|sleep)(?:@([1-9][0-9]*))?(?::([0-9]+(?:\.[0-9]+)?))?"
)


@dataclass(slots=True)
class Failpoint:
    """What is to happen at one name.

    Attributes:
        action: kill, stop, raise or sleep.
        at: the pass at which it happens, from 1.
        seconds: how long a sleep lasts.
    """

    action: str
    at: int = 1
    seconds: float = 0.0
    _passed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reached(self) -> bool:
        """Counts a pass; whether it is the one."""
        with self._lock:
            self._passed += 1
            return self._passed == self.at


def parse(text: str) -> Mapping[str, Failpoint]:
    """The failpoints that a value of PENSTOCK_FAILPOINTS names.

    Raises:
        UsageError: the text is not of the form `NAME=ACTION[@N][:SECONDS][;…]`, or names a point
            twice.
    """
    found: dict[str, Failpoint] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        match = _ENTRY.fullmatch(entry)
        if match is None or (match[2] == "sleep") != (match[4] is not None):
            raise UsageError(
                f"{VARIABLE}: {entry!r} is not NAME=kill|stop|raise[@N] or NAME=sleep[@N]:SECONDS"
            )
        if match[1] in found:
            raise UsageError(f"{VARIABLE}: {match[1]} is named twice")
        found[match[1]] = Failpoint(match[2], int(match[3] or 1), float(match[4] or 0))
    return found


def make_failpoint(points: Mapping[str, Failpoint]) -> Callable[[str], None]:
    """The function that code calls at its points; free of cost where nothing is set."""

    def passed(name: str) -> None:
        point = points.get(name)
        if point is not None and point.reached():
            _act(name, point)

    return passed if points else lambda name: None


def _act(name: str, point: Failpoint) -> None:
    sys.stderr.write(f"failpoint {name}: {point.action}\n")
    sys.stderr.flush()
    if point.action == "sleep":
        time.sleep(point.seconds)  # the fault that was asked for: whoever comes here is late
    elif point.action == "raise":
        raise OSError(errno.EIO, f"failpoint {name}")
    else:
        os.kill(os.getpid(), signal.SIGKILL if point.action == "kill" else signal.SIGSTOP)


#: Passes the point of that name. Set up once, from the environment that the process began with.
failpoint: Callable[[str], None] = make_failpoint(parse(os.environ.get(VARIABLE, "")))
