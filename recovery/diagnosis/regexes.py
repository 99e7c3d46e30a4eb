"""Regular expressions that rules and filters may have: what is in them, and which are refused.

Python's engine backtracks, so a pattern such as `(a+)+$` can take longer than the universe lasts.
Patterns come from files, so each is read here first, by a small reader of our own. What repeats a
repetition, or an alternation whose branches may begin alike, is refused, as are back-references;
what is left can be slow by a power of the line's length only, and lines are cut. How slow it is
for lines made to be slow is then measured in another process (`trial`), which can be ended.

The same reader finds the literal words without which a pattern cannot match: the scanner looks for
those in the bytes of a log, and runs the pattern only where one is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...errors import UsageError

PATTERN_CHARS_MAX = 1000
DEPTH_MAX = 8
#: Repetitions up to this often are taken for "a few": their product stays small.
_FEW = 16
_ENDLESS = 1 << 20
_WORD_CHARS_MIN = 3
_WORDS_MAX = 40
_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\((?:\?(?::|P<\w+>|[aimsux]+(?:-[imsx]+)?:|(?P<look><?[=!])))?")
_FLAGS = re.compile(r"\(\?[aimsux]+\)")


@dataclass(frozen=True, slots=True)
class Item:
    """One atom of a sequence, and how often it may come.

    Attributes:
        kind: "char", "set" (one of several characters), "edge" (matches no character), "group".
        text: the character of a "char".
        branches: the alternatives of a "group".
        least, most: bounds of the repetition.
    """

    kind: str
    text: str = ""
    branches: tuple[tuple[Item, ...], ...] = ()
    least: int = 1
    most: int = 1


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was accepted.

    Attributes:
        compiled: as Python runs it.
        words: lower-case literals of which one stands in every match; empty if there are none.
        digits: whether it asks for certain digits, so that two lines that differ in digits only
            may differ in whether they match.
        literals: every literal character, in order: what a slow line is made of.
    """

    compiled: re.Pattern[str]
    words: tuple[str, ...]
    digits: bool
    literals: str


def accept(text: object, *, name: str, ignore_case: bool = True) -> Pattern:
    """Reads, checks and compiles a pattern.

    Args:
        text: the pattern.
        name: what it is called in an error, such as "rule nccl_timeout".
        ignore_case: whether upper and lower case are the same to it.

    Raises:
        UsageError: it is not a pattern, too long, nested too deeply, or of a form whose time has
            no useful bound.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= PATTERN_CHARS_MAX:
        raise UsageError(
            f"{name}: pattern must be a text of 1 to {PATTERN_CHARS_MAX} characters,"
            f" not {text!r:.80}"
        )
    try:
        compiled = re.compile(text, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"{name}: pattern {text!r:.80} is not a regular expression: {error}"
        ) from None
    branches = _Reader(text, name).whole()
    for branch in branches:
        _check(branch, name)
    if compiled.search("") is not None:
        raise UsageError(f"{name}: pattern {text!r:.80} matches an empty line, so it matches all")
    literals = "".join(_literals(branches))
    return Pattern(compiled, _words(branches) or (), bool(re.search(r"\d", literals)), literals)


@dataclass(slots=True)
class _Reader:
    """Reads what `re` has accepted: so what is not understood is refused, not misread."""

    text: str
    name: str
    at: int = 0
    depth: int = 0
    _refused: str = field(default="", repr=False)

    def whole(self) -> tuple[tuple[Item, ...], ...]:
        """The alternatives of the whole pattern."""
        if flags := _FLAGS.match(self.text):
            if "x" in flags[0]:
                raise self.refused("verbose patterns (?x) are not accepted")
            self.at = flags.end()
        return self._branches()

    def refused(self, why: str) -> UsageError:
        return UsageError(f"{self.name}: pattern {self.text!r:.80} is refused: {why}")

    def _branches(self) -> tuple[tuple[Item, ...], ...]:
        branches: list[tuple[Item, ...]] = []
        items: list[Item] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                branches.append(tuple(items))
                items = []
            else:
                items.append(self._repeated(self._atom()))
        return (*branches, tuple(items))

    def _atom(self) -> Item:
        char = self.text[self.at]
        if char == "(":
            return self._group()
        if char == "[":
            return self._set()
        if char == "\\":
            return self._escape()
        self.at += 1
        if char == ".":
            return Item("set")
        return Item("edge") if char in "^$" else Item("char", char)

    def _escape(self) -> Item:
        char = self.text[self.at + 1]
        self.at += 2
        if char.isdigit():
            raise self.refused("it refers back to what a group matched")
        if char in "bBAZ":
            return Item("edge")
        if char in "dDsSwW":
            return Item("set")
        if char.isalpha():  # \n, \x41, …: what they stand for is not needed here
            self.at += {"x": 2, "u": 4, "U": 8}.get(char, 0)
            if char == "N":
                raise self.refused("named characters are not accepted")
            return Item("set")
        return Item("char", char)

    def _set(self) -> Item:
        self.at += 1
        if self.text.startswith("^", self.at):
            self.at += 1
        first = self.at
        while self.text[self.at] != "]" or self.at == first:
            self.at += 2 if self.text[self.at] == "\\" else 1
        self.at += 1
        return Item("set")

    def _group(self) -> Item:
        match = _GROUP.match(self.text, self.at)
        if match is None or self.text.startswith("?", match.end()):
            raise self.refused("groups may be (…), (?:…), (?P<name>…) and look-arounds")
        self.at = match.end()
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.refused(f"groups are nested more than {DEPTH_MAX} deep")
        branches = self._branches()
        self.depth -= 1
        self.at += 1  # the closing parenthesis, which re saw
        return Item("edge" if match["look"] else "group", branches=branches)

    def _repeated(self, item: Item) -> Item:
        least, most = 1, 1
        char = self.text[self.at : self.at + 1]
        if char and char in "*+?":
            self.at += 1
            least, most = {"*": (0, _ENDLESS), "+": (1, _ENDLESS), "?": (0, 1)}[char]
        elif char == "{" and (braces := _BRACES.match(self.text, self.at)) and braces[0] != "{}":
            self.at = braces.end()
            least = int(braces[1] or 0)
            most = int(braces[3] or _ENDLESS) if braces[2] else least
        else:
            return item
        if self.text[self.at : self.at + 1] in ("?", "+"):
            self.at += 1
        return Item(item.kind, item.text, item.branches, least, most)


def _check(items: tuple[Item, ...], name: str) -> None:
    """Refuses what may take a time that is exponential in a line's length."""
    for item in items:
        for branch in item.branches:
            _check(branch, name)
        if not item.branches or item.most <= 1:
            continue
        if item.kind == "edge":
            raise UsageError(f"{name}: pattern is refused: it repeats a look-around")
        inner = [most for branch in item.branches for most in _variable(branch)]
        if inner and (item.most > _FEW or max(inner) > _FEW):
            raise UsageError(
                f"{name}: pattern is refused: it repeats a group that holds a repetition, which"
                " may take for ever; repeat a set of characters such as [a-z ]+ instead"
            )
        if item.most > _FEW and len(item.branches) > 1 and not _begin_apart(item.branches):
            raise UsageError(
                f"{name}: pattern is refused: it repeats alternatives that may begin alike; use"
                " a set of characters instead"
            )


def _variable(items: tuple[Item, ...]) -> list[int]:
    """The upper bounds of what may come more or less often, at any depth."""
    own = [item.most for item in items if item.least != item.most]
    return own + [most for item in items for branch in item.branches for most in _variable(branch)]


def _begin_apart(branches: tuple[tuple[Item, ...], ...]) -> bool:
    firsts = [branch[0] if branch else Item("edge") for branch in branches]
    if any(first.kind != "char" or first.least < 1 for first in firsts):
        return False
    return len({first.text.lower() for first in firsts}) == len(firsts)


def _literals(branches: tuple[tuple[Item, ...], ...]) -> list[str]:
    found = []
    for branch in branches:
        for item in branch:
            found += [item.text] if item.kind == "char" else _literals(item.branches)
    return found


def _words(branches: tuple[tuple[Item, ...], ...]) -> tuple[str, ...] | None:
    """Literals of which each match of these alternatives holds one; None if there are none."""
    found: list[str] = []
    for branch in branches:
        best = _best(branch)
        if best is None:
            return None
        found += best
    return tuple(dict.fromkeys(found)) if 0 < len(found) <= _WORDS_MAX else None


def _best(items: tuple[Item, ...]) -> tuple[str, ...] | None:
    """The choice of words for a sequence whose shortest word is longest."""
    choices: list[tuple[str, ...]] = []
    run = ""
    for item in (*items, Item("set")):
        if item.kind == "char" and item.least == item.most == 1 and item.text.isascii():
            run += item.text.lower()
            continue
        if item.kind == "char" and item.least >= 1 and item.text.isascii():
            run += item.text.lower()  # once at least; then something else may follow
        if item.kind == "edge" and not item.branches:
            continue  # stands between two characters, and is none
        if len(run) >= _WORD_CHARS_MIN:
            choices.append((run,))
        run = ""
        if item.kind == "group" and item.least >= 1 and (inner := _words(item.branches)):
            choices.append(inner)
    return max(choices, key=lambda words: (min(map(len, words)), -len(words)), default=None)
