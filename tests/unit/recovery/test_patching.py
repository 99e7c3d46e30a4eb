"""Functions of a running program that are replaced: what takes, and what is refused clearly."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import UsageError
from penstock.recovery.patching import FILE_BYTES_MAX, load_patch

RATE = 10


def plain(batch: int, *, rate: int = 2) -> int:
    return batch * rate


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return 2 * function(*args)

    return wrapper


@twice
def decorated(batch: int) -> int:
    return batch


class Base:
    def forward(self, x: int) -> int:
        return x


class Model(Base):
    __scale = 3

    def forward(self, x: int) -> int:
        return super().forward(x) * self.__scale

    @staticmethod
    def check(x: int) -> bool:
        return x > 0

    @property
    def size(self) -> int:
        return 1


def make(a: int, b: int) -> Callable[[int], int]:
    def closure(x: int) -> int:
        return a + b + x

    return closure


def first() -> Callable[[], int]:
    def same() -> int:
        return 1

    return same


def second() -> Callable[[], int]:
    def same() -> int:
        return 2

    return same


def running(path: Path) -> None:
    load_patch(path)


def patch(directory: Path, text: str, module: str = __name__) -> Path:
    path = directory / "patch.py"
    path.write_text(f'MODULE = "{module}"\n' + textwrap.dedent(text))
    path.chmod(0o600)
    return path


@pytest.fixture
def replaced(tmp_path: Path) -> Any:
    """Applies a patch for the time of the test."""
    applied = []

    def replace(text: str) -> None:
        made = load_patch(patch(tmp_path, text))
        made.apply()
        applied.append(made)

    yield replace
    for made in reversed(applied):
        made.revert()


def test_a_function_is_replaced_for_everybody_who_holds_it_and_comes_back(tmp_path: Path) -> None:
    held = {"step": plain}
    made = load_patch(
        patch(
            tmp_path,
            """
            def plain(batch: int, *, rate: int = 99) -> int:
                import math
                return math.floor(batch * rate + RATE)
            """,
        )
    )
    assert held["step"](3) == 6, "nothing is changed by reading it"
    made.apply()
    assert made.names == ("plain",)
    assert held["step"](3) == 16, "with its old default and its old globals"
    made.revert()
    assert held["step"](3) == 6


def test_methods_decorated_functions_and_properties(replaced: Any) -> None:
    model = Model()
    bound = model.forward
    replaced(
        """
        class Model:
            def forward(self, x):
                return super().forward(x) * self.__scale + 1

            @staticmethod
            def check(x):
                return x >= 0

            def size(self):
                return 7

        def decorated(batch):
            return batch + 1
        """
    )
    assert bound(2) == 7
    assert Model.check(0)
    assert model.size == 7
    assert decorated(4) == 10, "its decorator is still there"


def test_every_instance_of_a_closure_is_replaced_and_keeps_its_variables(replaced: Any) -> None:
    one, other = make(1, 2), make(10, 20)
    replaced(
        """
        def closure(x):
            return a * x  # no longer of b
        """
    )
    assert (one(5), other(5)) == (5, 50)
    assert make(2, 0)(5) == 7, "one that is made anew is what its maker makes"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def plain(batch): return 1", r"plain has other arguments in the patch: \(batch\)"),
        ("def plain(batch, *, speed): return 1", "other arguments"),
        ("async def plain(batch, *, rate): return 1", "other arguments"),
        ("def plain(batch, *, rate): yield 1", "other arguments"),
        (
            "class Model:\n    def check(x): return super()",
            r"Model\.check is a closure over nothing, and in the patch over __class__",
        ),
        ("def same(): return 3", "same means several functions"),
        ("def unknown(): return 3", "has no function unknown"),
        (
            "class Model:\n    def plain(self): return 1",
            r"no function Model\.plain; there is plain",
        ),
        ("def plain(batch, *, rate): return (", "not Python"),
        ("def plain(batch, *, rate): return rate\nreturn 3", "line 3: a patch holds functions"),
        ("import os\ndef plain(batch, *, rate): return 1", "line 2: a patch holds functions"),
        ("RATE = 3", "line 2: a patch holds functions"),
        ("def plain(batch, *, rate): pass\n" * 2, "plain is defined twice"),
        ("def plain(batch, *, rate):\n    nonlocal gone\n    gone = 1", "does not compile"),
        ("class Model:\n    pass", "defines no function"),
        ("def plain(batch, *, rate): pass\n" + "#" * FILE_BYTES_MAX, "at most 1048576 bytes"),
        ("def running(path): pass", "running is running"),
    ],
)
def test_what_would_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path, text: str, why: str
) -> None:
    closure, one, two = make(1, 2), first(), second()
    with pytest.raises(UsageError, match=why):
        running(patch(tmp_path, text))
    assert (plain(3), closure(1), one(), two()) == (6, 4, 1, 2)


def test_all_or_nothing_of_a_file_is_put_in(tmp_path: Path) -> None:
    text = "def plain(batch, *, rate): return 0\ndef decorated(a, b): return 0"
    with pytest.raises(UsageError, match="decorated"):
        load_patch(patch(tmp_path, text))
    assert plain(3) == 6


def test_only_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = patch(tmp_path, "def plain(batch, *, rate): return 0")
    path.chmod(0o620)
    with pytest.raises(UsageError, match="nobody else may write"):
        load_patch(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for wrong in ("link", "nowhere", "."):
        with pytest.raises(UsageError, match=r"cannot be read|must be a file"):
            load_patch(tmp_path / wrong)
    with pytest.raises(UsageError, match="must be a file"):
        load_patch(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no module 'nowhere'"):
        load_patch(patch(tmp_path, "def plain(batch, *, rate): pass", "nowhere"))
