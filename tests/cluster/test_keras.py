"""G2 for real trainings: killed at random steps, they end with the weights of one that was not.

`PENSTOCK_TEST_KILLS` sets how many kills there are; more take longer.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

import penstock
from penstock import InputState, LocalCluster, Reader
from penstock.errors import PositionError, UsageError

from .keras_trainer import STEPS
from .pipelines import fingerprint_of, numbers

KILLS = int(os.environ.get("PENSTOCK_TEST_KILLS", "3"))
SCRIPT = Path(__file__).with_name("keras_trainer.py")


def life(cluster: LocalCluster, directory: Path, steps: int | None, save_freq: int) -> list[str]:
    """Trains, for so many steps until SIGKILL, or to the end; what the process said last."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, cluster.address, str(directory), str(save_freq)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said = line.split() if line.startswith(("step", "weights")) else said
                if said and said[0] == "step" and steps is not None:
                    steps -= 1
                    if steps <= 0:
                        break
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert said, (directory / "log").read_text()[-4000:]
    return said


@pytest.mark.slow
def test_a_training_that_is_killed_ends_with_the_same_weights(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    expected = life(shared_cluster, tmp_path / "whole", None, 5)
    assert expected[:2] == ["weights", str(STEPS)]
    chance = random.Random(20)
    for _ in range(KILLS):
        steps = chance.randrange(1, max(4, STEPS // KILLS))
        assert life(shared_cluster, tmp_path / "killed", steps, 2)[0] == "step"
    assert life(shared_cluster, tmp_path / "killed", None, 2) == expected


def test_a_checkpoint_holds_the_position(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    local = numbers(120).shuffle(30).batch(8)  # 15 batches
    with Reader(local, shared_cluster, seed=4) as reader:
        expected = [fingerprint_of(element) for _ in range(2) for element in reader]

    def checkpoint(served: tf.data.Dataset) -> tuple[tf.train.Checkpoint, InputState]:
        state = InputState(served.penstock, commit=True)
        return tf.train.Checkpoint(step=tf.Variable(0), input=state), state

    def served(**more: object) -> tf.data.Dataset:
        distribute = penstock.distribute(shared_cluster, seed=4, job_name="checkpointed", **more)
        return local.apply(distribute)

    seen: list[str] = []
    path = ""
    for _ in range(4):
        dataset = served(resumable=True)
        saved, state = checkpoint(dataset)
        if path:
            saved.restore(path).assert_consumed()
        steps = int(saved.step)
        del seen[steps:]
        while state.consumed < 7:
            for element in state.counted(dataset.prefetch(3)):
                seen.append(fingerprint_of(element))
                saved.step.assign_add(1)
                if state.consumed == 5:
                    path = saved.save(str(tmp_path / "checkpoint"))
                if state.consumed == 7:
                    break
        dataset.penstock.close()
    assert seen == expected[: 3 * 5 + 7]
    dataset = served(restore="committed")
    assert [fingerprint_of(e) for e in dataset] == expected[20:]
    dataset.penstock.close()
    declared = served()
    with pytest.raises(UsageError, match="resumable=True"):
        checkpoint(declared)[0].restore(path)
    declared.penstock.close()


def test_weights_without_a_position_are_refused(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    local = tf.data.Dataset.range(64).map(lambda i: (tf.fill([2], tf.cast(i, tf.float32)), 1.0))
    dataset = local.batch(8).apply(penstock.distribute(shared_cluster, seed=4, resumable=True))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(dataset, verbose=0, shuffle=False)
    callbacks = penstock.keras_callbacks(dataset.penstock, tmp_path / "input")
    with pytest.raises(PositionError, match="step 8, and no position of it was kept"):
        model.fit(dataset, verbose=0, shuffle=False, callbacks=callbacks)
    dataset.penstock.close()
