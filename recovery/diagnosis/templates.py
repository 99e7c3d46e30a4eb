"""Templates of lines, in the way of Drain (He et al., 2017): lines that differ in values are one.

What varies in every line (numbers, addresses, paths, ids) is masked first. A line then goes down a
tree of fixed depth, by its number of words and its first words, to a few groups of templates, and
joins the most similar one or founds its own; where they differ, the template gets a wildcard. All
sizes are bounded: the least used template of a full group makes room.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..fingerprints import mask

ANY = "<*>"
SIMILARITY = 0.6
GROUP_TEMPLATES_MAX = 32
GROUPS_MAX = 4096
WORDS_MAX = 60
_PREFIX_WORDS = 2
_KINDS = {
    "<n>": r"[-+]?\d[\d.:,e+-]*",
    "<hex>": r"[0-9A-Fa-fx]{1,80}",
    "<uuid>": r"[0-9A-Fa-f-]{36}",
    "<ip>": r"\d[\d.:]*",
    "<path>": r"/[\w./+@=-]+",
    "<time>": r"\d[\d:.,TZ /-]+",
    ANY: r"\S+",
}
_KIND = re.compile("(" + "|".join(map(re.escape, _KINDS)) + ")")
#: A word that says more than who wrote a line, when, and how grave it is.
_SAYS = re.compile(
    r"(?!\W*(?:rank|pid|error|fatal|critical|warn|warning|info|debug)\W*$)[a-z]{2}", re.IGNORECASE
)
PHRASE_WORDS_MAX = 24


@dataclass(slots=True)
class Template:
    """What lines have in common.

    Attributes:
        words: the words, `ANY` where they differ.
        count: how many lines joined.
        example: the first of them.
    """

    words: list[str]
    count: int = 1
    example: str = ""

    @property
    def text(self) -> str:
        """The words with blanks between."""
        return " ".join(self.words)


@dataclass(slots=True)
class Miner:
    """Finds the templates of a stream of lines, in bounded memory."""

    _groups: dict[tuple[int, tuple[str, ...]], list[Template]] = field(default_factory=dict)

    def add(self, line: str) -> Template:
        """Puts one line in; returns its template as it is now."""
        words = mask(line).split()[:WORDS_MAX] or [""]
        key = (len(words), tuple(words[:_PREFIX_WORDS]))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                self._groups.pop(next(iter(self._groups)))
            group = self._groups[key] = []
        best = max(group, key=lambda one: _similar(one.words, words), default=None)
        if best is not None and _similar(best.words, words) >= SIMILARITY:
            best.count += 1
            best.words = [a if a == b else ANY for a, b in zip(best.words, words, strict=True)]
            return best
        if len(group) >= GROUP_TEMPLATES_MAX:
            group.remove(min(group, key=lambda one: one.count))
        group.append(Template(words, example=line))
        return group[-1]

    def templates(self) -> list[Template]:
        """All templates, the most frequent one first."""
        found = [one for group in self._groups.values() for one in group]
        return sorted(found, key=lambda one: -one.count)


def _similar(one: list[str], other: list[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def to_pattern(template: Template) -> str:
    """A regular expression of whole lines of a template: what `filters` keep."""
    return r"^\s*" + r"\s+".join(map(_expression, template.words)) + r"\s*$"


def to_phrase(template: Template) -> str:
    """A regular expression of what such lines say, whoever wrote them and when: for rules."""
    words = template.words[:PHRASE_WORDS_MAX]
    said = [bool(_SAYS.search(_KIND.sub("", word))) for word in words]
    first = said.index(True) if any(said) else 0
    return r"\s+".join(map(_expression, words[first:]))


def _expression(word: str) -> str:
    parts = _KIND.split(word)
    return "".join(_KINDS.get(part) or re.escape(part) for part in parts)
