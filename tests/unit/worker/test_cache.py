"""What the dispatcher is told of a worker's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.proto import control_pb2 as pb
from penstock.proto.chunk import Chunk, encode
from penstock.proto.hashing import DigestBuilder
from penstock.worker.cache import Cache, Costs, open_cache
from penstock.worker.segment_file import SegmentName

KEY = "ab" * 16


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = open_cache(tmp_path / "cache", "h:1", 1 << 30, "2.21", lambda: None)
    made.start()
    yield made
    assert made.close(30)


def put(cache: Cache, split: int, costs: Costs | None = None, stamp: str = "0") -> SegmentName:
    """Has a segment of ten numbers finished, and waits for it."""
    name = SegmentName(KEY, split, stamp)
    partial = cache.store.put(name)
    assert partial is not None
    chunk = Chunk.from_stacked(0, [np.arange(10)])
    header, buffers = encode(chunk, {})
    partial.append(header, buffers, 0, 10, chunk.hashes)
    builder = DigestBuilder()
    builder.update(chunk.hashes)
    cache.finish(partial, name, builder.digest(), costs)
    segment = cache.get(name)
    assert segment is not None
    segment.close()
    return name


def told(cache: Cache) -> tuple[dict[str, list[int]], dict[str, list[int]], Callable[[], None]]:
    request = pb.SyncWorkerRequest()
    news = cache.tell(request)
    cached, uncached = (
        {item.key: list(item.splits) for item in items}
        for items in (request.cached, request.uncached)
    )
    return cached, uncached, lambda: cache.told(news)


def test_a_registration_says_all_and_news_say_what_came_after(cache: Cache) -> None:
    put(cache, 3)
    request = pb.RegisterWorkerRequest()
    cache.introduce(request)
    assert request.store == cache.store.store_id
    assert request.cache_limit == 1 << 30
    assert [(item.key, list(item.splits)) for item in request.cached] == [(KEY, [3])]
    assert told(cache)[:2] == ({}, {})
    put(cache, 5)
    put(cache, 4)
    assert told(cache)[:2] == ({KEY: [4, 5]}, {})


def test_news_are_told_until_they_are_answered(cache: Cache) -> None:
    put(cache, 1)
    assert told(cache)[0] == {KEY: [1]}
    cached, _, answered = told(cache)
    assert cached == {KEY: [1]}
    put(cache, 2)
    answered()
    cached, _, answered = told(cache)
    assert cached == {KEY: [2]}
    answered()
    assert told(cache)[:2] == ({}, {})


def test_what_changes_while_it_is_told_is_told_again(cache: Cache) -> None:
    name = put(cache, 1)
    _, _, answered = told(cache)
    cache.store.set_aside(name, "for this test")
    answered()
    assert told(cache)[:2] == ({}, {KEY: [1]})


def test_a_split_that_is_there_for_other_files_counts_as_there(cache: Cache) -> None:
    old = put(cache, 1, stamp="aa")
    put(cache, 1, stamp="bb")
    cache.store.set_aside(old, "for this test")
    assert told(cache)[:2] == ({KEY: [1]}, {})


def test_measures_are_told_once(cache: Cache) -> None:
    put(cache, 1, Costs(0.5, 0.25, lambda segment: 0.125 * (segment.digest.count / 10)))
    with cache._changed:
        assert cache._changed.wait_for(lambda: cache._measures, 30)
    request = pb.SyncWorkerRequest()
    news = cache.tell(request)
    (measure,) = request.measures
    assert (measure.key, measure.elements) == (KEY, 10)
    assert (measure.produce_us, measure.read_us) == (500_000, 125_000)
    assert measure.write_us >= 250_000
    cache.told(news)
    request = pb.SyncWorkerRequest()
    cache.tell(request)
    assert not request.measures


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--cache-dir"):
        open_cache(tmp_path / "file", "h:1", 0, "2.21", lambda: None)


def test_without_a_limit_most_of_the_disk_may_be_used(tmp_path: Path) -> None:
    made = open_cache(tmp_path, "h:1", 0, "2.21", lambda: None)
    request = pb.RegisterWorkerRequest()
    made.introduce(request)
    assert request.cache_limit > 1 << 20
    made.close(30)
