"""A small real training, softmax regression in numpy, and what makes it crash.

As a script it is the process of `test_process`: `DIRECTORY` is where its incidents go.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

import penstock

STEPS, ROWS, FEATURES, CLASSES = 60, 32, 16, 4
Batch = dict[str, Any]


class Loader:
    """The same batches in each iteration, made anew."""

    def __iter__(self) -> Iterator[Batch]:
        for number in range(STEPS):
            chance = np.random.default_rng(number)
            x = chance.normal(size=(ROWS, FEATURES))
            yield {"x": x, "y": (x @ TRUTH).argmax(1), "number": number}


TRUTH = np.random.default_rng(99).normal(size=(FEATURES, CLASSES))


def nothing(program: Program, batch: Batch) -> None:
    """A fault-free program's hook."""


@dataclass(eq=False)
class Program:
    """Trains; `crash` is called in the middle of each step, with the batch.

    Attributes:
        crash: raises, or does to the batch what makes the step fail.
        config: what an operator may set.
        weights, momentum: the model's state.
        trained: numbers of the batches that were trained on, in order.
    """

    crash: Callable[[Program, Batch], None] = nothing
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(reduce="mean", scratch=1 << 10, rate=0.1)
    )
    weights: Any = field(default_factory=lambda: np.zeros((FEATURES, CLASSES)))
    momentum: Any = field(default_factory=lambda: np.zeros((FEATURES, CLASSES)))
    trained: list[int] = field(default_factory=list)

    def step(self, batch: Batch) -> None:
        """Half of the state changes before the crash, half after it."""
        logits = batch["x"] @ self.weights
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(chances)), batch["y"]] -= 1
        np.empty(self.config.scratch)  # room to work in
        gradient = getattr(np, self.config.reduce)(batch["x"][:, :, None] * chances[:, None], 0)
        if not np.isfinite(gradient).all():
            raise FloatingPointError(f"gradient of batch {batch['number']} is not finite")
        self.momentum *= 0.9
        self.crash(self, batch)
        self.momentum += gradient
        self.weights -= self.config.rate * self.momentum

    def snapshot(self) -> Any:
        return self.weights.copy(), self.momentum.copy()

    def restore(self, state: Any) -> None:
        np.copyto(self.weights, state[0])
        np.copyto(self.momentum, state[1])

    def run(self, session: penstock.InSituSession) -> Program:
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    self.step(step.batch)
                    self.trained.append(step.batch["number"])
        return self

    def fingerprint(self) -> str:
        return hashlib.sha256(self.weights.tobytes() + self.momentum.tobytes()).hexdigest()


def fault_free(without: int | None = None) -> Program:
    """The program as it is without a session and without a fault, or without one batch."""
    program = Program()
    for batch in Loader():
        if batch["number"] != without:
            program.step(batch)
            program.trained.append(batch["number"])
    return program


def main() -> None:
    program = Program()
    program.config.reduce = "avarage"
    session = penstock.InSituSession(
        Loader(),
        penstock.RecoveryPolicy((penstock.RecoveryRule(AttributeError, "wait"),)),
        snapshot=program.snapshot,
        restore=program.restore,
        incidents=sys.argv[1],
        settable={"config": program.config},
    )
    program.run(session)
    print(len(program.trained), program.fingerprint())


if __name__ == "__main__":
    main()
