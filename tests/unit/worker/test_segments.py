"""The store of segments: what is put is got, in whole frames, by whoever shares the directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.proto.chunk import encode
from penstock.worker.segment import verify
from penstock.worker.segment_file import DamagedSegmentError, SegmentName
from penstock.worker.segments import ASIDE_MAX, SegmentStore

from .segment_kit import (
    KEY,
    KINDS,
    LIMIT,
    ONE,
    OTHER_KEY,
    OWNER,
    TENSORFLOW,
    TWO,
    Opened,
    append,
    begun,
    digest_of,
    got,
    holds,
    names,
    opening,
    part,
    put,
    read,
    seg,
    split_of,
    store_somewhere,
)

Said = list[tuple[SegmentName, bool]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with opening(tmp_path) as open_:
        yield open_


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_is_got(opened: Opened, kind: str, tmp_path: Path) -> None:
    store, chunks = opened(), split_of(kind)
    assert store.get(ONE) is None
    assert put(store, ONE, chunks)
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]
    assert holds(store.get(ONE), chunks)
    assert holds(opened("h:2").get(ONE), chunks), "another worker"
    several = [store.get(ONE) for _ in range(3)]
    assert all(holds(segment, chunks) for segment in several)
    assert verify(seg(tmp_path)).damage == ""


@given(
    kind=st.sampled_from(sorted(KINDS)),
    counts=st.lists(st.integers(1, 20), max_size=6),
    seek=st.integers(0, 200),
)
def test_any_split_is_got_from_any_element(kind: str, counts: list[int], seek: int) -> None:
    chunks = split_of(kind, tuple(counts))
    with store_somewhere() as store:
        assert put(store, ONE, chunks)
        segment = got(store)
        assert segment.hashes.tolist() == [h for chunk in chunks for h in chunk.hashes.tolist()]
        if seek < sum(counts):
            found = read(segment)[segment.frame_at(seek)]
            assert found.start <= seek < found.stop
        assert holds(segment, chunks)


def test_a_split_without_elements_is_a_segment_too(opened: Opened) -> None:
    store = opened()
    assert put(store, ONE, [])
    assert holds(store.get(ONE), [])


def test_a_segment_says_what_it_is(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    partial = begun(store)
    for chunk in split_of():
        append(partial, chunk, epoch=3, attempt=9)
    assert (partial.elements, partial.name) == (12, ONE)
    assert partial.nbytes == part(tmp_path).stat().st_size
    assert partial.digest == digest_of(split_of())
    assert partial.commit(partial.digest)
    with got(store) as segment:
        assert (segment.name, segment.id, segment.tensorflow) == (ONE, partial.id, TENSORFLOW)
        assert segment.nbytes == seg(tmp_path).stat().st_size
        assert segment.header(1) == encode(split_of()[1], {"epoch": 3, "attempt": 9})[0]
        assert [segment.frame_at(element) for element in (0, 3, 4, 7, 11)] == [0, 0, 1, 2, 2]
        with pytest.raises(IndexError):
            segment.frame_at(12)
        assert os.fstat(segment.fileno()).st_size == segment.nbytes


def test_payloads_are_aligned_views_of_the_file(opened: Opened) -> None:
    store = opened()
    put(store, ONE, split_of("strings"))
    with got(store) as segment:
        for number, entry in enumerate(segment.frames):
            view = segment.payload(number)
            assert view.readonly
            assert np.frombuffer(view, np.uint8).ctypes.data % 64 == 0
            assert len(view) == entry.payload_bytes
            at_offset = os.pread(segment.fileno(), entry.payload_bytes, entry.payload_offset)
            assert at_offset == view


def test_an_open_segment_outlives_its_file_and_a_view_outlives_both(
    opened: Opened, tmp_path: Path
) -> None:
    store = opened()
    put(store, ONE)
    segment = got(store)
    seg(tmp_path).unlink()
    assert store.get(ONE) is None
    view, want = segment.payload(0), b"".join(bytes(b) for b in encode(split_of()[0], {})[1])
    assert holds(segment, split_of())
    assert view == want
    for use in (segment.fileno, lambda: segment.payload(0), lambda: segment.header(0)):
        with pytest.raises(ValueError, match="is closed"):
            use()
    segment.close()


def test_nobody_gets_what_is_not_finished(opened: Opened) -> None:
    store = opened()
    partial = begun(store)
    append(partial, split_of()[0])
    assert store.get(ONE) is None
    assert store.inventory() == {}


def test_a_segment_is_put_once(opened: Opened) -> None:
    store = opened()
    partial = begun(store)
    assert store.put(ONE) is None, "it is being written here"
    assert opened("h:2").put(ONE) is None, "it is being written by another worker"
    assert store.put(TWO) is not None
    partial.discard()
    assert put(store, ONE)
    assert store.put(ONE) is None, "it is there"


def test_what_is_wrong_is_not_appended(opened: Opened) -> None:
    partial = begun(opened())
    first, second, _ = split_of()
    header, buffers = encode(first, {})
    with pytest.raises(ValueError, match="from element 4 cannot follow 0"):
        append(partial, second)
    for start, count, hashes in ((0, 3, first.hashes), (0, 4, first.hashes[::-1])):
        with pytest.raises(ValueError, match="says otherwise"):
            partial.append(header, buffers, start, count, hashes)
    for change in ({"hashes": b""}, {"start": -1}, {"count": 0}, {"count": None}):
        with pytest.raises(ValueError, match=r"hashes of|are not a range"):
            partial.append({**header, **change}, buffers, 0, 4, first.hashes)
    assert partial.elements == 0
    assert partial.nbytes < 300


def test_a_wrong_digest_is_never_committed(opened: Opened) -> None:
    store = opened()
    partial = begun(store)
    for chunk in split_of():
        append(partial, chunk)
    for wrong in (digest_of(split_of()[:2]), digest_of(split_of()[::-1])):
        with pytest.raises(ValueError, match="has the digest"):
            partial.commit(wrong)
    assert store.get(ONE) is None
    assert partial.commit(digest_of(split_of()))


def test_who_is_done_writes_no_more(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    for end in ("discard", "release", "commit"):
        partial = begun(store)
        partial.commit(partial.digest) if end == "commit" else getattr(partial, end)()
        partial.discard()
        partial.release()
        uses = (
            lambda partial=partial: append(partial, split_of()[0]),
            lambda partial=partial: partial.cut(0),
            partial.sync,
            lambda partial=partial: partial.commit(partial.digest),
        )
        for use in uses:
            with pytest.raises(OSError, match="nobody writes this segment any more"):
                use()
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]


# --- what is of no use --------------------------------------------------------------------------


def test_damage_is_set_aside_by_name_and_the_split_put_again(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: Said = []
    store = opened(changed=lambda name, present: said.append((name, present)))
    put(store, ONE)
    data = seg(tmp_path).read_bytes()
    seg(tmp_path).write_bytes(data[:-1])
    assert store.get(ONE) is None
    assert names(tmp_path) == [f"{KEY}/1-5a.seg.damaged"]
    line = f"segment {seg(tmp_path)} is set aside as 1-5a.seg.damaged: it does not end as"
    assert line in caplog.text
    assert put(store, ONE)
    assert said == [(ONE, True), (ONE, False), (ONE, True)]


def test_a_damaged_payload_is_never_served_and_can_be_set_aside(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    put(store, ONE)
    segment = got(store)
    with seg(tmp_path).open("r+b") as file:
        file.seek(segment.frames[1].payload_offset)
        file.write(b"?")
    assert len(segment.payload(0)) > 0
    with pytest.raises(DamagedSegmentError, match="is not what it was") as raised:
        segment.payload(1)
    assert str(seg(tmp_path)) in str(raised.value)
    segment.close()
    store.set_aside(ONE, str(raised.value))
    store.set_aside(ONE, "it is gone already")
    assert store.get(ONE) is None
    assert caplog.text.count("is not what it was") == 1


def test_a_segment_of_another_name_is_not_served(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    put(store, ONE)
    seg(tmp_path).replace(seg(tmp_path, TWO))
    assert store.get(TWO) is None
    assert "it is of split 1" in caplog.text


def test_a_segment_of_another_tensorflow_is_set_aside(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(opened(), ONE)
    assert opened(tensorflow="2.1").get(ONE) is None
    assert "TensorFlow 2.0 wrote it, 2.1 runs" in caplog.text
    assert names(tmp_path) == [f"{KEY}/1-5a.seg.unusable"]


def test_few_files_are_kept_aside(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    for split in range(ASIDE_MAX + 3):
        name = SegmentName(KEY, split, "0")
        put(store, name)
        store.set_aside(name, "it is Tuesday")
    found = [each for each in names(tmp_path) if each.endswith(".damaged")]
    assert len(found) == ASIDE_MAX
    assert f"{KEY}/{ASIDE_MAX + 2}-0.seg.damaged" in found


def test_what_cannot_be_read_is_not_there(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    seg(tmp_path).mkdir(parents=True)
    assert store.get(ONE) is None
    assert f"segment {seg(tmp_path)} cannot be read" in caplog.text


# --- the directory ------------------------------------------------------------------------------


def test_the_inventory_is_what_is_there(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    other = SegmentName(OTHER_KEY, 1, "0")
    for name in (ONE, TWO, other):
        put(store, name)
    store.put(SegmentName(KEY, 9, "0"))
    (tmp_path / KEY / "notes.txt").write_text("mine")
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "1-0.seg").write_text("mine")
    size = seg(tmp_path).stat().st_size
    assert store.inventory() == {
        KEY: {1: size, 2: size},
        OTHER_KEY: {1: seg(tmp_path, other).stat().st_size},
    }
    total = sum(path.stat().st_size for path in (tmp_path / KEY).glob("*-*"))
    assert store.total_bytes() == total + seg(tmp_path, other).stat().st_size


def test_all_who_share_a_directory_name_it_alike(opened: Opened, tmp_path: Path) -> None:
    ids = {opened(f"h:{number}").store_id for number in range(3)}
    assert len(ids) == 1
    assert (tmp_path / "STORE").read_text() == f"{ids.pop()}\n"


def test_an_address_of_any_kind_is_a_name(opened: Opened, tmp_path: Path) -> None:
    for owner in ("[::1]:5", "a/../b:5", "", "x" * 300, "x" * 301):
        partial = begun(opened(owner))
        append(partial, split_of()[0])
        partial.release()
    assert len(names(tmp_path)) == 5
    assert {path.parent for path in tmp_path.rglob("*.partial")} == {tmp_path / KEY}


def test_a_directory_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match=f"--cache-dir {path}: "):
        SegmentStore(path, OWNER, LIMIT, TENSORFLOW)


def test_a_directory_with_another_store_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "STORE").write_text("groceries\n")
    with pytest.raises(UsageError, match=f"--cache-dir {tmp_path}: .*STORE is not the id"):
        SegmentStore(tmp_path, OWNER, LIMIT, TENSORFLOW)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_none_is_named(tmp_path: Path, limit: int) -> None:
    with pytest.raises(UsageError, match="--cache-limit takes a size above 0"):
        SegmentStore(tmp_path, OWNER, limit, TENSORFLOW)
