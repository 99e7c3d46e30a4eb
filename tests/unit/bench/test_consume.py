"""The consumer that strikes: when it does, what it refuses to believe, whose errors it tells."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from penstock import digest_of
from penstock.bench.consume import Strike, read_epoch, read_struck_epoch
from penstock.bench.workloads import Workload, cheap, jpeg, write_pictures
from penstock.client.groundtruth import element_hashes
from penstock.errors import UnavailableError, VerificationError
from penstock.proto.hashing import Digest, DigestBuilder

ELEMENTS = 100


class Silent:
    def said(self, text: str) -> None: ...
    def step(self, what: str, done: float, total: float) -> None: ...


class FakeReader:
    """Yields runs of numbers, empty ones where it is told to wait, and has a digest at the end."""

    def __init__(self, runs: list[int], digest: Digest, until: threading.Event | None = None):
        self._runs = runs
        self._until = until
        self.digests = {0: digest}
        self.epochs = 1
        self.empty = 0

    def runs(self, *, idle: bool) -> Iterator[tuple[np.ndarray, ...]]:
        assert idle
        for length in self._runs:
            while length < 0 and self._until is not None and not self._until.wait(0.01):
                self.empty += 1
                yield (np.empty(0, np.int64),)
            if length > 0:
                yield (np.arange(length),)


def workload() -> Workload:
    dataset = tf.data.Dataset.range(ELEMENTS)
    return Workload("numbers", dataset, digest_of(dataset))


def test_the_strike_comes_once_its_part_of_the_epoch_was_delivered() -> None:
    numbers, struck = workload(), threading.Event()
    reader = FakeReader([30, 30, -1, 40], numbers.truth, until=struck)
    seen, marks = read_struck_epoch(
        reader, numbers, Silent(), Strike(at=0.5), lambda: struck.set() or "struck"
    )
    assert marks == "struck"
    assert seen.elements == [30, 30, 40]
    assert len(seen.asked_s) == 3  # what is idle in between is waiting, not another delivery


def test_an_epoch_without_a_strike_is_read_to_its_end() -> None:
    numbers = workload()
    assert read_epoch(FakeReader([60, 40], numbers.truth), numbers, Silent()).total == ELEMENTS


@pytest.mark.parametrize("runs", [[99], [101], [100, 1]])
def test_a_wrong_number_of_elements_is_refused(runs: list[int]) -> None:
    numbers = workload()
    with pytest.raises(VerificationError, match=f"numbers: {sum(runs)} elements came"):
        read_epoch(FakeReader(runs, numbers.truth), numbers, Silent())


def test_wrong_content_is_refused() -> None:
    numbers = workload()
    other = digest_of(tf.data.Dataset.range(1, ELEMENTS + 1))
    with pytest.raises(VerificationError, match="a plain local run gives"):
        read_epoch(FakeReader([ELEMENTS], other), numbers, Silent())


def test_another_order_is_accepted() -> None:
    numbers, builder = workload(), DigestBuilder()
    hashes = np.concatenate(list(element_hashes(numbers.dataset)))
    builder.update(hashes[::-1].copy())
    assert builder.digest() != numbers.truth
    assert read_epoch(FakeReader([ELEMENTS], builder.digest()), numbers, Silent()).total == ELEMENTS


def test_a_strike_that_fails_ends_the_measurement_while_nothing_comes() -> None:
    numbers = workload()

    def fail() -> None:
        raise UnavailableError("worker-1 did not start")

    reader = FakeReader([60, -1, 40], numbers.truth, until=threading.Event())
    with pytest.raises(UnavailableError, match="worker-1 did not start"):
        read_struck_epoch(reader, numbers, Silent(), Strike(at=0.5), fail)


def test_the_workloads_deliver_what_they_say(tmp_path) -> None:
    numbers = cheap(50, Silent(), shuffle=10)
    assert sorted(int(i) for i, _ in numbers.dataset) == list(range(50))
    assert numbers.elements == 50
    paths = write_pictures(tmp_path, Silent(), files=2, records=5)
    small, large = jpeg(paths, Silent(), shuffles=(4, 100))
    assert (small.name, large.name) == ("jpeg", "jpeg-shuffle100")
    for one in (small, large):
        elements = list(one.dataset)
        assert sorted(int(element["id"]) for element in elements) == list(range(10))
        assert all(element["image"].shape == (64, 64, 3) for element in elements)
        assert digest_of(one.dataset).total == one.truth.total
