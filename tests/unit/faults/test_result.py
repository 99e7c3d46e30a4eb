"""What is lost, duplicated, altered or out of order fails a test, and is told in line and JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from penstock.faults.consumer import Consumer, Received
from penstock.faults.data import Truth, split_hashes
from penstock.faults.result import (
    Delivery,
    EpochFound,
    TestResult,
    as_json,
    epoch_of,
    line_of,
    outage_of,
)
from penstock.faults.run import judged
from penstock.faults.stage import EPOCHS
from penstock.proto.hashing import Digest
from penstock.soak.data import HASH_BYTES

ELEMENTS = [bytes([number]) * HASH_BYTES for number in range(20)]
TRUTH = Counter(ELEMENTS)
OTHER = b"?" * HASH_BYTES


def found(sequence: list[bytes], *, whole: bool = True) -> EpochFound:
    return epoch_of(1, TRUTH, sequence, ELEMENTS, whole=whole)


def test_what_is_right_is_exact() -> None:
    assert found(ELEMENTS) == EpochFound(1, 20, 0, 0, 0, in_order=True)
    assert found(ELEMENTS).exact
    assert epoch_of(1, TRUTH, ELEMENTS[::-1], None).exact  # nothing to compare the order with


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (ELEMENTS[:-1], EpochFound(1, 19, 1, 0, 0, in_order=False)),
        ([*ELEMENTS, ELEMENTS[3]], EpochFound(1, 21, 0, 1, 0, in_order=False)),
        ([*ELEMENTS[:-1], OTHER], EpochFound(1, 20, 0, 0, 1, in_order=False)),
        ([*ELEMENTS[:-1], ELEMENTS[0]], EpochFound(1, 20, 1, 1, 0, in_order=False)),
        ([ELEMENTS[1], ELEMENTS[0], *ELEMENTS[2:]], EpochFound(1, 20, 0, 0, 0, in_order=False)),
    ],
    ids=["lost", "duplicated", "altered", "replaced", "swapped"],
)
def test_what_is_wrong_is_counted(sequence: list[bytes], expected: EpochFound) -> None:
    assert found(sequence) == expected
    assert not expected.exact


def test_an_epoch_that_was_broken_off_must_be_a_beginning() -> None:
    assert found(ELEMENTS[:7], whole=False).exact
    assert not found([ELEMENTS[1], ELEMENTS[0]], whole=False).exact
    assert not found([*ELEMENTS, ELEMENTS[0]], whole=False).exact


def judge(consumer: Consumer) -> tuple[list[EpochFound], list[str]]:
    """What is said of it, if each epoch should have come in the order of `ELEMENTS`."""
    return judged(Truth(TRUTH, (8, 8, 4), Digest(20, 5, 6)), [ELEMENTS] * EPOCHS, consumer)


def consumer_of(folder: Path, *readings: tuple[int, list[bytes], bool]) -> Consumer:
    """One that was given these: epoch, elements, whether whole."""
    consumer = Consumer(folder / "log")
    for number, (epoch, sequence, whole) in enumerate(readings):
        path = folder / f"{number}.hashes"
        path.write_bytes(b"".join(sequence))
        sizes = [len(sequence[i : i + 8]) for i in range(0, len(sequence), 8)]
        consumer.received.append(Received(epoch, path, sizes, (20, 5) if whole else None))
    return consumer


def test_three_exact_epochs_are_right(tmp_path: Path) -> None:
    epochs, problems = judge(consumer_of(tmp_path, *((n, ELEMENTS, True) for n in range(3))))
    assert problems == []
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]


def test_what_a_killed_trainer_had_is_judged_and_its_epoch_begins_again(tmp_path: Path) -> None:
    whole = [(number, ELEMENTS, True) for number in range(3)]
    readings = [whole[0], (1, ELEMENTS[:8], False), *whole[1:]]
    epochs, problems = judge(consumer_of(tmp_path, *readings))
    assert problems == []
    assert len(epochs) == 3
    readings[1] = (1, ELEMENTS[1:9], False)
    (problem,) = judge(consumer_of(tmp_path, *readings))[1]
    assert "before it was broken off" in problem


def test_what_a_trainer_had_up_to_a_commit_and_after_it_is_one_epoch(tmp_path: Path) -> None:
    readings = [(0, ELEMENTS, True), (1, ELEMENTS[:16], False), (1, ELEMENTS[8:], True)]
    consumer = consumer_of(tmp_path, *readings, (2, ELEMENTS, True))
    consumer.received[2].start = 8
    consumer.received[2].batches = [8, 4]
    assert judge(consumer)[1] == []
    consumer.received[2].start = 16
    assert any("epoch 1" in problem for problem in judge(consumer)[1])


def test_an_epoch_that_comes_twice_or_not_at_all_is_a_failure(tmp_path: Path) -> None:
    readings = [(number, ELEMENTS, True) for number in (0, 0, 1, 2)]
    (problem,) = judge(consumer_of(tmp_path, *readings))[1]
    assert "epochs [0, 0, 1, 2] were delivered" in problem
    (problem,) = judge(consumer_of(tmp_path, *readings[1:3]))[1]
    assert "epochs [0, 1] were delivered" in problem


def test_batches_and_digest_must_be_those_of_a_local_run(tmp_path: Path) -> None:
    consumer = consumer_of(tmp_path, *((number, ELEMENTS, True) for number in range(3)))
    consumer.received[1].batches = [8, 7, 5]
    consumer.received[2].digest = (20, 4)
    assert judge(consumer)[1] == [
        "epoch 1: the batches have 8, 7, 5 elements, those of a local run 2 × 8, 4",
        "epoch 2: its digest is not that of a local run",
    ]


def test_the_half_of_a_hash_that_a_kill_left_does_not_count() -> None:
    content = b"".join(ELEMENTS[:3])
    assert split_hashes(content) == split_hashes(content + b"half") == ELEMENTS[:3]


def delivered(*came_s: float) -> list[Delivery]:
    return [Delivery(1, before, at, 10) for before, at in zip((0.0, *came_s), came_s, strict=False)]


def test_the_outage_is_the_longest_gap_that_ends_after_the_fault() -> None:
    assert outage_of(delivered(1, 6, 7, 9, 10), [], 6.5) == 2
    assert outage_of(delivered(1, 2, 3), [], 3) is None


def test_the_time_that_the_trainer_was_held_is_no_outage() -> None:
    # Held from 2 to 12, where the fault came at 11, and from 13 to 20.
    holds = [(2.0, 12.0), (13.0, 20.0)]
    assert outage_of(delivered(1, 2, 13, 21.5, 22), holds, 11.0) == 1.5
    assert outage_of(delivered(1, 2), [(2.0, float("inf"))], 11.0) is None


def result(*problems: str, run: int | None = None) -> TestResult:
    epochs = (EpochFound(0, 20, 0, 0, 0, in_order=True),)
    story = "kill -9 worker-1 after 8 elements"
    return TestResult(
        "recover", run, 12.345, epochs, 1.23456, 1042, story, problems, Path("/somewhere")
    )


def test_a_line_tells_mark_name_seconds_outage_and_replayed_elements() -> None:
    mark, rest = line_of(result())
    assert mark == "[ OK ]"
    assert rest.split() == ["recover", "12.3", "s", "outage", "1.23", "s", "1,042", "replayed"]
    mark, failed = line_of(result("it is wrong", run=1))
    assert mark == "[FAILED]"
    assert failed.split()[:2] == ["recover", "2"]
    assert len("[ OK ]" + rest) == len(mark + failed)


def test_the_json_has_exactly_the_documented_keys() -> None:
    assert json.loads(json.dumps([as_json(result())])) == [
        {
            "name": "recover",
            "ok": True,
            "seconds": 12.35,
            "epochs": [
                {
                    **{"epoch": 0, "elements": 20, "lost": 0, "duplicated": 0, "altered": 0},
                    "in_order": True,
                }
            ],
            "outage_s": 1.235,
            "replayed": 1042,
            "detail": "kill -9 worker-1 after 8 elements",
        }
    ]
    failed = as_json(result("this is wrong", "and that"))
    assert not failed["ok"]
    assert failed["detail"] == "this is wrong; and that"
