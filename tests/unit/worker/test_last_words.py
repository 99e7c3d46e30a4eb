"""Last words: what a worker says for its successor, and what that one makes of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.worker.last_words import Doing, Former, LastWords, limits_after, read_former
from penstock.worker.producers import Outlet

from .fakes import assignment

MIB = 1 << 20


@pytest.mark.parametrize(
    ("former", "last_exit", "wanted"),
    [
        (Former(), 0, (8, 1024, 0)),
        (Former(), 1, (8, 1024, 0)),  # it ended by itself
        (Former(), 137, (4, 512, 1)),
        (Former(), -9, (4, 512, 1)),
        (Former(memory="MemoryError"), 0, (4, 512, 1)),
        (Former(deaths=1, memory="MemoryError"), 0, (2, 256, 2)),
        (Former(deaths=2), 1, (2, 256, 2)),  # it ended for another reason
        (Former(deaths=9), 9, (1, 1, 10)),
    ],
)
def test_each_death_of_memory_halves_what_is_taken_on(
    former: Former, last_exit: int, wanted: tuple[int, int, int]
) -> None:
    limits = limits_after(former, last_exit, 8, 1024 * MIB)
    assert (limits.slots, limits.memory_limit // MIB, limits.deaths) == wanted
    assert bool(limits.reason) == (wanted[2] > 0)


def test_the_successor_knows_what_was_running(tmp_path: Path) -> None:
    words = LastWords(tmp_path / "words", 1)
    words.began(assignment(1, split=5))
    words.began(assignment(2, split=6, trial=2))
    words.made(assignment(2, split=6, trial=2), 17, making=True)
    words.began(assignment(3))
    words.ended(assignment(3), None)
    former = read_former(tmp_path / "words")
    assert former == Former(1, (Doing("j1", 0, 0, 5, 0, False), Doing("j1", 0, 0, 6, 17, True)), "")
    words.close()
    words.ended(assignment(1), None)  # of a run that was left behind
    assert read_former(tmp_path / "words") == Former()


def test_memory_errors_are_told_wherever_they_are_in_the_chain(tmp_path: Path) -> None:
    words = LastWords(tmp_path / "words", 0)
    words.ended(assignment(1), ValueError("bad record"))
    assert not read_former(tmp_path / "words").memory
    outer = RuntimeError("attempt")
    outer.__cause__ = MemoryError()
    words.ended(assignment(2), outer)
    assert "MemoryError" in read_former(tmp_path / "words").memory
    words.close()
    assert read_former(tmp_path / "words") == Former()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"deaths": -1, "memory": "", "doing": []}',
        '{"deaths": true, "memory": "", "doing": []}',
        '{"deaths": 0, "memory": 1, "doing": []}',
        '{"deaths": 0, "memory": "", "doing": [{"job": "j1"}]}',
        json.dumps({"deaths": 0, "memory": "x" * (1 << 20), "doing": []}),
        json.dumps(
            {
                "deaths": 0,
                "memory": "",
                "doing": [dict(job="j1", stream=0, epoch=0, split=-1, elements=0, exact=False)],
            }
        ),
    ],
)
def test_what_is_not_ours_is_passed_by(tmp_path: Path, content: str) -> None:
    (tmp_path / "words").write_text(content)
    assert read_former(tmp_path / "words") == Former()


def test_a_file_that_cannot_be_written_keeps_nobody_from_working(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = LastWords(tmp_path / "none" / "words", 0)
    words.began(assignment(1))
    words.close()
    assert [record.message[:30] for record in caplog.records] == ["last words cannot be written: "]


def test_who_waits_for_space_is_not_making_an_element() -> None:
    told: list[tuple[int, bool]] = []

    class Sink:
        def put(self, run: int, piece: Any) -> bool:
            told.append((-1, False))
            return True

    class Piece:
        stop = 5

    sink: Any = Sink()
    piece: Any = Piece()
    outlet = Outlet(
        threading.Event(), sink, 1, 0.0, lambda made, making: told.append((made, making))
    )
    assert outlet.put(piece)
    assert told == [(5, False), (-1, False), (5, True)]
