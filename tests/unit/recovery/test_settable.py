"""What an operator may set, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.recovery.settable import apply_all, changes, checked_settable, shown


class Variable:
    """As those of TensorFlow."""

    def __init__(self, value: float) -> None:
        self.value = np.array(value)

    def assign(self, value: Any) -> None:
        self.value = np.array(value)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.value


class Optimizer:
    __slots__ = ("_secret", "rate")

    def __init__(self) -> None:
        self.rate, self._secret = Variable(0.1), 1

    @property
    def steps(self) -> int:
        return 3

    def apply(self) -> None: ...


def registered() -> dict[str, Any]:
    return {
        "config": SimpleNamespace(
            size=64, rate=0.1, path="a", on=True, shape=(1, 2), extra=None, sub={"depth": 3}
        ),
        "optimizer": Optimizer(),
        "buffers": {"mean": np.zeros(2)},
    }


def set_all(settable: dict[str, Any], **values: Any) -> None:
    apply_all(changes(settable, {name.replace("__", "."): v for name, v in values.items()}))


def test_a_default_of_the_class_is_set_on_the_object() -> None:
    class Config:
        rate = 0.5
        steps = 3

        def method(self) -> None: ...

    config = Config()
    assert shown({"config": config}) == {"config.rate": "0.5", "config.steps": "3"}
    set_all({"config": config}, config__rate=0.25)
    assert (config.rate, Config.rate) == (0.25, 0.5)
    with pytest.raises(UsageError, match="settable"):
        set_all({"config": config}, config__method=1)


def test_values_are_set_with_their_kind() -> None:
    settable = registered()
    config = settable["config"]
    array = settable["buffers"]["mean"]
    set_all(settable, config__size=32, config__rate=1, config__path="b", config__on=False)
    set_all(settable, config__shape=[3], config__extra={"any": 1}, config__sub__depth=4)
    set_all(settable, optimizer__rate=0.5, buffers__mean=[1, 2])
    assert (config.size, config.rate, config.path, config.on) == (32, 1.0, "b", False)
    assert type(config.rate) is float
    assert (config.shape, config.extra, config.sub) == ((3,), {"any": 1}, {"depth": 4})
    assert float(settable["optimizer"].rate.value) == 0.5
    assert array.tolist() == [1.0, 2.0], "whoever holds the array sees it"


def test_what_may_be_set_is_told_with_its_value() -> None:
    told = shown(registered())
    assert told["config.size"] == "64"
    assert told["optimizer.rate"] == "float64[] 0.1"
    assert "optimizer.steps" not in told
    assert not any("_secret" in name or "apply" in name for name in told)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("config.size", 1.5, "must be a whole number"),
        ("config.size", True, "must be a whole number"),
        ("config.rate", float("nan"), "must be a number"),
        ("config.rate", "0.1", "must be a number"),
        ("config.on", 1, "must be true or false"),
        ("config.path", None, "must be a text"),
        ("config.siz", 1, "there is no 'siz'"),
        ("config", 1, "config.size"),
        ("config.size.real", 1, "there is no 'real'"),
        ("other.size", 1, "'other.size' is not settable"),
        ("config.__class__", 1, "there is no '__class__'"),
        ("optimizer._secret", 1, "there is no '_secret'"),
        ("optimizer.apply", "x", "there is no 'apply'"),
        ("optimizer.steps", 1, "there is no 'steps'"),
        ("optimizer.rate", float("inf"), "must be finite"),
        ("buffers.mean", [1, float("nan")], "must be finite"),
        ("optimizer.rate", [1, 2], "a list of its shape"),
        ("buffers.mean", 3, "a list of its shape"),
        ("buffers.mean", ["a", "b"], "could not convert"),
        ("buffers.keys", 3, "there is no 'keys'"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_reason(name: str, value: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        changes(registered(), {name: value})


def test_all_or_nothing_is_set() -> None:
    class Strict:
        low = 1

        def __init__(self) -> None:
            self.high = 5

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "high" and value > 9:
                raise ValueError("too high")
            super().__setattr__(name, value)

    settable = {"config": SimpleNamespace(size=1), "strict": Strict()}
    todo = changes(settable, {"config.size": 2, "strict.high": 10})
    with pytest.raises(UsageError, match=r"strict\.high cannot be set: too high"):
        apply_all(todo)
    assert settable["config"].size == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [3, {"a.b": 1}, {1: 2}, ["x"]])
def test_what_is_registered_has_names(value: Any) -> None:
    with pytest.raises(UsageError, match="settable must be a dict"):
        checked_settable(value)
