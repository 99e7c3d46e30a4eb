"""Reads a log of any size in bounded memory, and finds what rules know.

Theory of operation. Nearly all lines of a log are routine and differ in numbers only. So a line
is looked up first by its bytes without digits: what was seen to be routine is passed by at the
speed of a dictionary. Of another one it is asked whether it holds one of the words without which
no rule matches (`regexes.Pattern.words`), in its bytes; only then it becomes text, is offered to
the filters, and to the rules whose words it has. All tables have bounds.

Progress counts: a root cause after which training went on was survived (see `verdict`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .episodes import START, Episodes
from .lines import cut, is_soft, when

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
#: The last lines, whatever they hold: what comes last is often about the failure.
_TAIL_LINES = 60
_TAIL_LINE_BYTES_MAX = 2048
#: A message after an exception has so many lines at most.
_MESSAGE_LINES = 8
_DIGITS = b"0123456789"
_PROGRESS = re.compile(
    r"\b(?:global[_ ]?)?(?:step|iter(?:ation)?|batch|update)s?\b[\"']?\s?[=:#]?\s?\[?\d+|"
    r"\bepoch\b[\"']?\s?[=:#\[]?\s?\d+.{0,40}\b(?:loss|acc)|\bloss\s?[=:]\s?-?\d",
    re.IGNORECASE,
)
_PROGRESS_WORDS = ("step", "iter", "batch", "update", "epoch", "loss")
#: Lines that look like trouble though no rule knows them: shown where there is nothing better.
NOTABLE = re.compile(r"\b(?:error|fatal|critical|panic|failed|exception|abort(?:ed|ing)?)\b", re.I)
_NOTABLE_WORDS = ("error", "fatal", "critical", "panic", "failed", "exception", "abort")
_ROUTINE, _PROGRESSED, _DEAR = 0, 1, 2


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
        rules = tuple(rules)
        self._wordless = [rule for rule in rules if not rule.pattern.words]
        self._filters = tuple(filters)
        words = {word for rule in rules for word in rule.pattern.words}
        words |= {*_NOTABLE_WORDS, *_PROGRESS_WORDS, START.lower()}
        #: Where a word holds a shorter one, to look for the shorter one is enough.
        screened = {w for w in words if not any(other in w for other in words if other != w)}
        self._screen = any_of(screened)
        self._by_word: dict[str, list[tuple[str, Rule]]] = {word: [] for word in screened}
        for rule in rules:
            for word in rule.pattern.words:
                shorter = next(one for one in sorted(screened) if one in word)
                self._by_word[shorter].append((word, rule))
        self._known: dict[bytes, int] = {}
        self._keys_max = keys_max
        self._episodes = Episodes()
        self._counts: dict[tuple[str, int], int] = {}
        self._last_when: str | None = None
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
        # Searching text for words is ten times as fast as searching bytes; and words are ASCII.
        low = raw.decode("latin-1").lower()
        if not (self._episodes.busy() or self._wordless or self._screen.search(low)):
            self._remember(raw, _ROUTINE)
            return
        text = cut(raw)
        self._last_when = when(text) or self._last_when
        if START in text:
            self._episodes.begin(text, self.line)
            return
        if "exception" in text and self._episodes.link(text):
            return
        if self._episodes.busy():
            episode, body = self._episodes.take(text)
            if episode is not None:
                if body is not None:
                    self._match_episode(episode, body)
                return
        kind = self._match_line(text, low)
        if kind == _PROGRESSED:
            self.progress[self.log] += 1
        if kind != _DEAR:
            self._remember(raw, kind)

    def _match_line(self, text: str, low: str) -> int:
        """Offers a line to filters and rules; returns whether the like of it is routine."""
        rules = self._candidates(low)
        digits = any(rule.pattern.digits for rule in rules)
        for one in self._filters:
            if one.pattern.compiled.search(text):
                return _DEAR if one.pattern.digits else _ROUTINE
        found = [
            rule for rule in rules if rule.scope == "line" and rule.pattern.compiled.search(text)
        ]
        chain = self._message_chain(text) if found else 0
        for rule in found:
            self._found(rule, text, (), chain, is_soft(text), text)
        if found:
            return _DEAR
        if _PROGRESS.search(text):
            return _DEAR if digits else _PROGRESSED
        if NOTABLE.search(text):
            self.notes = [*self.notes[-_NOTES_MAX + 1 :], text]
            return _DEAR
        return _DEAR if digits else _ROUTINE

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
        for rule in self._candidates(low):
            text = whole if rule.scope == "episode" else body
            if rule.pattern.compiled.search(text):
                self._found(rule, body, context, episode.chain, soft, text)
                found = True
        if not found:
            self.found += 1
            self.notes = [*self.notes[-_NOTES_MAX + 1 :], body]

    def _candidates(self, low: str) -> list[Rule]:
        found = {
            rule.id: rule
            for shorter in set(self._screen.findall(low))
            for word, rule in self._by_word[shorter]
            if word in low
        }
        return [*sorted(found.values(), key=lambda rule: rule.id), *self._wordless]

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
            rule, self.log, self.line, text, context, self._last_when, chain,
            self.progress[self.log], soft, entity,
        )  # fmt: skip
        if count > _FINDINGS_EACH_MAX:  # the first ones and the last ones say enough
            same = [i for i, one in enumerate(self.findings) if (one.rule.id, one.log) == place]
            del self.findings[same[_FINDINGS_EACH_MAX // 2]]
        self.findings.append(finding)
        self.found += 1

    def _remember(self, raw: bytes, kind: int) -> None:
        if len(raw) <= _KEY_BYTES_MAX:
            if len(self._known) >= self._keys_max:
                self._known.clear()
            self._known[raw.translate(None, _DIGITS)] = kind


def any_of(words: set[str]) -> re.Pattern[str]:
    """A pattern that finds any of the words: a tree of their letters, so that most places of a
    line fail at the first letter or two, however many words there are."""

    def tree(tails: set[str]) -> str:
        heads: dict[str, set[str]] = {}
        for tail in tails - {""}:
            heads.setdefault(tail[0], set()).add(tail[1:])
        branches = [re.escape(head) + tree(rest) for head, rest in sorted(heads.items())]
        return "" if "" in tails else f"(?:{'|'.join(branches)})"

    return re.compile(f"(?=({tree(words)}))")  # a word may begin within another one


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
