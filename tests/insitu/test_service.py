"""Sessions over a real service: faults of the step, of the fetch, refetch, rewind, skip."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import penstock
from penstock import InSituSession, LocalCluster, Reader, RecoveryPolicy, RecoveryRule
from penstock.errors import UsageError

ROWS, BATCH = 120, 8
EPOCHS = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(workers=1, directory=tmp_path_factory.mktemp("cluster")) as made:
        yield made


def pipeline() -> tf.data.Dataset:
    return tf.data.Dataset.range(ROWS).shuffle(30).map(lambda i: (i, i * i)).batch(BATCH)


POLICY = RecoveryPolicy(
    (
        RecoveryRule(TimeoutError, "retry"),
        RecoveryRule(ValueError, "refetch"),
        RecoveryRule(ArithmeticError, "rewind"),
    )
)


@pytest.fixture(scope="module")
def truth(cluster: LocalCluster) -> list[list[int]]:
    """What a trainer without faults and without a session gets in two epochs."""
    with Reader(pipeline(), cluster, seed=5) as reader:
        batches = [part[0].tolist() for _ in range(EPOCHS) for part in reader]
    rows = sorted(row for batch in batches for row in batch)
    assert rows == sorted([*range(ROWS)] * EPOCHS)
    return batches


class Training:
    """A loop that fails once in some steps, and commits after others."""

    def __init__(
        self, batches: Any, fails: dict[int, type[Exception]], commits: tuple[int, ...] = ()
    ) -> None:
        self.session = InSituSession(batches, POLICY, rewind=self.rewind)
        self.fails, self.commits = fails, commits
        self.trained: list[list[int]] = []
        self.saved = 0

    def run(self) -> list[list[int]]:
        for step in self.session.steps(EPOCHS):
            for attempt in step.attempts():
                with attempt:
                    if step.number in self.fails:
                        raise self.fails.pop(step.number)("as it was told to")
                    self.trained.append(np.asarray(step.batch[0]).tolist())
            if step.number in self.commits:
                self.saved = len(self.trained)
                self.session.commit()
        assert not self.fails
        return self.trained

    def rewind(self) -> None:
        del self.trained[self.saved :]


def served(cluster: LocalCluster) -> Any:
    return pipeline().apply(penstock.distribute(cluster, seed=5, resumable=True))


def test_a_step_is_retried_a_batch_fetched_again_and_a_training_rewound(
    cluster: LocalCluster, truth: list[list[int]]
) -> None:
    dataset = served(cluster)
    # Commits in the middle of an epoch, and with its last batch.
    fails = {7: TimeoutError, 9: ValueError, 13: OverflowError, 14: ValueError, 17: OverflowError}
    training = Training(dataset, fails, commits=(11, 14))
    assert training.run() == truth
    report = training.session.report()
    assert report.actions == {"retry": 1, "refetch": 2, "rewind": 2}
    assert report.altered == ()
    dataset.penstock.close()


def test_a_fault_of_the_iterator_costs_nothing(
    cluster: LocalCluster, truth: list[list[int]]
) -> None:
    with Reader(pipeline(), cluster, seed=5) as reader:
        fails = {5, 15, 30}  # in the middle, before an epoch's first batch, and at its end

        class Loader:
            """The reader's batches, with faults of its own."""

            penstock, count = reader, 0

            def __iter__(self) -> Iterator[Any]:
                for batch in reader:
                    self.fail()
                    self.count += 1
                    yield batch
                self.fail()

            def fail(self) -> None:
                if self.count in fails:
                    fails.remove(self.count)
                    raise TimeoutError("the loader fails")

        assert Training(Loader(), {}).run() == truth
        assert not fails


def test_batches_made_after_the_service_are_counted(
    cluster: LocalCluster, tmp_path: Path, truth: list[list[int]]
) -> None:
    unbatched = tf.data.Dataset.range(ROWS).shuffle(30).map(lambda i: (i, i * i))
    make = penstock.distribute(cluster, seed=5, resumable=True, ledger=tmp_path / "ledger")
    dataset = unbatched.apply(make)
    after = dataset.batch(BATCH).prefetch(2)
    expected = [part[0].numpy().tolist() for part in after]
    dataset.penstock.close()
    dataset = unbatched.apply(make)
    session = InSituSession(
        dataset.batch(BATCH).prefetch(2),
        RecoveryPolicy((RecoveryRule(ValueError, "refetch"), RecoveryRule(ValueError, "skip"))),
        reader=dataset.penstock,
        batch=BATCH,
        quarantine=tmp_path / "quarantine",
    )
    trained = []
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                if step.number in (6, 9) and (step.number == 6 or attempt.attempt == 1):
                    raise ValueError("bad batch")
                trained.append(step.batch[0].numpy().tolist())
    assert trained == expected[:6] + expected[7:]
    dataset.penstock.close()
    (kept,) = (tmp_path / "quarantine").iterdir()
    arrays = penstock.recovery.quarantine.load_arrays(kept)
    assert arrays["batch[0]"].tolist() == expected[6]
    audited = penstock.audit(tmp_path / "ledger")
    assert audited.clean
    (skip,) = audited.skips
    assert (skip.epoch, skip.first, skip.count) == (0, 6 * BATCH, BATCH)
    assert "bad batch" in skip.why


def test_a_dataset_that_cannot_be_restored_is_refused(cluster: LocalCluster) -> None:
    dataset = pipeline().apply(penstock.distribute(cluster, seed=5))
    with pytest.raises(UsageError, match="resumable=True"):
        InSituSession(dataset)
    with pytest.raises(UsageError, match="batch belongs to a reader"):
        InSituSession([1], batch=3)
    logging.getLogger("penstock").debug("nothing was connected")


def test_fit_fetches_a_batch_again_and_goes_on_into_the_next_epoch(cluster: LocalCluster) -> None:
    calls: list[int] = []

    def check(x: Any) -> Any:
        calls.append(len(calls))
        if len(calls) in fails:
            raise ValueError("bad kernel")
        return x

    def prepare(i: Any) -> Any:
        return tf.fill([3], tf.cast(i, tf.float32) / ROWS), tf.cast(i % 7, tf.float32)

    def fit(*callbacks: Any) -> list[Any]:
        keras.utils.set_random_seed(1)
        calls.clear()
        call = keras.layers.Lambda(
            lambda x: tf.ensure_shape(tf.numpy_function(check, [x], tf.float32), x.shape)
        )
        model = keras.Sequential([keras.Input((3,)), call, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        model.fit(dataset, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=list(callbacks))
        return [np.asarray(one) for one in [*model.variables, *model.optimizer.variables]]

    def made() -> tf.data.Dataset:
        local = tf.data.Dataset.range(ROWS).shuffle(30).map(prepare).batch(BATCH)
        return local.apply(penstock.distribute(cluster, seed=5, resumable=True))

    fails: set[int] = set()
    dataset = made()
    expected = fit()
    dataset.penstock.close()
    fails = {4, 16}  # in the first epoch, and with the last batch of it: two more calls
    dataset = made()
    policy = RecoveryPolicy((RecoveryRule(tf.errors.OpError, "refetch"),))
    recovery = penstock.keras_in_situ(dataset, policy)
    for mine, theirs in zip(fit(recovery), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert recovery.report().actions == {"refetch": 2}
    dataset.penstock.close()


def test_two_ranks_do_the_same_about_a_step(cluster: LocalCluster) -> None:
    def train(rank: int, action: str) -> list[int]:
        rules = (RecoveryRule(ValueError, action),)
        with penstock.RankArbiter(cluster, "run-1", rank=rank, ranks=2, vote_s=30) as arbiter:
            session = InSituSession(range(6), RecoveryPolicy(rules), arbiter=arbiter)
            trained = []
            for step in session.steps():
                for attempt in step.attempts():
                    with attempt:
                        if step.number == 3:
                            raise ValueError("the collective is broken")
                        trained.append(step.batch)
            return trained

    with ThreadPoolExecutor(2) as pool:
        ranks = [pool.submit(train, *each) for each in ((0, "retry"), (1, "skip"))]
        assert [rank.result(60) for rank in ranks] == [[0, 1, 2, 4, 5]] * 2
