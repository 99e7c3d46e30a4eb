"""A failpoint does nothing unless it is named, and then exactly what was said."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import timeit

import pytest

from penstock.errors import UsageError
from penstock.failpoints import VARIABLE, failpoint, make_failpoint, parse

_PASS_TWICE = """
from penstock.failpoints import failpoint
for number in (1, 2):
    failpoint("part.before_step")
    print("passed", number, flush=True)
"""


def start(setting: str) -> subprocess.Popen[str]:
    """A process that passes `part.before_step` twice and says so."""
    return subprocess.Popen(
        [sys.executable, "-c", _PASS_TWICE],
        env={**os.environ, VARIABLE: setting},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_entries_are_separated_by_semicolons() -> None:
    points = parse(" a.b=kill@3; c_d=raise ;;e.f2=sleep:0.5;g=stop;h=sleep@2:10;")
    assert {name: (p.action, p.at, p.seconds) for name, p in points.items()} == {
        "a.b": ("kill", 3, 0.0),
        "c_d": ("raise", 1, 0.0),
        "e.f2": ("sleep", 1, 0.5),
        "g": ("stop", 1, 0.0),
        "h": ("sleep", 2, 10.0),
    }


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "=kill",
        "a=explode",
        "a=kill@0",
        "a=kill@-1",
        "a=kill@",
        "a=kill@x",
        "a=kill:1",
        "a=sleep",
        "a=sleep:",
        "a=sleep:1:2",
        "a=sleep:1@2",
        "a=sleep:.",
        "a=sleep:1.2.3",
        "A=kill",
        "a b=kill",
        "a=kill,b=kill",
        "a=kill;b",
        "a=kill;a=raise",
    ],
)
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=VARIABLE):
        parse(text)


def test_it_happens_at_the_given_pass_and_only_then(capsys: pytest.CaptureFixture[str]) -> None:
    pass_point = make_failpoint(parse("part.before_step=raise@3"))
    for number in range(1, 6):
        pass_point("part.before_another_step")
        if number != 3:
            pass_point("part.before_step")
            continue
        with pytest.raises(OSError, match=r"part\.before_step") as caught:
            pass_point("part.before_step")
        assert caught.value.errno == errno.EIO
    assert capsys.readouterr().err == "failpoint part.before_step: raise\n"


def test_it_happens_once_however_many_threads_pass() -> None:
    pass_point = make_failpoint(parse("part.before_step=raise@50"))
    raised: list[int] = []

    def passing_raises() -> bool:
        try:
            pass_point("part.before_step")
        except OSError:
            return True
        return False

    def pass_often(number: int) -> None:
        raised.extend(number for _ in range(25) if passing_raises())

    threads = [threading.Thread(target=pass_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(raised) == 1


def test_a_sleep_lasts_as_long_as_it_says() -> None:
    pass_point = make_failpoint(parse("part.before_step=sleep:0.2"))
    began = time.monotonic()
    pass_point("part.before_step")
    assert time.monotonic() - began >= 0.2


def test_a_kill_ends_the_process_at_the_point_and_says_so_before() -> None:
    process = start("part.before_step=kill@2")
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert out.splitlines() == ["passed 1"]
    assert err == "failpoint part.before_step: kill\n"


def test_a_stop_pauses_the_process_until_it_is_continued() -> None:
    process = start("part.before_step=stop@2")
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out.splitlines() == ["passed 1", "passed 2"]


def test_a_malformed_setting_ends_the_process_at_its_start() -> None:
    process = start("part.before_step=explode")
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "'part.before_step=explode' is not NAME=" in err


def test_it_costs_next_to_nothing_where_nothing_is_set() -> None:
    assert VARIABLE not in os.environ
    passes = 100_000
    seconds = min(timeit.repeat(lambda: failpoint("part.before_step"), number=passes, repeat=5))
    assert seconds / passes < 2e-6
