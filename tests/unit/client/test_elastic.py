"""A member between two elements: when it resizes, in which order its hooks run, what it counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.client import elastic
from penstock.client.elastic import Member
from penstock.client.options import checked_consumer
from penstock.client.reader import Reader
from penstock.errors import ResizedError, UsageError
from penstock.proto.control_pb2 import JoinGroupReply
from penstock.proto.position import Consumer


class FakeReader:
    """A reader of 0, 1, 2, … that goes on where it was committed, whoever it is.

    It knows the end of an epoch as soon as its last element is taken.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.log: list[str] = []
        self.engine = SimpleNamespace(joining=0, gone=())
        self.consumer: Consumer | None = Consumer(0, 1, 1)
        self.passes_over = True
        self.epoch: int | None = None
        self._next_epoch = 0
        self.refusals: list[str] = []
        self._begin = self._committed = 0

    @property
    def session(self) -> Any:
        give_up = partial(self.log.append, "give up")
        return SimpleNamespace(
            start=self._start, join=self._join, leave=self._leave, give_up=give_up
        )

    @property
    def job(self) -> Any:
        return SimpleNamespace(consumer=self.consumer, next_epoch=(self._next_epoch,))

    def commit(self, taken: int) -> None:
        self._committed = self._begin + taken
        self.log.append(f"commit {self._committed}")

    def restore(self, position: str, *, consumer: tuple[int, ...]) -> None:
        assert position == "committed"
        self.consumer = Consumer(*consumer)
        self._next_epoch += self._committed // self.end
        self._begin = self._committed % self.end
        self.log.append(f"restore {consumer[0]} of {consumer[1]}")

    def close(self) -> None:
        self.log.append("close")

    def __enter__(self) -> FakeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[int]:
        self.epoch = self._next_epoch
        yield from range(self._begin, self.end)

    def _start(self) -> Any:
        if self.refusals:
            raise ResizedError(self.refusals.pop())
        return self.engine

    def _join(self, member: str) -> JoinGroupReply:
        assert member
        self.engine.joining, self.engine.gone = 0, ()
        self.log.append("meet")
        return JoinGroupReply(seated=True, rank=1, world=2, generation=2)

    def _leave(self) -> None:
        self.log.append("leave")


def test_a_resize_comes_between_two_elements_and_loses_and_repeats_none() -> None:
    reader = FakeReader(6)
    seen: list[int] = []
    with elastic.member(
        cast(Reader, reader),
        before_resize=lambda member: (reader.log.append("before"), member.commit()),
        after_resize=lambda member: reader.log.append(f"after {member.membership}"),
    ) as member:
        for element in member:
            seen.append(element)
            reader.engine.joining = int(element == 2)
            assert member.pending == (element == 2)
        assert member.taken == 3
    assert seen == [0, 1, 2, 3, 4, 5]
    assert reader.log == [
        *("before", "commit 3", "meet", "restore 1 of 2"),
        "after Membership(rank=1, world=2, generation=2)",
        "close",
    ]


def test_a_resize_after_the_last_element_of_an_epoch_ends_the_iteration() -> None:
    reader = FakeReader(3)
    with elastic.member(cast(Reader, reader)) as member:
        seen = []
        for element in member:
            seen.append(element)
            reader.engine.joining = int(element == 2)
        assert seen == [0, 1, 2]
        assert list(member) == [0, 1, 2]
        assert reader.epoch == 1
    assert reader.log == ["commit 3", "meet", "restore 1 of 2", "close"]


def test_a_member_that_comes_late_to_a_resized_group_meets_the_others_again() -> None:
    reader = FakeReader(2)
    reader.refusals = ["generation 3", "generation 2"]
    with elastic.member(cast(Reader, reader)) as member:
        assert list(member) == [0, 1]
    assert reader.log == ["meet", "restore 1 of 2", "meet", "restore 1 of 2", "close"]


def test_by_default_what_was_handed_out_is_committed() -> None:
    reader = FakeReader(3)
    with elastic.member(cast(Reader, reader)) as member:
        elements = iter(member)
        assert [next(elements), next(elements)] == [0, 1]
        reader.engine.joining = 1
        assert list(elements) == [2]
        member.leave()
    assert reader.log == ["commit 2", "meet", "restore 1 of 2", "commit 3", "leave", "close"]


@pytest.mark.parametrize(("policy", "pending"), [("wait", False), ("redistribute", True)])
def test_one_that_is_gone_is_waited_for_or_not(policy: str, pending: bool) -> None:
    reader = FakeReader(3)
    with elastic.member(cast(Reader, reader), on_consumer_death=policy) as member:
        assert not member.pending
        reader.engine.gone = (1,)
        assert member.pending == pending


@pytest.mark.parametrize(
    ("policy", "log"), [("wait", ["close"]), ("redistribute", ["give up", "close"])]
)
def test_a_training_that_raises_has_died_and_is_not_done(policy: str, log: list[str]) -> None:
    reader = FakeReader(3)
    with (
        contextlib.suppress(ZeroDivisionError),
        elastic.member(cast(Reader, reader), on_consumer_death=policy) as member,
    ):
        next(iter(member))
        raise ZeroDivisionError
    assert reader.log == log


def test_trainings_that_step_together_leave_at_the_step_that_all_agree_on() -> None:
    asked: list[bool] = []

    def agree(mine: bool) -> bool:
        asked.append(mine)
        return len(asked) == 3  # the others hear of it two steps later

    reader = FakeReader(5)
    with elastic.member(cast(Reader, reader), agree=agree) as member:
        reader.engine.joining = 1
        assert list(member) == [0, 1, 2, 3, 4]
    assert asked[:4] == [True, True, True, False]
    assert reader.log[0] == "commit 3"


@pytest.mark.parametrize("seat", [(0,), ("a", 0, 2), (0, 2, 0.5), (0, 2, None), (2, 2), (-1, 2), 3])
def test_what_is_no_seat_is_refused(seat: object) -> None:
    with pytest.raises(UsageError, match=r"consumer must be \(rank, world\)"):
        checked_consumer(seat, "train")
    assert checked_consumer([1, 2, 3], "train") == Consumer(1, 2, 3)


def test_another_source_is_counted_instead() -> None:
    reader = FakeReader(3)
    with elastic.member(cast(Reader, reader), source=lambda: [[1, 2], [3]]) as member:
        assert list(member) == [[1, 2], [3]]
        assert isinstance(member, Member)
        member.commit()
    assert reader.log == ["commit 2", "close"]
