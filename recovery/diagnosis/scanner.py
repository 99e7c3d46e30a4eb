"""Reads a log of any size in bounded memory, and finds what rules know.

Theory of operation. Nearly all lines of a log are routine and differ in numbers only. So a line
is looked up first by its bytes without digits: what was seen to be routine is passed by at the
speed of a dictionary; so is one that differs in ids only. Of another one it is asked whether it
holds a word without which no rule matches (`screen`); only then it is offered to the filters, and
to the rules whose words it has. All tables have bounds.

Progress counts: a root cause after which training went on was survived (see `verdict`).
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .episodes import START, Episodes
from .lines import ANSI, cut, is_soft, when
from .screen import NOTABLE, PROGRESS, screen_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .episodes import Episode
    from .filters import Filter
    from .rules import Rule

_LINE_BYTES_MAX = 1 << 20
_KEY_BYTES_MAX = 512
KEYS_MAX = 50_000
_FINDINGS_EACH_MAX = 16
_NOTES_MAX = 20
_NOTED_MAX = 1000
#: The last lines, whatever they hold: what comes last is often about the failure.
_TAIL_LINES = 60
_TAIL_LINE_BYTES_MAX = 2048
#: A message after an exception has so many lines at most.
_MESSAGE_LINES = 8
_DIGITS = b"0123456789"
#: What a line is that needs no look; the number is how much progress it shows.
_ROUTINE, _PROGRESSED = 0, 1
_UNTIMED_MAX = 64
#: An id that differs from line to line: a UUID, or a hexadecimal number with a digit in it.
_ID = re.compile(
    rb"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    rb"|(?:0x)?(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{8,64})(?![0-9A-Za-z])"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a log that a rule matches.

    Attributes:
        rule: which one.
        log: the number of the log, in the order given.
        line: its number in that log, from 1.
        text: the line.
        context: the last lines of a traceback before it; empty without one.
        when: what sorts by time, or None.
        chain: the number of the traceback's chain, 0 outside of one.
        progress: how many lines of progress the log had before.
        soft: whether its writer said that he goes on.
        entity: what it happened to, "" if it is not known.
    """

    rule: Rule
    log: int
    line: int
    text: str
    context: tuple[str, ...]
    when: str | None
    chain: int
    progress: int
    soft: bool
    entity: str


class Scanner:
    """Finds what rules know in one log after the other.

    Args:
        rules: what is looked for.
        filters: what is routine.
        log: the number of the first log.
        keys_max: how many kinds of routine lines are remembered, of up to 512 bytes each.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        filters: Iterable[Filter] = (),
        *,
        log: int = 0,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._screen = screen_of(tuple(rules))
        self._filters = tuple(filters)
        self._known: dict[bytes, int] = {}
        self._keys_max = keys_max
        #: How often the like of a line has looked like trouble.
        self._noted: dict[bytes, int] = {}
        self._episodes = Episodes()
        self._counts: dict[tuple[str, int], int] = {}
        self._last_when: str | None = None
        #: Lines that came after that time, and may show a later one.
        self._untimed: deque[str] = deque(maxlen=_UNTIMED_MAX)
        #: The last traceback, the lines after which may still be of its message, and up to where.
        self._message: tuple[Episode, int] | None = None
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.tail: list[bytes] = []
        #: How many findings and tracebacks without one there were.
        self.found = 0
        self.log = log
        self.line = 0
        self.progress: dict[int, int] = {log: 0}

    def next_log(self) -> None:
        """What is fed from now on is another log."""
        self.log += 1
        self.line = 0
        self.progress[self.log] = 0
        self._episodes = Episodes()
        self._last_when = None
        self._untimed.clear()
        self._message = None

    def forget(self) -> None:
        """What was found so far is done with; what was seen to be routine is still known."""
        self.findings, self.notes, self._counts = [], [], {}

    def feed(self, lines: Sequence[bytes]) -> None:
        """Reads lines, without their ends; order is time."""
        last = [line[:_TAIL_LINE_BYTES_MAX] for line in lines[-_TAIL_LINES:]]
        self.tail = [*self.tail, *last][-_TAIL_LINES:]
        known, progress, number = self._known, self.progress[self.log], self.line
        busy = self._episodes.busy()
        for raw in lines:
            number += 1
            if not busy:
                kind = known.get(raw.translate(None, _DIGITS))
                if kind == _ROUTINE:
                    continue
                if kind == _PROGRESSED:
                    progress += 1
                    continue
            self.line, self.progress[self.log] = number, progress
            self._look(raw)
            progress = self.progress[self.log]
            busy = self._episodes.busy()
        self.line, self.progress[self.log] = number, progress

    def _look(self, raw: bytes) -> None:
        """A line that is not known to be routine."""
        plain = ANSI.sub(b"", raw) if b"\x1b" in raw else raw
        # Searching text for words is ten times as fast as searching bytes; and words are ASCII.
        low = plain.decode("latin-1").lower()
        busy = self._episodes.busy()
        key, ids = _key_of(raw)
        if ids and not busy and (kind := self._known.get(key)) is not None:
            self.progress[self.log] += kind
            return
        if not (busy or self._screen.wants(low)):
            self._remember(key, _ROUTINE)
            return
        text = cut(plain)
        self._untimed.append(text)
        if START in text:
            self._episodes.begin(text, self.line)
            return
        if "exception" in text and self._episodes.link(text):
            return
        if busy:
            episode, body = self._episodes.take(text)
            if episode is not None:
                if body is not None:
                    self._match_episode(episode, body)
                return
        self._match_line(text, low, key)

    def _match_line(self, text: str, low: str, key: bytes) -> None:
        """Offers a line to filters and rules, and remembers whether the like of it is routine."""
        hits = self._screen.hits(low)
        rules = self._screen.candidates(hits, low)
        # Where a rule asks for certain digits, lines that differ in digits are not alike.
        digits = any(rule.pattern.digits for rule in rules)
        for one in self._filters:
            if one.pattern.compiled.search(text):
                if not digits and not one.pattern.digits:
                    self._remember(key, _ROUTINE)
                return
        found = [
            rule for rule in rules if rule.scope == "line" and rule.pattern.compiled.search(text)
        ]
        chain = self._message_chain(text) if found else 0
        for rule in found:
            self._found(rule, text, (), chain, is_soft(text), text)
        if found:
            return
        if not hits.isdisjoint(self._screen.progress_words) and PROGRESS.search(text):
            self.progress[self.log] += 1
            if not digits:
                self._remember(key, _PROGRESSED)
        elif not hits.isdisjoint(self._screen.notable_words) and NOTABLE.search(text):
            self.notes = [*self.notes[-_NOTES_MAX + 1 :], text]
            if not digits and self._often(key):
                self._remember(key, _ROUTINE)
        elif not digits:
            self._remember(key, _ROUTINE)

    def _often(self, key: bytes) -> bool:
        """Whether the like of a line has looked like trouble so often that it means none."""
        if len(self._noted) >= _NOTED_MAX:
            self._noted.clear()
        count = self._noted[key] = self._noted.get(key, 0) + 1
        return count >= _NOTES_MAX

    def _message_chain(self, text: str) -> int:
        """The chain of the traceback whose message this line goes on with; 0 if it does not."""
        if self._message is None or self.line > self._message[1]:
            return 0
        episode = self._message[0]
        body = episode.body(text)
        announced = episode.lines[-1].rstrip().endswith(":")
        return episode.chain if body and (body[0] in " \t" or announced) else 0

    def _match_episode(self, episode: Episode, body: str) -> None:
        """The last line of a traceback was read: its exception."""
        self._message = (episode, self.line + _MESSAGE_LINES)
        whole = "\n".join(episode.lines)
        low = whole.lower()
        soft = is_soft(episode.header)
        context = tuple(line for line in episode.lines[-7:-1] if line.strip())
        found = False
        for rule in self._screen.candidates(self._screen.hits(low), low):
            text = whole if rule.scope == "episode" else body
            if rule.pattern.compiled.search(text):
                self._found(rule, body, context, episode.chain, soft, text)
                found = True
        if not found:
            self.found += 1
            self.notes = [*self.notes[-_NOTES_MAX + 1 :], body]

    def _when(self) -> str | None:
        """The time of the newest line that shows one."""
        while self._untimed:
            if (shown := when(self._untimed.pop())) is not None:
                self._last_when = shown
                self._untimed.clear()
        return self._last_when

    def _found(
        self, rule: Rule, text: str, context: tuple[str, ...], chain: int, soft: bool, matched: str
    ) -> None:
        place = (rule.id, self.log)
        count = self._counts[place] = self._counts.get(place, 0) + 1
        entity = ""
        if rule.entity and (match := rule.pattern.compiled.search(matched)):
            value = match.group(rule.entity)
            entity = f"{rule.entity}:{value[:200]}" if value else ""
        finding = Finding(
            rule, self.log, self.line, text, context, self._when(), chain,
            self.progress[self.log], soft, entity,
        )  # fmt: skip
        if count > _FINDINGS_EACH_MAX:  # the first ones and the last ones say enough
            same = [i for i, one in enumerate(self.findings) if (one.rule.id, one.log) == place]
            del self.findings[same[_FINDINGS_EACH_MAX // 2]]
        self.findings.append(finding)
        self.found += 1

    def _remember(self, key: bytes, kind: int) -> None:
        if not key:
            return
        if len(self._known) >= self._keys_max:
            self._known.clear()
        self._known[key] = kind


def _key_of(raw: bytes) -> tuple[bytes, bool]:
    """By what a line is remembered, and whether ids are left out; b"" if it is not."""
    if len(raw) > _KEY_BYTES_MAX:
        return b"", False
    ids = _ID.search(raw) is not None
    return (_ID.sub(b"\0", raw) if ids else raw).translate(None, _DIGITS), ids


class Lines:
    """Cuts a stream of blocks into lines; a line without end is cut in its middle."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that end in this block, without their ends."""
        lines = (self._rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > _LINE_BYTES_MAX:
            rest = rest[: _LINE_BYTES_MAX // 2] + rest[-_LINE_BYTES_MAX // 4 :]
        self._rest = rest
        return lines

    def end(self) -> list[bytes]:
        """The last line, if it had no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def lines_of(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lists of the whole lines of a stream of blocks; a line without end is cut in its middle."""
    lines = Lines()
    for block in blocks:
        yield lines.feed(block)
    if last := lines.end():
        yield last
