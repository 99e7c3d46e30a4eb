"""A fault's moment follows from seed, name and run, and lies in the middle of the epoch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.faults.catalog import TESTS
from penstock.faults.moments import EARLIEST, FIXED, LATEST, holds_of, share_of

NAMES = st.sampled_from([test.name for test in TESTS])


@given(seed=st.integers(0, 1 << 40), name=NAMES, run=st.integers(0, 1000))
def test_a_moment_is_a_pure_function_and_in_the_middle(seed: int, name: str, run: int) -> None:
    share = share_of(seed, name, run)
    assert share == share_of(seed, name, run)
    assert EARLIEST <= share <= LATEST


def test_seed_name_and_run_each_matter() -> None:
    shares = {share_of(s, n, r) for s in (1, 2) for n in ("recover", "killall") for r in (0, 1, 2)}
    assert len(shares) == 12


def test_a_moment_does_not_depend_on_the_python_that_draws_it() -> None:
    assert round(share_of(1, "recover", 0), 6) == 0.101345


def test_without_repetition_the_moment_is_fixed() -> None:
    assert share_of(1, "recover", None) == share_of(2, "pause", None) == FIXED


@given(
    share=st.floats(EARLIEST, LATEST),
    strikes=st.integers(0, max(test.strikes for test in TESTS)),
    elements=st.integers(100, 10_000),
)
def test_the_moments_of_one_epoch_are_apart_and_before_its_end(
    share: float, strikes: int, elements: int
) -> None:
    holds = holds_of(share, strikes, elements)
    assert len(holds) == strikes
    assert holds == sorted(set(holds))
    assert all(0 < hold < 0.9 * elements for hold in holds)
