"""The soak's judge: it must see every kind of mistake, and none where there is none."""

from __future__ import annotations

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.soak.verdicts import Checker, Injected, cause_of, overlaps, verdict_of

elements = st.lists(st.binary(min_size=1, max_size=2), min_size=2, max_size=40)
places = st.integers(0, 1 << 30)


@given(elements, st.randoms())
def test_any_order_of_the_right_elements_is_exact(sequence: list[bytes], random) -> None:
    shuffled = list(sequence)
    random.shuffle(shuffled)
    assert verdict_of(Counter(sequence), shuffled).exact


@given(elements, places)
def test_a_lost_element_is_noticed(sequence: list[bytes], place: int) -> None:
    received = list(sequence)
    del received[place % len(received)]
    verdict = verdict_of(Counter(sequence), received)
    assert (verdict.lost, verdict.duplicated, verdict.altered) == (1, 0, 0)


@given(elements, places, places)
def test_a_repeated_element_is_noticed(sequence: list[bytes], which: int, where: int) -> None:
    received = list(sequence)
    received.insert(where % (len(sequence) + 1), sequence[which % len(sequence)])
    verdict = verdict_of(Counter(sequence), received)
    assert (verdict.lost, verdict.duplicated, verdict.altered) == (0, 1, 0)


@given(elements, places)
def test_an_altered_element_is_noticed(sequence: list[bytes], place: int) -> None:
    received = list(sequence)
    received[place % len(received)] = b"none of them"
    verdict = verdict_of(Counter(sequence), received)
    assert (verdict.lost, verdict.duplicated, verdict.altered) == (0, 0, 1)


@given(elements, places, places)
def test_one_that_takes_the_place_of_another_is_noticed(
    sequence: list[bytes], one: int, other: int
) -> None:
    one, other = one % len(sequence), other % len(sequence)
    assume(sequence[one] != sequence[other])
    received = list(sequence)
    received[one] = sequence[other]
    verdict = verdict_of(Counter(sequence), received)
    assert (verdict.lost, verdict.duplicated) == (1, 1)


@given(elements, places, places)
def test_two_misplaced_elements_are_noticed(sequence: list[bytes], one: int, other: int) -> None:
    one, other = one % len(sequence), other % len(sequence)
    assume(sequence[one] != sequence[other])
    received = list(sequence)
    received[one], received[other] = received[other], received[one]
    verdict = verdict_of(Counter(sequence), received, reference=sequence)
    assert verdict.misplaced == 2
    assert (verdict.lost, verdict.duplicated, verdict.altered) == (0, 0, 0)
    assert not verdict.exact


@given(elements, places)
def test_a_beginning_may_be_short_but_not_wrong(sequence: list[bytes], cut: int) -> None:
    truth, beginning = Counter(sequence), sequence[: cut % len(sequence)]
    assert verdict_of(truth, beginning, whole=False).exact
    assert verdict_of(truth, [*beginning, b"none of them"], whole=False).altered == 1
    assert verdict_of(truth, [*sequence, sequence[0]], whole=False).duplicated == 1


def test_the_order_of_an_epoch_is_held_against_every_later_reading() -> None:
    checker = Checker({"p": Counter([b"a", b"b", b"c"])})
    assert not checker.judge("p", 1, 0, [b"a", b"b", b"c"]).reread
    assert checker.judge("p", 1, 0, [b"a", b"b", b"c"]).reread
    assert checker.judge("p", 1, 0, [b"a", b"c", b"b"]).misplaced == 2
    # Another epoch, another seed: another order.
    assert checker.judge("p", 1, 1, [b"b", b"a", b"c"]).exact
    assert checker.judge("p", 2, 0, [b"b", b"a", b"c"]).exact


def test_the_beginning_that_a_killed_trainer_got_is_held_against_the_whole_epoch() -> None:
    checker = Checker({"p": Counter([b"a", b"b", b"c"])})
    assert checker.judge("p", 1, 0, [b"b", b"a"], whole=False).exact
    assert checker.judge("p", 1, 0, [b"a", b"b", b"c"]).misplaced == 2


def test_a_forgotten_seed_has_no_order() -> None:
    checker = Checker({"p": Counter([b"a", b"b"])})
    checker.judge("p", 1, 0, [b"a", b"b"])
    checker.forget("p", 1)
    assert not checker.judge("p", 1, 0, [b"b", b"a"]).reread


def test_a_wait_is_put_down_to_what_happened_shortly_before_and_meanwhile() -> None:
    faults = [Injected("early", 1.0), Injected("kill", 9.0), Injected("pause", 12.0)]
    assert cause_of(10.0, 13.0, faults, before_s=2.0) == "kill, then pause"
    assert cause_of(10.0, 11.0, faults, before_s=0.5) == "no fault"


def test_times_overlap_when_they_share_a_moment() -> None:
    assert overlaps(1.0, 3.0, [(2.0, float("inf"))])
    assert not overlaps(1.0, 2.0, [(2.0, 3.0), (0.0, 1.0)])
