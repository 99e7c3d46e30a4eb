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
_RUNS_MAX = 12
_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\((?:\?(?::|P<\w+>|[aimsu]+(?:-[ims]+)?:|(?P<look><?[=!])))?")
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
        needs: for each of the pattern's alternatives lists of such literals: a match of it holds
            one of each list; empty if nothing is known.
        digits: whether it asks for certain digits, so that two lines that differ in digits only
            may differ in whether they match.
        literals: every literal character, in order: what a slow line is made of.
    """

    compiled: re.Pattern[str]
    words: tuple[str, ...]
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    digits: bool
    literals: str

    def may_match(self, low: str) -> bool:
        """Whether a text in lower case holds what a match needs: quicker than to search."""
        if not self.needs:
            return True
        for lists in self.needs:
            for words in lists:
                for word in words:
                    if word in low:
                        break
                else:
                    break  # none of these words: not this alternative
            else:
                return True
        return False


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
    digits = bool(re.search(r"\d", literals))
    return Pattern(compiled, _words(branches) or (), _needs(branches), digits, literals)


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
            raise self.refused("groups may be (…), (?:…), (?P<name>…), (?i:…) and look-arounds")
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
        choices = _choices(branch)
        if not choices:
            return None
        best = max(choices, key=lambda words: (min(map(len, words)), -len(words)))
        found += best
    return tuple(dict.fromkeys(found)) if 0 < len(found) <= _WORDS_MAX else None


def _needs(branches: tuple[tuple[Item, ...], ...]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """For each alternative what `_choices` says; empty if one of them needs nothing."""
    found = tuple(tuple(_choices(branch)) for branch in branches)
    return found if all(found) else ()


def _choices(items: tuple[Item, ...]) -> list[tuple[str, ...]]:
    """For each part of a sequence that has any: words of which it holds one."""
    choices: list[tuple[str, ...]] = []
    runs: tuple[str, ...] = ("",)
    for item in (*items, Item("set")):
        literals = _literal_branches(item)
        if literals and item.least >= 1 and len(runs) * len(literals) <= _RUNS_MAX:
            runs = tuple(run + literal for run in runs for literal in literals)
            if item.most == 1:
                continue  # what follows is a part of the same words
        elif item.kind == "edge" and not item.branches:
            continue  # stands between two characters, and is none
        if min(map(len, runs)) >= _WORD_CHARS_MIN:
            choices.append(runs)
        runs = ("",)
        if item.kind == "group" and item.least >= 1 and (inner := _words(item.branches)):
            choices.append(inner)
    return choices


def _literal_branches(item: Item) -> tuple[str, ...]:
    """The texts that an item stands for, in lower case; none if these are not all literal."""
    if item.kind == "char":
        # Lines that differ in digits count as alike, so no word may depend on one.
        return (item.text.lower(),) if item.text.isascii() and not item.text.isdigit() else ()
    found = []
    for branch in item.branches if item.kind == "group" else ():
        texts = [_literal_branches(one) for one in branch]
        if any(
            len(some) != 1 or one.most != 1 or one.least != 1
            for some, one in zip(texts, branch, strict=True)
        ):
            return ()
        found.append("".join(some[0] for some in texts))
    return tuple(found)
