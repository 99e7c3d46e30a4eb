"""Logs that are still being written: which failure is told, and when. Pure: time is given.

Each log has a scanner of its own, since their lines come in turns. The first finding opens a
failure; what comes soon after it, in any log, belongs to it. When nothing more has come for a
while, all of it is decided on together, as for logs that have ended, told, and forgotten. What
training survived is not told, and what its writer only warned of waits for longer. A failure that
looks like one that was told is told again at its second, fourth, eighth, … time only, so that a
storm of them stays short.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .scanner import KEYS_MAX, Scanner
from .verdict import decide, not_survived

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .filters import Filter
    from .result import Diagnosis
    from .rules import Rule

#: A failure is told after so many times the quiet that ends it, even if there is no quiet.
PATIENCE = 5
_SEEN_MAX = 1024
_KEYS_MIN = 1000


@dataclass(frozen=True, slots=True)
class Told:
    """A failure that is told.

    Attributes:
        diagnosis: what it was.
        log: the number of the log that shows it, in the order given.
        line: the number of the line, from 1; 0 if no single line shows it.
        times: how often such a failure was seen, this time included.
        notes: lines of all logs that looked like trouble.
        tail: the last lines of the log that shows it.
    """

    diagnosis: Diagnosis
    log: int
    line: int
    times: int
    notes: tuple[str, ...] = ()
    tail: tuple[bytes, ...] = ()


class Watch:
    """Decides what is told.

    Args:
        logs: how many logs there are.
        rules, filters: as for `Scanner`.
        settle_s: how long nothing more must come of a failure.
    """

    def __init__(
        self, logs: int, rules: Iterable[Rule], filters: Iterable[Filter], *, settle_s: float
    ) -> None:
        rules, filters = tuple(rules), tuple(filters)
        keys_max = max(KEYS_MAX // max(logs, 1), _KEYS_MIN)
        self._scanners = [
            Scanner(rules, filters, log=log, keys_max=keys_max) for log in range(logs)
        ]
        self._settle_s = settle_s
        self._began_s: float | None = None
        self._last_s = 0.0
        self._seen: OrderedDict[str, int] = OrderedDict()
        self.survived = 0

    def feed(self, log: int, lines: Sequence[bytes], now_s: float) -> None:
        """New lines of a log, without their ends."""
        scanner = self._scanners[log]
        before = scanner.found
        scanner.feed(lines)
        if scanner.found != before:
            self._last_s = now_s
            if self._began_s is None:
                self._began_s = now_s

    def begins_anew(self, log: int) -> None:
        """The log was replaced or cut: its next line is its first one."""
        self._scanners[log].line = 0

    def due(self, now_s: float) -> Told | None:
        """A failure of which nothing more has come, or which goes on for too long."""
        if self._began_s is None:
            return None
        patience_s = PATIENCE * self._settle_s
        # Who only warned may still go on.
        quiet_s = self._settle_s if self._hard() else patience_s
        if now_s - self._last_s < quiet_s and now_s - self._began_s < patience_s:
            return None
        return self.finish()

    def _hard(self) -> bool:
        return any(not one.soft for scanner in self._scanners for one in scanner.findings)

    def finish(self) -> Told | None:
        """What is known of the failure that has begun, if one has, and is worth telling."""
        if self._began_s is None:
            return None
        self._began_s = None
        findings = [one for scanner in self._scanners for one in scanner.findings]
        progress = {scanner.log: scanner.progress[scanner.log] for scanner in self._scanners}
        notes = [note for scanner in self._scanners for note in scanner.notes]
        found = decide(findings, progress, notes)
        tails = [tuple(scanner.tail) for scanner in self._scanners]
        for scanner in self._scanners:
            scanner.forget()
        if findings and not not_survived(findings, progress):
            self.survived += 1
            return None
        shown = next((one for one in findings if one.text == found.evidence[0]), None)
        times = self._count(found.fingerprint)
        if times & (times - 1):
            return None
        log = shown.log if shown else 0
        return Told(found, log, shown.line if shown else 0, times, tuple(notes), tails[log])

    def _count(self, fingerprint: str) -> int:
        times = self._seen[fingerprint] = self._seen.pop(fingerprint, 0) + 1
        if len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        return times
