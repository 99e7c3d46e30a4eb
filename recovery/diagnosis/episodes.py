"""Episodes: the lines of one traceback, put together again, also where ranks write in turns.

What stands in front of "Traceback" names the writer. A line with the same front belongs to the
same traceback; so does a line without any where only the first one had a header. Frames and the
source lines below them are context: that a program *holds* `raise KeyError` is no error. The
message after the frames is what rules see. Tracebacks that are chained are of one chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .lines import tag_of

START = "Traceback (most recent call last)"
LINES_MAX = 2000
KEPT_LINES = 40
OPEN_MAX = 64
_CHAINED = re.compile(
    r"(The above exception was the direct cause of the following|"
    r"During handling of the above exception, another) exception"
)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: |:$|$)")


@dataclass(slots=True)
class Episode:
    """A traceback that is being read.

    Attributes:
        prefix: what stood in front of its first line.
        chain: the number of its chain; chained tracebacks share it.
        lines: some of its lines, from the first, without the prefix.
        first_line: the number of its first line in the log.
        header: its first line, whole.
    """

    prefix: str
    chain: int
    first_line: int
    header: str
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def body(self, text: str) -> str | None:
        """What the line says if it is of this writer; None if somebody else wrote it."""
        size = len(self.prefix)
        if size and tag_of(text[:size]) == tag_of(self.prefix):
            return text[size:]
        if not text or text[0] in " \t" or text.startswith(START) or _EXCEPTION.match(text):
            return text
        return text if not size else None

    def add(self, body: str) -> bool:
        """Takes one of its lines; whether that is the last one, the exception."""
        self.count += 1
        if len(self.lines) >= KEPT_LINES:
            del self.lines[KEPT_LINES // 2]
        self.lines.append(body)
        last = bool(body.strip()) and body[0] not in " \t"
        return last or self.count >= LINES_MAX


@dataclass(slots=True)
class Closed:
    """A traceback that has ended, while one that is chained to it may follow."""

    episode: Episode
    linked: bool = False


class Episodes:
    """The tracebacks that are open in a stream of lines."""

    def __init__(self) -> None:
        self._open: list[Episode] = []
        self._closed: list[Closed] = []
        self._chains = 0

    def busy(self) -> bool:
        """Whether a line may belong to a traceback."""
        return bool(self._open)

    def begin(self, text: str, number: int) -> None:
        """A line with `START` in it."""
        prefix = text[: text.index(START)]
        chain = None
        for closed in self._closed:
            if closed.linked and tag_of(closed.episode.prefix) == tag_of(prefix):
                chain = closed.episode.chain
                self._closed.remove(closed)
                break
        if chain is None:
            self._chains += 1
            chain = self._chains
        if len(self._open) >= OPEN_MAX:
            self._open.pop(0)
        self._open.append(Episode(prefix, chain, number, text))

    def link(self, text: str) -> bool:
        """Whether the line says that another traceback is chained to the last one of its writer."""
        match = _CHAINED.search(text)
        if match is None:
            return False
        tag = tag_of(text[: match.start()])
        for closed in reversed(self._closed):
            if tag_of(closed.episode.prefix) == tag or not tag:
                closed.linked = True
                break
        return True

    def take(self, text: str) -> tuple[Episode | None, str | None]:
        """Offers a line to the open tracebacks.

        Returns:
            (episode, body): the line belongs to it; the episode is None where none wants the line,
            and the body None where it was not the last one.
        """
        for episode in reversed(self._open):
            body = episode.body(text)
            if body is None:
                continue
            if not episode.add(body):
                return episode, None
            self._open.remove(episode)
            self._closed = [*self._closed[-OPEN_MAX:], Closed(episode)]
            return episode, body
        return None, None
