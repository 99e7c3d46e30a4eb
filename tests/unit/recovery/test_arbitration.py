"""Ranks of a training that fail in the same step do the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import RankArbiter
from penstock.errors import UsageError
from penstock.recovery.arbitration import GRAVITY, Proposal, Ruling, gravest
from penstock.recovery.incidents import load_all
from penstock.recovery.operator_socket import request
from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
from penstock.recovery.session import Session
from penstock.recovery.waiting import IncidentOperator

PROPOSALS = st.builds(
    Proposal, st.integers(0, 99), st.sampled_from(Action), st.sampled_from(["f", "g"])
)


@given(st.lists(PROPOSALS, min_size=1, unique_by=lambda one: one.rank), st.randoms())
def test_a_ruling_does_not_depend_on_the_order_of_the_proposals(
    proposals: list[Proposal], chance: Any
) -> None:
    made = gravest(proposals)
    chance.shuffle(proposals)
    assert gravest(proposals) == made
    gravity = [GRAVITY.index(one.action) for one in proposals]
    assert GRAVITY.index(made.action) == max(gravity)
    same = [one.rank for one in proposals if one.action is made.action]
    assert made.rank == min(same)
    with pytest.raises(ValueError, match="nobody"):
        gravest([])


def test_every_action_has_its_gravity() -> None:
    assert sorted(GRAVITY) == sorted(Action)


class Board:
    """What the dispatcher is to the ranks, in this process."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._changed = threading.Condition()
        self._proposals: dict[tuple[int, int], list[Proposal]] = {}
        self.rulings: dict[tuple[int, int], Ruling] = {}

    def seat(self, rank: int) -> Seat:
        return Seat(self, rank)

    def propose(self, key: tuple[int, int], proposal: Proposal, alone: bool) -> Ruling:
        with self._changed:
            made = [proposal] if alone else self._proposals.setdefault(key, [])
            made += [] if alone else [proposal]
            if key not in self.rulings and (alone or len(made) == self._ranks):
                self.rulings[key] = gravest(made)
                self._changed.notify_all()
            return self.listen(key, 20) or pytest.fail("no ruling")

    def listen(self, key: tuple[int, int], timeout_s: float) -> Ruling | None:
        with self._changed:
            self._changed.wait_for(lambda: key in self.rulings, timeout_s)
            return self.rulings.get(key)


class Seat:
    def __init__(self, board: Board, rank: int) -> None:
        self._board, self.rank = board, rank

    def rule(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        proposal = Proposal(self.rank, action, fingerprint)
        return self._board.propose((step, round), proposal, alone=False)

    def answer(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        proposal = Proposal(self.rank, action, fingerprint)
        return self._board.propose((step, round), proposal, alone=True)

    def await_answer(self, step: int, round: int, timeout_s: float) -> Ruling | None:
        return self._board.listen((step, round), timeout_s)


def train(
    board: Board, rank: int, rules: tuple[RecoveryRule, ...], operator: Any = None
) -> list[int]:
    """Rank 0 fails because of step 3, twice; rank 1 because its peer is gone."""
    policy = RecoveryPolicy(rules, operator_timeout_s=30)
    session = Session(range(6), policy, operator=operator, arbiter=board.seat(rank))
    trained = []
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                if step.number == 3 and attempt.attempt <= 2:
                    raise ValueError("NaN") if rank == 0 else ConnectionError("peer is gone")
                trained.append(step.batch)
    return trained


def both(*arguments: tuple[Any, ...]) -> list[list[int]]:
    with ThreadPoolExecutor(2) as pool:
        ranks = [pool.submit(train, *each) for each in arguments]
        return [rank.result(60) for rank in ranks]


RETRY = RecoveryRule(ConnectionError, "retry", 5)


def test_a_skip_of_one_rank_is_everybodys() -> None:
    board = Board(2)
    ladder = (RecoveryRule(ValueError, "retry"), RecoveryRule(ValueError, "skip"))
    assert both((board, 0, ladder), (board, 1, (RETRY,))) == [[0, 1, 2, 4, 5]] * 2
    assert {key: made.action.value for key, made in board.rulings.items()} == {
        (3, 0): "retry",
        (3, 1): "skip",
    }


def test_one_rank_asks_the_operator_and_the_others_do_as_it_is_told(tmp_path: Path) -> None:
    board = Board(2)
    wait = (RecoveryRule(ValueError, "wait", 5),)

    def answer(number: int, action: str) -> None:
        for _ in range(3000):
            open_now = [one for one in load_all(tmp_path) if one.waiting]
            if open_now and len(load_all(tmp_path)) == number:
                request(open_now[0].directory, {"version": 1, "do": action})
                return
            threading.Event().wait(0.01)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: [answer(1, "retry"), answer(2, "skip")])
        ranks = both((board, 0, wait, IncidentOperator(tmp_path)), (board, 1, (RETRY,), None))
        told.result(60)
    assert ranks == [[0, 1, 2, 4, 5]] * 2
    assert len(load_all(tmp_path)) == 2, "nobody else asks"


def test_an_interrupt_asks_nobody() -> None:
    board = Board(2)
    session = Session(range(3), RecoveryPolicy(), arbiter=board.seat(0))
    step = next(session.steps())
    attempt = next(step.attempts())

    def interrupt() -> None:
        with attempt:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert board.rulings == {}


def test_a_rank_that_cannot_do_what_was_ruled_says_so() -> None:
    board = Board(1)
    board.rulings[3, 0] = Ruling(Action.REWIND, 7, "f")
    with pytest.raises(ValueError, match="NaN"):
        train(board, 0, (RecoveryRule(ValueError, "skip"),))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"group": ""}, "group"),
        ({"rank": 2}, "rank must be less than ranks"),
        ({"ranks": 0}, "ranks"),
        ({"vote_s": 0}, "vote_s"),
        ({"vote_s": 1e9}, "vote_s"),
        ({"timeout_s": True}, "timeout_s"),
    ],
)
def test_a_wrong_argument_is_named(more: dict[str, Any], named: str) -> None:
    fields = {"group": "run", "rank": 1, "ranks": 2, **more}
    with pytest.raises(UsageError, match=named):
        RankArbiter("localhost:1", fields.pop("group"), **fields)
