"""`model.fit` recovered in place: the same weights as without a fault, to the last bit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import penstock
from penstock import RecoveryPolicy, RecoveryRule
from penstock.errors import UsageError
from penstock.recovery.incidents import load_all
from penstock.recovery.operator_socket import request

from .test_crash_kinds import waiting

ROWS, BATCH, EPOCHS = 96, 8, 2
STEPS = ROWS // BATCH
CHANCE = np.random.default_rng(4)
X = CHANCE.normal(size=(ROWS, 6)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


class Faulty(keras.layers.Layer):
    """Passes on what it gets, or fails in the middle of the graph, as a bad kernel does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[float] = []
        self.fails: Callable[[list[float]], bool] = lambda calls: False
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        # The step has changed something before it fails.
        self.seen.assign_add(1.0)
        return tf.ensure_shape(tf.numpy_function(self._check, [x], tf.float32), x.shape)

    def _check(self, x: Any) -> Any:
        self.calls.append(float(x[0, 0]))
        if self.fails(self.calls):
            raise RuntimeError(f"call {len(self.calls)} fails")
        return x


def dataset(spoiled: int = -1) -> tf.data.Dataset:
    x = X.copy()
    if spoiled >= 0:
        x[spoiled * BATCH + 2, 3] = np.nan
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(BATCH)


def build() -> tuple[keras.Model, Faulty]:
    keras.utils.set_random_seed(3)
    faulty = Faulty()
    hidden = [keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization()]
    layers = [keras.Input((6,)), faulty, *hidden, keras.layers.Dropout(0.2)]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model, faulty


def fit(model: keras.Model, data: tf.data.Dataset, *callbacks: Any) -> dict[str, list[float]]:
    history = model.fit(data, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=list(callbacks))
    found: dict[str, list[float]] = history.history
    return found


def state(model: keras.Model) -> list[Any]:
    return [np.asarray(one) for one in [*model.variables, *model.optimizer.variables]]


def assert_same(model: keras.Model, other: list[Any]) -> None:
    for mine, theirs in zip(state(model), other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def truth() -> tuple[list[Any], dict[str, list[float]]]:
    """Weights, optimizer, metrics and seeds of a fit without penstock."""
    model, _ = build()
    history = fit(model, dataset())
    return state(model), history


RETRY = RecoveryPolicy((RecoveryRule(Exception, "retry", 3),))


def test_a_failing_graph_is_run_again_and_the_weights_are_the_same(
    truth: tuple[list[Any], dict[str, list[float]]],
) -> None:
    model, faulty = build()
    faulty.fails = lambda calls: len(calls) in (1, 6, 7, 20)
    recovery = penstock.keras_in_situ(dataset(), RETRY)
    history = fit(model, dataset(), recovery)
    assert_same(model, truth[0])
    assert history == truth[1], "metrics are those of the fault-free run, too"
    assert recovery.report().actions == {"retry": 4}
    assert recovery.report().trained == EPOCHS * STEPS
    # The model has its own train function back.
    fit(model, dataset())
    assert recovery.report().trained == EPOCHS * STEPS


def test_a_fault_of_the_input_costs_nothing(
    truth: tuple[list[Any], dict[str, list[float]]],
) -> None:
    reads = []

    def read(x: Any, y: Any) -> Any:
        reads.append(1)
        if len(reads) == STEPS + 4:
            raise OSError("the shard cannot be read")
        return x, y

    def checked(x: Any, y: Any) -> Any:
        read_x, read_y = tf.numpy_function(read, [x, y], (x.dtype, y.dtype))
        return tf.ensure_shape(read_x, x.shape), tf.ensure_shape(read_y, y.shape)

    data = dataset().map(checked)
    model, _ = build()
    recovery = penstock.keras_in_situ(data, RETRY)
    fit(model, data, recovery)
    assert_same(model, truth[0])
    assert recovery.report().actions == {"retry": 1}


def test_a_batch_of_nans_is_skipped_and_leaves_no_trace(tmp_path: Path) -> None:
    model, _ = build()
    without = dataset().enumerate().filter(lambda i, _: i != 5).map(lambda _, xy: xy)
    fit(model, without.apply(tf.data.experimental.assert_cardinality(STEPS - 1)))
    expected = state(model)
    model, faulty = build()
    spoiled = X[5 * BATCH, 0]
    faulty.fails = lambda calls: calls[-1] == float(spoiled)
    policy = RecoveryPolicy((RecoveryRule(Exception, "skip"),))
    recovery = penstock.keras_in_situ(dataset(5), policy, quarantine=tmp_path)
    fit(model, dataset(5), recovery)
    assert_same(model, expected)
    assert [one.step for one in recovery.report().skipped] == [5, STEPS + 5]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_operator_sets_the_learning_rate_while_fit_waits(tmp_path: Path) -> None:
    model, faulty = build()
    faulty.fails = lambda calls: len(calls) == 4
    policy = RecoveryPolicy((RecoveryRule(Exception, "wait"),), operator_timeout_s=60)
    recovery = penstock.keras_in_situ(dataset(), policy, incidents=tmp_path)
    with ThreadPoolExecutor(1) as pool:
        fitted = pool.submit(fit, model, dataset(), recovery)
        wanted = {"optimizer.learning_rate": 0.125}
        message = {"version": 1, "do": "retry", "set": wanted}
        assert request(waiting(tmp_path).directory, message)["done"]
        fitted.result(120)
    assert float(model.optimizer.learning_rate) == 0.125
    (one,) = load_all(tmp_path)
    assert "call 4 fails" in json.dumps(one.report)
    assert any("float32[8, 6]" in line for line in one.report["batch"])


def scaled(x: Any) -> Any:
    """What the model of the next test begins with: it does not fit."""
    return tf.matmul(x, tf.zeros((5, 6)))


def test_an_operator_patches_a_function_of_the_graph_while_fit_waits(tmp_path: Path) -> None:
    class Scaled(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return scaled(x) if x.shape[0] is not None else x

    keras.utils.set_random_seed(3)
    layers = [keras.Input((6,)), Scaled(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    policy = RecoveryPolicy((RecoveryRule(Exception, "wait", 5),), operator_timeout_s=60)
    root, old = tmp_path / "incidents", scaled.__code__
    recovery = penstock.keras_in_situ(dataset(), policy, incidents=root, allow_patch=True)

    def patch(number: int, body: str) -> str:
        while len(load_all(root)) < number:
            threading.Event().wait(0.01)
        directory = waiting(root).directory
        path = tmp_path / f"fix{number}.py"
        path.write_text(f'MODULE = "{__name__}"\ndef scaled(x): {body}\n')
        path.chmod(0o600)
        refused = request(directory, {"version": 1, "do": "rewind"})
        request(directory, {"version": 1, "do": "retry", "patch": str(path)})
        return str(refused["error"])

    with ThreadPoolExecutor(1) as pool:
        try:
            answered = pool.submit(
                lambda: [patch(1, "return missing(x)"), patch(2, "return x * 3")]
            )
            fit(model, dataset(), recovery)
            assert all("no rewind now" in error for error in answered.result(60))
            one, two = load_all(root)
            assert one.outcome is not None
            assert one.outcome["result"] == "the step failed again"
            assert "missing" in two.report["error"]
            report = recovery.report()
            assert (report.trained, report.actions) == (STEPS * EPOCHS, {"wait": 2})
        finally:
            scaled.__code__ = old

    # The same weights as those of a program that had it right from the beginning.
    keras.utils.set_random_seed(3)
    good = keras.Sequential([keras.Input((6,)), keras.layers.Rescaling(3), keras.layers.Dense(1)])
    good.compile("adam", "mse")
    fit(good, dataset())
    for one_weight, other in zip(model.get_weights(), good.get_weights(), strict=True):
        np.testing.assert_array_equal(one_weight, other)


def test_an_error_that_is_not_recovered_ends_fit_and_gives_the_model_back() -> None:
    model, faulty = build()
    faulty.fails = lambda calls: len(calls) > 2
    recovery = penstock.keras_in_situ(dataset(), RETRY)
    with pytest.raises(tf.errors.UnknownError, match="fails"):
        fit(model, dataset(), recovery)
    faulty.fails = lambda calls: False
    fit(model, dataset())
    assert recovery.report().trained == 2
    model.compile("adam", "mse", steps_per_execution=2)
    with pytest.raises(UsageError, match="steps_per_execution=1"):
        fit(model, dataset(), recovery)
