"""Case `insitu`: what a guarded step costs, and a recovery in place beside a restart.

`guard` times empty steps, by processor time, as a part of a step of 10 ms. `in-place/KIND` fails in
the middle of steps and times from the raised error until the same step runs again with its state
restored, as the session itself reports it. `restart/KIND` starts the same program in a new process
and times until it has trained the step that failed, from a checkpoint made just before it: nothing
is trained again, so a real restart costs more.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.in_situ import InSituSession
from ..errors import VerificationError
from ..recovery.policy import Action, RecoveryPolicy, RecoveryRule
from .harness import Case, Contestant, CouldNot, Ratio
from .insitu_programs import NAMES, READY, STEPS, Batches, NumpyTraining, keras_model
from .targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .harness import Metrics, Settings, Show

STEP_S = 0.010
_GUARDED_STEPS = 200_000
_EVERY = 5  # each fifth step fails
_RESTART_TIMEOUT_S = 300.0
_RETRY = RecoveryPolicy(
    (RecoveryRule(RuntimeError, Action.RETRY),), per_fingerprint=10_000, overall=10_000
)

METRICS = {
    "guard_ns": "processor time that the guard adds to a step, in ns",
    "guard_ppm": "the same, in millionths of a step of 10 ms; 4,000 are 0.4 %",
    "restore_ms": "from the fault until the step runs again, in ms: the median of all faults",
    "worst_ms": "the longest of them",
}
RATIOS = (Ratio("times_in_place", "restore_ms", "in place", "restore ms over that in place"),)
TARGETS = (
    Target("a guarded step of 10 ms costs at most 0.4 % more", "guard", "guard_ppm", 4000, True),
    Target("in place within 10 ms", "in-place/numpy", "restore_ms", 10.0, True),
    Target("in place within 10 ms", "in-place/keras", "restore_ms", 10.0, True),
)


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """The guard alone, and both ways to go on for both programs."""
    faults = 20 if settings.quick else 100
    in_place: dict[str, Callable[[], Metrics | CouldNot]] = {
        "numpy": partial(numpy_in_place, faults),
        "keras": partial(keras_in_place, faults),
    }
    made = [Contestant("guard", partial(guard, _GUARDED_STEPS // (10 if settings.quick else 1)))]
    for kind, measure in in_place.items():
        made.append(Contestant(f"in-place/{kind}", measure))
        made.append(
            Contestant(
                f"restart/{kind}",
                partial(restart, kind, settings.directory),
                rivals={"in place": f"in-place/{kind}"},
            )
        )
    yield made


CASE = Case(
    "insitu",
    "a guarded training step, and a recovery in place beside a restart",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    ratios=RATIOS,
    targets=TARGETS,
)


def guard(steps: int) -> Metrics:
    """Empty steps with and without a guard."""

    def nothing(batch: int) -> None:
        pass

    began = time.process_time()
    for batch in range(steps):
        nothing(batch)
    plain_s = time.process_time() - began
    session = InSituSession(range(steps))
    began = time.process_time()
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                nothing(step.batch)
    added_s = (time.process_time() - began - plain_s) / steps
    return {"guard_ns": added_s * 1e9, "guard_ppm": added_s / STEP_S * 1e6}


def numpy_in_place(faults: int) -> Metrics:
    """The numpy program, which fails half-way through some steps."""
    training, expected = NumpyTraining(), NumpyTraining()
    steps = faults * _EVERY
    for batch in Batches(steps):
        expected.step(batch)
    session = InSituSession(
        Batches(steps), _RETRY, snapshot=training.snapshot, restore=training.restore
    )
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                training.step(step.batch)
                if step.number % _EVERY == 0 and attempt.attempt == 1:
                    raise RuntimeError("a kernel failed")
    if not all(map(_equal, training.snapshot(), expected.snapshot())):
        raise VerificationError("the recovered training ended with other weights")
    return _restored(session.report().recovery_s, faults)


def keras_in_place(faults: int) -> Metrics | CouldNot:
    """The Keras program under `fit`, the same."""
    try:
        import tensorflow as tf

        from ..client.keras_in_situ import keras_in_situ
    except ImportError as error:
        return CouldNot(str(error))
    steps = faults * _EVERY
    fails = set(range(0, steps, _EVERY))
    x, y = next(iter(Batches()))
    dataset = tf.data.Dataset.from_tensors((x, y)).repeat(steps)

    def fitted(*callbacks: Any) -> Any:
        model = keras_model()
        train, count = model.train_step, iter(range(1 << 30))

        def step(data: Any) -> Any:
            # Fails after the weights were updated, so the state has to be restored.
            logs = train(data)
            with tf.control_dependencies([*logs.values()]):
                checked = tf.py_function(check, [], tf.float32)
            return {name: value + checked * 0 for name, value in logs.items()}

        def check() -> float:
            number = next(count)
            if callbacks and number in fails and number not in failed:
                failed.add(number)
                raise RuntimeError("a kernel failed")
            return 0.0

        failed: set[int] = set()
        model.train_step = step
        model.fit(dataset, epochs=1, verbose=0, shuffle=False, callbacks=list(callbacks))
        return model.get_weights()

    recovery = keras_in_situ(dataset, _policy_of(tf.errors.OpError))
    if not all(map(_equal, fitted(recovery), fitted())):
        raise VerificationError("the recovered training ended with other weights")
    report = recovery.report()
    return _restored(report.recovery_s, report.faults)


def restart(kind: str, directory: Path) -> Metrics | CouldNot:
    """The program in a new process, until it has trained the step that failed."""
    path = directory / NAMES[kind]
    if not path.exists():
        _checkpoint(kind, path)
    command = [sys.executable, "-m", f"{__package__}.insitu_programs", kind, str(path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    began_s = time.monotonic()
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_RESTART_TIMEOUT_S,
        check=False,
    )
    took_s = time.monotonic() - began_s
    if READY not in done.stdout.split():
        return CouldNot(f"the program ended with {done.returncode}: {done.stderr[-200:]}")
    return {"restore_ms": took_s * 1e3, "worst_ms": took_s * 1e3}


def _checkpoint(kind: str, path: Path) -> None:
    if kind == "numpy":
        training = NumpyTraining()
        for _, batch in zip(range(STEPS), Batches(), strict=False):
            training.step(batch)
        training.save(path)
        return
    model = keras_model()
    x, y = next(iter(Batches()))
    model.fit(x, y, verbose=0)
    model.save_weights(path)


def _policy_of(error: type[BaseException]) -> RecoveryPolicy:
    return RecoveryPolicy((RecoveryRule(error, Action.RETRY),), 10_000, 10_000)


def _restored(recovery_s: tuple[float, ...], faults: int) -> Metrics:
    if len(recovery_s) != faults or not faults:
        raise VerificationError(f"{len(recovery_s)} of {faults} faults were recovered")
    return {"restore_ms": statistics.median(recovery_s) * 1e3, "worst_ms": max(recovery_s) * 1e3}


def _equal(one: Any, other: Any) -> bool:
    return bool((one == other).all())
