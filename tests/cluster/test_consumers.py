"""G1 and G2 with several consumers, each a process: killed, resized, and told what they may not."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster, Reader
from penstock.client.audit import audit
from penstock.client.status import fetch_status
from penstock.errors import PositionError, SeatTakenError, UsageError
from penstock.timing import Timing

from .consumer import Consumer
from .pipelines import numbers

COUNT = 1200
Start = Callable[[int, int], Consumer]


@pytest.fixture
def started(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> Iterator[tuple[LocalCluster, Start]]:
    """A cluster of three workers, and what starts consumers of one job there."""
    cluster = make_cluster(workers=3)
    with Reader(numbers(COUNT, work=20), cluster, seed=5) as reader:
        fingerprint = reader.plan.streams[0].fingerprint
        assert reader.job.lanes == 16
    with ExitStack() as consumers:

        def begin(rank: int, world: int) -> Consumer:
            ledger = tmp_path / "ledger"
            one = Consumer(cluster.address, fingerprint, "train", rank, world, ledger)
            consumers.callback(one.close)
            return one

        yield cluster, begin


def test_killed_consumers_and_workers_leave_every_element_trained_once(
    started: tuple[LocalCluster, Start], tmp_path: Path
) -> None:
    cluster, start = started
    trained: Counter[tuple[int, int]] = Counter()

    def train(consumer: Consumer, count: int) -> None:
        trained.update(map(tuple, consumer.ask(f"take {count}")))
        assert "Position" in consumer.ask("commit")[0]

    two = [start(rank, 2) for rank in range(2)]
    for consumer in two:
        train(consumer, 150)
    cluster.workers[0].kill()
    for consumer in two:
        consumer.tell("take 120")  # whose next commit does not come
    lost = [tuple(element) for consumer in two for element in consumer.answer()]
    two[0].kill()
    (alone,) = [start(0, 1)]  # 2 -> 1: the other one is still there, and may not go on
    again = [tuple(element) for element in alone.ask("take 700")]
    assert set(lost) <= set(again), "what was not committed comes again"
    trained.update(again)
    alone.ask("commit")
    assert two[1].ask("take 1000")[0] == "ResizedError"
    alone.ask("take 50")
    alone.kill()
    two = [start(rank, 2) for rank in range(2)]  # 1 -> 2
    for consumer in two:
        consumer.tell("epoch")
    for consumer in two:
        trained.update(map(tuple, consumer.answer()))
    assert trained == Counter((0, value) for value in range(COUNT))
    for consumer in two:
        consumer.ask("commit")
        trained.update(map(tuple, consumer.ask("epoch")))
    assert trained == Counter((e, value) for e in range(2) for value in range(COUNT))
    for consumer in two:
        consumer.ask("commit")
    report = audit(tmp_path / "ledger")
    assert report.clean, report.trainings
    assert [(t.over, t.elements) for t in report.trainings[:2]] == [(True, COUNT)] * 2
    (group,) = fetch_status(cluster.address)["groups"]
    assert (group["name"], group["generation"], group["world"]) == ("train", 3, 2)


def _consumer(cluster: LocalCluster, job: str, rank: int, world: int, **more: Any) -> Reader:
    return Reader(
        tf.data.Dataset.range(400).shuffle(30).batch(4),
        cluster,
        job_name=job,
        seed=3,
        consumer=(rank, world),
        **more,
    )


def test_consumers_restart_and_resize_at_what_each_of_them_committed(
    shared_cluster: LocalCluster,
) -> None:
    def numbers_of(batches: Any) -> list[int]:
        return [int(x) for batch in batches for x in batch]

    with _consumer(shared_cluster, "restarts", 1, 2) as reader:
        whole = numbers_of(reader)
    with _consumer(shared_cluster, "restarts", 0, 2) as reader:
        assert sorted(whole + numbers_of(reader)) == list(range(400))
    with _consumer(shared_cluster, "again", 1, 2) as reader:
        seen = numbers_of(itertools.islice(reader, 17))
        position = reader.commit(13)
        assert repr(position).startswith("<Position consumer 1 of 2, epoch 0, 13 elements")
        assert len(str(position)) < 4096
    with _consumer(shared_cluster, "again", 1, 2, restore="committed") as reader:
        assert seen[: 4 * 13] + numbers_of(reader) == whole
    with _consumer(shared_cluster, "again", 1, 2, restore=position) as reader:
        assert seen[: 4 * 13] + numbers_of(reader) == whole
        reader.restore(position)
        assert seen[: 4 * 13] + numbers_of(reader) == whole
        assert reader.position(25 - 13).epoch == 0
    with _consumer(shared_cluster, "again", 0, 1, restore="committed") as reader:
        rest = numbers_of(reader)
        assert sorted(seen[: 4 * 13] + rest) == list(range(400))
        assert reader.commit(5).consumed == 5
        assert sorted(numbers_of(reader)) == list(range(400))
    with pytest.raises(PositionError, match=r"consumer 0 of 3, it was consumer 1 of 2: pass rest"):
        _consumer(shared_cluster, "again", 0, 3, restore=position)
    with pytest.raises(PositionError, match="it was consumer 1 of 2"):
        Reader(tf.data.Dataset.range(400).shuffle(30).batch(4), shared_cluster, restore=position)


def test_a_rank_is_one_live_consumers(shared_cluster: LocalCluster) -> None:
    impatient = Timing(client_timeout_s=0.1)
    with _consumer(shared_cluster, "ranks", 0, 2) as reader:
        next(iter(reader))
        with (
            _consumer(shared_cluster, "ranks", 0, 2, timing=impatient) as second,
            pytest.raises(SeatTakenError, match="two consumers cannot have one rank"),
        ):
            second.job.lanes  # noqa: B018 - connects
    with _consumer(shared_cluster, "ranks", 0, 2, timing=impatient) as second:
        assert second.job.consumer == penstock.Position.parse(str(second.position(0))).consumer


def test_what_several_consumers_cannot_share_is_refused() -> None:
    local = tf.data.Dataset.range(40)
    for more, said in (
        ({"consumer": (0, 17)}, "17 consumers cannot share 16 lanes: set lanes=17 or more"),
        ({"consumer": (2, 2)}, r"consumer must be \(rank, world\)"),
        ({"consumer": 1}, r"consumer must be \(rank, world\)"),
        ({"consumer": (0, 2), "job_name": None}, "consumer needs the job_name"),
    ):
        with pytest.raises(UsageError, match=said):
            Reader(local, "localhost:1", **{"job_name": "x", **more})  # type: ignore[arg-type]
    shared: dict[str, Any] = {"job_name": "x", "consumer": (0, 2)}
    with pytest.raises(UsageError, match="need a service that they all reach"):
        Reader(local, **shared)
    with pytest.raises(UsageError, match="needs all of an epoch"):
        Reader(local.batch(4).take(3), "localhost:1", **shared)
    odd = local.filter(lambda i: i % 2 == 1)
    zipped = tf.data.Dataset.zip((odd, tf.data.Dataset.range(9).filter(lambda i: i > 2)))
    with pytest.raises(UsageError, match="several sources"):
        Reader(zipped, "localhost:1", **shared)
