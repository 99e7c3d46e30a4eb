"""Users' failover classes: loaded strictly, asked with a bound."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import UsageError
from penstock.recovery.extensions import (
    Answer,
    Asker,
    Askers,
    Diagnoser,
    answer_of,
    find_extension,
    load_extension,
)
from penstock.recovery.failover import FailoverExtension, FailureInfo, FailureKind
from penstock.recovery.strategy import FailoverStrategy

MODULE = """
import threading
from penstock import FailoverExtension, FailoverStrategy

class Good(FailoverExtension):
    def get_user_failover_strategy(self, failure_info):
        return FailoverStrategy.NODE_FAILOVER

class Mute(FailoverExtension):
    pass

class Choosy(Good):
    def __init__(self, wanted):
        pass

class Failing(Good):
    def __init__(self):
        raise KeyError("no such file")

class Ending(Good):
    def __init__(self):
        raise SystemExit(3)

class Other:
    def get_user_failover_strategy(self, failure_info):
        return FailoverStrategy.NODE_FAILOVER

def function():
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    """A user's module of a name that no other test has; in this process only while it runs."""
    name = f"user_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import nothing_of_that_name")
    (tmp_path / f"{name}_raising.py").write_text("raise SystemError('at import')")
    (tmp_path / f"{name}_ending.py").write_text("raise SystemExit('of a script')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield name
    for known in [known for known in sys.modules if known.startswith(name)]:
        del sys.modules[known]


def info(kind: FailureKind = FailureKind.DEATH, **more: Any) -> FailureInfo:
    return FailureInfo(fault=1, kind=kind, **more)


@pytest.mark.parametrize(
    ("suffix", "parts"),
    [
        (":Good", ["my.module::MyClass"]),
        ("", ["my.module::MyClass"]),
        ("::", ["my.module::MyClass"]),
        ("::Good.more", ["my.module::MyClass"]),
        ("::Good" + "d" * 300, ["my.module::MyClass"]),
        ("_absent::Good", ["cannot be imported", "ModuleNotFoundError", "_absent"]),
        ("_broken::Good", ["cannot be imported", "nothing_of_that_name"]),
        ("_raising::Good", ["cannot be imported", "SystemError: at import"]),
        ("_ending::Good", ["cannot be imported", "SystemExit: of a script"]),
        ("::Better", ["has no class 'Better'"]),
        ("::Other", ["subclass of penstock.FailoverExtension"]),
        ("::function", ["subclass of penstock.FailoverExtension"]),
        ("::Mute", ["must define get_user_failover_strategy"]),
        ("::Choosy", ["take no arguments", "TypeError"]),
        ("::Failing", ["not raise", "KeyError: 'no such file'"]),
        ("::Ending", ["not raise", "SystemExit: 3"]),
    ],
)
def test_what_is_wrong_with_a_name_is_said_with_the_argument(
    module: str, suffix: str, parts: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        load_extension(module + suffix, "--failover-extension")
    for part in ("--failover-extension", *parts):
        assert part in str(caught.value)


def test_a_good_name_is_an_object_of_that_class(module: str) -> None:
    extension = load_extension(f"{module}::Good", "x")
    assert type(extension) is find_extension(f"{module}::Good", "x")
    assert answer_of(extension, "m::Good", info()) == Answer(
        FailoverStrategy.NODE_FAILOVER, "m::Good"
    )


class Saying(FailoverExtension):
    """Answers, or raises, what it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: FailoverStrategy = self.answer
        return answer


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("NODE_FAILOVER", "not 'NODE_FAILOVER'"),
        (None, "not None"),
        (ValueError("oh"), "raised ValueError: oh"),
        (SystemExit(3), "raised SystemExit: 3"),
    ],
)
def test_a_wrong_answer_is_a_problem_and_the_default_is_taken(said: Any, part: str) -> None:
    answer = answer_of(Saying(said), "m::C", info())
    assert (answer.strategy, answer.source) == (FailoverStrategy.NORMAL_FAILOVER, "penstock")
    assert part in answer.problem
    mismatch = answer_of(Saying(said), "m::C", info(FailureKind.HASH_MISMATCH))
    assert mismatch.strategy is FailoverStrategy.ABORTION_FAILOVER


def asked(asker: Asker, *infos: FailureInfo) -> list[Answer]:
    """The answers of an asker, as they come."""
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    for item in infos:
        asker.submit(item, answers.put)
    return [answers.get(timeout=30) for _ in infos]


def test_an_asker_tells_the_root_cause_to_its_extension() -> None:
    class Reading(FailoverExtension):
        def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
            found = failure_info.diagnosis
            assert found is not None
            return found.strategy

    asker = Asker(Reading(), "m::C", Diagnoser())
    full = info(FailureKind.EXCEPTION, log=("OSError: [Errno 28] No space left on device",))
    (answer,) = asked(asker, full)
    asker.close()
    assert (answer.strategy, answer.source) == (FailoverStrategy.NODE_FAILOVER, "m::C")
    assert answer.diagnosis is not None
    assert answer.diagnosis.root_cause == "DiskFull"


def test_a_diagnosis_that_fails_keeps_nobody_from_answering() -> None:
    def broken(_: FailureInfo) -> None:
        raise RuntimeError("no rules")

    asker = Asker(Saying(FailoverStrategy.GLOBAL_FAILOVER), "m::C", broken)
    (answer,) = asked(asker, info())
    asker.close()
    assert answer.strategy is FailoverStrategy.GLOBAL_FAILOVER


def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    class Slow(FailoverExtension):
        def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
            seen.append(failure_info.fault)
            begun.set()
            go_on.wait(30)
            return FailoverStrategy.NORMAL_FAILOVER

    asker = Asker(Slow(), "m::C", lambda _: None)
    done = threading.Event()
    asker.submit(info(), lambda _: None)
    assert begun.wait(30)
    give_up: Callable[[], None] = asker.submit(
        FailureInfo(fault=2, kind=FailureKind.DEATH), lambda _: None
    )
    give_up()
    asker.submit(FailureInfo(fault=3, kind=FailureKind.DEATH), lambda _: done.set())
    go_on.set()
    assert done.wait(30)
    asker.close()
    assert seen == [1, 3]


def test_failures_that_look_the_same_are_diagnosed_once() -> None:
    diagnose = Diagnoser()
    one = info(FailureKind.EXCEPTION, log=("MemoryError",), fingerprint="a")
    assert diagnose(one) is diagnose(info(FailureKind.EXCEPTION, fingerprint="a"))
    assert diagnose(info(FailureKind.DEATH)) is None


def test_the_dispatchers_extension_and_those_of_jobs(module: str) -> None:
    askers = Askers(f"{module}::Good", 5.0)
    assert (askers.name, askers.has(f"{module}::Good")) == (f"{module}::Good", False)
    askers.add("m::Other", Saying(FailoverStrategy.ABORTION_FAILOVER))
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    askers.submit("", info(), answers.put)
    askers.submit("m::Other", info(), answers.put)
    strategies = {answers.get(timeout=30).strategy for _ in range(2)}
    askers.close()
    assert strategies == {FailoverStrategy.NODE_FAILOVER, FailoverStrategy.ABORTION_FAILOVER}
    with pytest.raises(UsageError, match="--failover-extension"):
        Askers("nonsense")
