"""Which rules may match a line, told from the words in it: ten times as fast as to search for them.

Each rule has words of which one stands in whatever it matches (`regexes.Pattern.words`). Most lines
that are looked at hold none of all rules' words, and are done with. Of another one all words are
found, and only the rules that own one of them, and whose other words are there as well, are tried.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .episodes import START

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .rules import Rule

PROGRESS = re.compile(
    r"\b(?:global[_ ]?)?(?:step|iter(?:ation)?|batch|update)s?\b[\"']?\s?[=:#]?\s?\[?\d+|"
    r"\bepoch\b[\"']?\s?[=:#\[]?\s?\d+.{0,40}\b(?:loss|acc)|\bloss\s?[=:]\s?-?\d",
    re.IGNORECASE,
)
_PROGRESS_WORDS = ("step", "iter", "batch", "update", "epoch", "loss")
#: Lines that look like trouble though no rule knows them: shown where there is nothing better.
NOTABLE = re.compile(r"\b(?:error|fatal|critical|panic|failed|exception|abort(?:ed|ing)?)\b", re.I)
_NOTABLE_WORDS = ("error", "fatal", "critical", "panic", "failed", "exception", "abort")


@dataclass(frozen=True, slots=True)
class Screen:
    """The words of rules.

    Attributes:
        first: finds one of the words.
        rules: by word, each with its own word: where that holds a shorter one, it is found by the
            shorter one.
        wordless: rules that have no words.
        progress_words, notable_words: those without which `PROGRESS` and `NOTABLE` match nothing.
    """

    first: re.Pattern[str]
    rules: Mapping[str, tuple[tuple[str, Rule], ...]]
    wordless: tuple[Rule, ...]
    progress_words: frozenset[str]
    notable_words: frozenset[str]

    def wants(self, low: str) -> bool:
        """Whether a line, in lower case, is worth another look."""
        return bool(self.wordless) or self.first.search(low) is not None

    def hits(self, low: str) -> set[str]:
        """The words in a text in lower case."""
        # A word may begin within another one. Hopping from one to the next is three times as fast
        # as a look-ahead at each letter: the engine skips letters with which no word begins.
        found: set[str] = set()
        search, match = self.first.search, self.first.search(low)
        while match is not None:
            found.add(match[0])
            match = search(low, match.start() + 1)
        return found

    def candidates(self, hits: set[str], low: str) -> list[Rule]:
        """Rules that may match a text in lower case in which these words are, in a fixed order."""
        found = {
            rule.id: rule
            for word in hits
            for longer, rule in self.rules.get(word, ())
            if longer in low and rule.pattern.may_match(low)
        }
        return [*sorted(found.values(), key=lambda rule: rule.id), *self.wordless]


@functools.lru_cache(maxsize=8)
def screen_of(rules: tuple[Rule, ...]) -> Screen:
    """The screen of these rules; made once for the same ones, since it takes 50 ms."""
    words = {word for rule in rules for word in rule.pattern.words}
    words |= {*_NOTABLE_WORDS, *_PROGRESS_WORDS, START.lower()}
    shorter: dict[str, str] = {}
    for word in sorted(words, key=lambda word: (len(word), word)):
        shorter[word] = next((one for one in shorter.values() if one in word), word)
    by_word: dict[str, list[tuple[str, Rule]]] = {}
    for rule in rules:
        for word in rule.pattern.words:
            by_word.setdefault(shorter[word], []).append((word, rule))
    return Screen(
        first=re.compile(_tree(set(shorter.values()))),
        rules={word: tuple(some) for word, some in by_word.items()},
        wordless=tuple(rule for rule in rules if not rule.pattern.words),
        progress_words=frozenset(shorter[word] for word in _PROGRESS_WORDS),
        notable_words=frozenset(shorter[word] for word in _NOTABLE_WORDS),
    )


def _tree(tails: set[str]) -> str:
    """A pattern that finds any of the words: a tree of their letters, so that most places of a
    line fail at the first letter or two, however many words there are."""
    heads: dict[str, set[str]] = {}
    for tail in tails - {""}:
        heads.setdefault(tail[0], set()).add(tail[1:])
    branches = [re.escape(head) + _tree(rest) for head, rest in sorted(heads.items())]
    return "" if "" in tails else f"(?:{'|'.join(branches)})"
