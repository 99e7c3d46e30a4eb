"""Live consumers: others join, leave and die, and every element is trained once all the same."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster, Reader
from penstock.client.elastic import Member, Membership
from penstock.errors import UnavailableError, UsageError
from penstock.timing import Timing

from .consumer import Consumer
from .pipelines import numbers

COUNT = 1500
QUICK = Timing(heartbeat_s=0.1, retry_max_s=0.1)


class Trainer(threading.Thread):
    """A training of one consumer that holds safe what it trained at each resize."""

    def __init__(
        self, cluster: LocalCluster, job: str, *, at_least: int = 1, wait: threading.Event
    ) -> None:
        super().__init__()
        self.trained: list[int] = []
        self.seats: list[Membership] = []
        self.joined = threading.Event()
        self.leave = threading.Event()
        self._cluster, self._job, self._at_least = cluster, job, at_least
        self._wait = wait
        self._held: list[int] = []
        self.start()

    def run(self) -> None:
        seat = penstock.elastic.join(
            self._cluster, self._job, at_least=self._at_least, timing=QUICK
        )
        reader = reading(self._cluster, self._job, seat)
        with penstock.elastic.member(
            reader, before_resize=self._save, after_resize=self._moved
        ) as member:
            self._moved(member)
            for number, element in enumerate(member):
                self._held.append(int(element[0]))
                if number == 50:
                    assert self._wait.wait(60)
                if self.leave.is_set():
                    member.leave()
                    return
            self._save(member)

    def _save(self, member: Member) -> None:
        member.commit()
        self.trained += self._held
        self._held.clear()

    def _moved(self, member: Member) -> None:
        self.seats.append(member.membership)
        self.joined.set()


def reading(cluster: Any, job: str, seat: tuple[int, ...], **more: Any) -> Reader:
    return Reader(
        numbers(COUNT, work=20),
        cluster,
        job_name=job,
        seed=5,
        consumer=seat,
        restore="committed",
        timing=QUICK,
        **more,
    )


def test_consumers_join_and_leave_while_the_others_live_on(shared_cluster: LocalCluster) -> None:
    go = threading.Event()
    first = [Trainer(shared_cluster, "elastic", at_least=2, wait=go) for _ in range(2)]
    for trainer in first:
        assert trainer.joined.wait(60)
    assert sorted(trainer.seats[0] for trainer in first) == [(0, 2, 1), (1, 2, 1)]
    late = Trainer(shared_cluster, "elastic", wait=go)
    late.leave.set()  # as soon as it has trained one
    go.set()
    for trainer in (*first, late):
        trainer.join(120)
        assert not trainer.is_alive()
    assert late.seats == [(2, 3, 2)]
    assert len(late.trained) == 1
    trained = Counter(value for trainer in (*first, late) for value in trainer.trained)
    assert trained == Counter(range(COUNT))
    assert {seat.generation for trainer in first for seat in trainer.seats} >= {1, 2}


def test_the_lanes_of_one_that_died_go_to_the_others_if_they_shall(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    with Reader(numbers(COUNT, work=20), shared_cluster, seed=5) as registering:
        fingerprint = registering.plan.streams[0].fingerprint
        assert registering.job.lanes == 16
    reader = Reader(
        fingerprint, shared_cluster, job_name="deaths", seed=5, consumer=(0, 2), timing=QUICK
    )
    trained: list[int] = []
    with penstock.elastic.member(reader, on_consumer_death="redistribute") as member:
        elements = iter(member)
        trained += [int(next(elements)[0]) for _ in range(10)]
        other = Consumer(shared_cluster.address, fingerprint, "deaths", 1, 2, tmp_path)
        trained += [value for _, value in other.ask("take 70")]
        other.ask("commit")
        other.ask("take 30")
        other.kill()
        other.close()
        engine = reader.session.start()
        with engine.changed:
            # One that is killed between two calls is only silent, for 60 s.
            assert engine.changed.wait_for(lambda: engine.gone == (1,), 150)
        assert engine.joining == 0, "nobody who waits for it would resize"
        trained += [int(element[0]) for element in elements]
        assert member.membership == (0, 1, 2)
    assert Counter(trained) == Counter(range(COUNT))


def test_processes_without_ranks_share_a_job(shared_cluster: LocalCluster) -> None:
    trained: list[int] = []
    held: list[int] = []

    def before(member: Member) -> None:
        member.commit()
        trained.extend(held)
        held.clear()

    def other() -> None:
        with contextlib.suppress(ZeroDivisionError), sharing(shared_cluster) as member:
            elements = iter(member)
            trained.extend(int(next(elements)[0]) for _ in range(20))
            member.commit()
            for _ in range(7):  # not committed: they come again
                next(elements)
            raise ZeroDivisionError  # its training has died

    with sharing(shared_cluster, before) as member:
        elements = iter(member)
        held += [int(next(elements)[0]) for _ in range(10)]
        late = threading.Thread(target=other)
        late.start()
        engine = member.reader.session.start()
        with engine.changed:
            assert engine.changed.wait_for(lambda: engine.joining, 60)
        for element in elements:
            held.append(int(element[0]))
            if member.membership.world == 2:
                late.join(60)  # else this half might be over before the other one has died
        before(member)
    assert not late.is_alive()
    assert Counter(trained) == Counter(range(COUNT))


def sharing(cluster: LocalCluster, before: Any = None) -> Any:
    return penstock.elastic.shared(
        numbers(COUNT, work=20),
        cluster,
        job_name="shared",
        seed=5,
        timing=QUICK,
        before_resize=before,
    )


def test_what_is_no_member_is_told_why(shared_cluster: LocalCluster) -> None:
    local = tf.data.Dataset.range(4)
    with (
        pytest.raises(UsageError, match="needs a Reader"),
        penstock.elastic.member(Reader(local, shared_cluster)),
    ):
        pass
    with (
        pytest.raises(UsageError, match='"wait" or "redistribute", not \'panic\''),
        penstock.elastic.member(reading(shared_cluster, "x", (0, 1)), on_consumer_death="panic"),
    ):
        pass
    with (
        pytest.raises(UsageError, match="consumer: processes that share a job agree on that"),
        penstock.elastic.shared(local, shared_cluster, job_name="x", consumer=(0, 1)),
    ):
        pass
    with pytest.raises(UsageError, match="at_least must be"):
        penstock.elastic.join(shared_cluster, "x", at_least=0)
    with pytest.raises(UnavailableError, match="1 more of 2 processes"):
        penstock.elastic.join(shared_cluster, "alone", at_least=2, timeout_s=0.3, timing=QUICK)
