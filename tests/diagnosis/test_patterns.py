"""Which patterns are accepted, what is known of them, and that none of them can hang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.regexes import PATTERN_CHARS_MAX, accept
from penstock.recovery.diagnosis.rules import slow_rules
from penstock.recovery.diagnosis.screen import screen_of
from penstock.recovery.diagnosis.trial import PATTERN_SECONDS_MAX, try_out


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "([a-z]+)*x",
        "(a|aa)+$",
        "(a|a?)+$",
        "((ab)+c?)+$",
        r"(\w+\s?)+:",
        "(?:(?:x+y*){2,})z",
        r"(a)\1+b",
        "(?P<a>x)(?P=a)",
        "(" * 9 + "a" + ")" * 9,
        "a" * (PATTERN_CHARS_MAX + 1),
        "",
        "(",
        "a**",
        "x*",
        ".*",
        "(?x) a b",
        "(?x:(a+) +)b",
        "(?(1)a|b)",
        7,
        None,
    ],
)
def test_a_pattern_without_a_useful_bound_is_refused_by_name(pattern: object) -> None:
    with pytest.raises(UsageError, match="rule seven"):
        accept(pattern, name="rule seven")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("NCCL timeout", ("nccl timeout",)),
        (r"error \d+ at", ("error ",)),
        ("(?:killed|died) at once", ("killed at once", "died at once")),
        ("no (?:nan|inf)(?: is)? here", ("no nan", "no inf")),
        ("no (?:nan|inf)+ is here", (" is here",)),
        ("Errno 28: full", ("errno ",)),
        ("(?:killed|oomed)", ("killed", "oomed")),
        ("x?out of memory", ("out of memory",)),
        (r"\bERROR\b", ("error",)),
        ("(?:a|killed)", ()),
        (r"\d+", ()),
    ],
)
def test_the_words_of_a_pattern_stand_in_each_match(pattern: str, words: tuple[str, ...]) -> None:
    assert accept(pattern, name="it").words == words


@pytest.mark.parametrize(
    ("pattern", "text", "may"),
    [
        ("worker .* (?:is lost|has died)", "worker seven is busy", False),
        ("worker .* (?:is lost|has died)", "worker seven has died", True),
        ("lost it|worker .* died", "it died", False),
        ("lost it|worker .* died", "they lost it", True),
        (r"\d+", "nothing of the kind", True),
    ],
)
def test_a_text_without_what_an_alternative_needs_is_not_searched(
    pattern: str, text: str, may: bool
) -> None:
    assert accept(pattern, name="it").may_match(text) is may


def test_whether_digits_matter_is_known() -> None:
    assert accept("Xid 79", name="it").digits
    assert not accept(r"step \d+", name="it").digits


def test_a_pattern_that_is_slow_by_a_power_is_found_by_trying() -> None:
    slow = accept(r"a.*a.*a.*a.*a.*b", name="slow")
    quick = accept("out of memory", name="quick")
    refused = try_out({"quick": quick, "slow": slow, "also quick": quick, "also slow": slow})
    assert set(refused) == {"slow", "also slow"}


def test_the_built_in_patterns_are_far_from_slow() -> None:
    assert slow_rules(builtin_rules()) == {}
    assert PATTERN_SECONDS_MAX == 1.0


@given(st.lists(st.sampled_from([*"eorst ", "err", "error", "cuda", "token", "Wor", "rank"])))
def test_words_are_found_also_where_one_begins_within_another(parts: list[str]) -> None:
    screen, low = screen_of(builtin_rules()), "".join(parts).lower()
    wanted = {found for at in range(len(low)) if (found := screen.first.match(low, at))}
    assert screen.hits(low) == {found[0] for found in wanted}
