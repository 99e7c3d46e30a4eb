"""Every failpoint of the source is in the matrix's table, and nothing else is."""

from __future__ import annotations

import pytest

from penstock.failpoints import VARIABLE, parse

from .points import (
    ALL,
    CHECKPOINTS,
    CLIENT,
    DISPATCHER,
    JOURNAL,
    WORKER,
    Visit,
    names_in,
    names_in_source,
)


def test_the_matrix_visits_every_failpoint_of_the_source_and_no_other() -> None:
    visited = {visit.name for visit in ALL}
    assert visited - names_in_source() == set(), "visited, but not in the source"
    assert names_in_source() - visited == set(), "in the source, but never visited"


def test_no_visit_is_in_the_table_twice() -> None:
    assert len({str(visit) for visit in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("owner", "visits"),
    [
        ("journal", JOURNAL),
        ("dispatcher", DISPATCHER),
        ("worker", WORKER),
        ("worker", CHECKPOINTS),
        ("client", CLIENT),
    ],
)
def test_a_name_begins_with_the_part_that_owns_it(owner: str, visits: tuple[Visit, ...]) -> None:
    assert [visit.name for visit in visits if visit.name.split(".")[0] != owner] == []


@pytest.mark.parametrize("visit", ALL, ids=str)
def test_every_name_can_be_set(visit: Visit) -> None:
    assert parse(f"{visit.name}=kill@{visit.at}")[visit.name].at == visit.at, VARIABLE


def test_a_name_that_is_not_a_literal_is_found_out() -> None:
    assert names_in("failpoint('a.b')\nfailpoints.failpoint('c')") == ["a.b", "c"]
    for source in ("failpoint(name)", "failpoint(f'a.{b}')", "failpoint()", "failpoint(1)"):
        with pytest.raises(ValueError, match=r"line 1: .*literal"):
            names_in(source)


def test_another_name_for_failpoint_is_found_out() -> None:
    with pytest.raises(ValueError, match="must not be called fp"):
        names_in("from ..failpoints import failpoint as fp")
