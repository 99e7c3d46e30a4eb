"""One worker of a `MultiWorkerMirroredStrategy` training that takes a part of a job's elements.

`python -m tests.cluster.mirrored_trainer ADDRESS JOB RANK PORTS WEIGHTS …` reads commands from
standard input and answers each with one JSON line: `steps N` trains N steps together with the
others, or fewer if no worker has elements left, and answers with the elements that this one trained
on; `save` has the first worker write the weight down, and then every worker commit; `weight` tells
it.

The model has one weight, and the gradient of its loss is the sum of a batch: so the weight is the
sum of all that was ever trained on, by whichever worker.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = 8
COUNT = 500


class Model:
    """The weight, and a step of all workers together.

    Args:
        weight: what it was.
    """

    def __init__(self, weight: float) -> None:
        import tensorflow as tf

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        more: dict[str, Any] = {
            "dtype": tf.float64,
            "aggregation": tf.VariableAggregation.SUM,
        }
        with strategy.scope():
            self.weight = tf.Variable(weight, **more)
            self._with_elements = tf.Variable(0.0, **more)

        def train(batch: tf.Tensor, has_some: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = self.weight * tf.reduce_sum(batch)
            self.weight.assign_add(tape.gradient(loss, self.weight))
            self._with_elements.assign(has_some)

        self._step = tf.function(lambda *arguments: strategy.run(train, args=arguments))

    @property
    def value(self) -> float:
        """The weight."""
        return float(self.weight.numpy())

    def step(self, elements: list[int]) -> bool:
        """Trains on what this worker has; whether any worker had something."""
        import tensorflow as tf

        values = tf.constant(elements + [0] * (BATCH - len(elements)), tf.float64)
        self._step(values, tf.constant(float(bool(elements)), tf.float64))
        return float(self._with_elements.numpy()) > 0


def main(address: str, job: str, rank: int, ports: list[str], weights: Path) -> None:
    """Trains as it is told."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
    )
    model = Model(float(weights.read_text()) if weights.exists() else 0.0)
    with reading(address, job, rank, len(ports)) as reader:
        follow(model, reader, iter(reader), rank, weights)


def follow(
    model: Any, reader: Any, batches: Iterator[Any], rank: int, weights: Path, batch: int = 1
) -> None:
    """Does what standard input says; `batch` elements of the reader are one of `batches`."""
    taken = 0
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        answer: Any = []
        for _ in range(int(number or 0)):
            given = next(batches, None)
            taken += given is not None
            elements = [] if given is None else [int(element) for element in given]
            answer += elements
            if not model.step(elements):
                break
        if command == "save":
            if rank == 0:
                weights.write_text(repr(model.value))
            reader.commit(taken, batch=batch)
        elif command == "weight":
            answer = model.value
        print(json.dumps(answer), flush=True)


def reading(address: str, job: str, rank: int, world: int) -> Any:
    """The elements of one worker, in batches."""
    import tensorflow as tf

    from penstock.client.reader import Reader

    from .consumer import TIMING

    return Reader(
        tf.data.Dataset.range(COUNT).shuffle(30).batch(BATCH),
        address,
        job_name=job,
        seed=5,
        consumer=(rank, world),
        restore="committed",
        timing=TIMING,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(","), Path(sys.argv[5]))
