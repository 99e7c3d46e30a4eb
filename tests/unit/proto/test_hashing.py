"""Element hashes are what their definition says, however elements are held; digests add up."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ProtocolError
from penstock.proto.chunk import Chunk
from penstock.proto.hashing import Digest, DigestBuilder, combine, signature
from penstock.proto.spec import STRING, ComponentSpec

from .elements import DTYPES, oracle_hash, random_array, runs_of_elements

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=20).map(
    lambda items: np.array(items, np.uint64)
)


@given(runs_of_elements())
def test_hashes_are_those_of_the_definition(run: tuple) -> None:
    specs, elements = run
    chunk = Chunk.from_elements(0, elements, specs)
    assert chunk.hashes.dtype == np.uint64
    assert chunk.hashes.tolist() == [oracle_hash(specs, element) for element in elements]


@given(runs_of_elements(), st.data())
def test_hashes_do_not_depend_on_the_chunk(run: tuple, data: st.DataObject) -> None:
    specs, elements = run
    whole = Chunk.from_elements(0, elements, specs)
    cut = data.draw(st.integers(0, len(elements)))
    parts = [Chunk.from_elements(0, elements[:cut], specs), whole.slice(cut, len(elements))]
    assert (
        np.concatenate([part.compute_hashes() for part in parts]).tolist() == whole.hashes.tolist()
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (300,), (2, 2)])
def test_stacked_and_varying_elements_hash_alike(dtype: str, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, (3, *shape), 5)
    stacked = Chunk.from_stacked(0, [array])
    spec = ComponentSpec(dtype, None)
    odd = random_array(dtype, (1, 1, 1), 6)
    rows = [(array[i : i + 1].reshape(shape),) for i in range(3)]
    varying = Chunk.from_elements(0, [*rows, (odd,)], [spec])
    assert varying.hashes[:3].tolist() == stacked.hashes.tolist()
    assert stacked.hashes.tolist() == [oracle_hash([spec], row) for row in rows]


def test_long_strings_hash_as_short_ones() -> None:
    strings = np.array([b"x" * 20_000, b"", b"y" * 9_000], object)
    spec = ComponentSpec(STRING, ())
    rows = [(strings[i : i + 1].reshape(()),) for i in range(3)]
    expected = [oracle_hash([spec], row) for row in rows]
    assert Chunk.from_stacked(0, [strings]).hashes.tolist() == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([np.zeros((1, 4), np.int32)], [np.zeros((1, 4), np.float32)]),
        ([np.zeros((1, 4), np.int32)], [np.zeros((1, 2, 2), np.int32)]),
        ([np.zeros((1, 0), np.int32)], [np.zeros((1, 0, 2), np.int32)]),
        ([np.array([[b"ab", b"c"]], object)], [np.array([[b"a", b"bc"]], object)]),
        ([np.array([1]), np.array([2])], [np.array([2]), np.array([1])]),
        ([np.array([0.0])], [np.array([-0.0])]),
    ],
)
def test_what_differs_hashes_differently(one: list, other: list) -> None:
    assert Chunk.from_stacked(0, one).hashes[0] != Chunk.from_stacked(0, other).hashes[0]


def test_the_definition_never_changes() -> None:
    """Caches and journals of earlier releases hold these numbers."""
    assert signature("float32", (28, 28)) == xxhash.xxh3_64_intdigest(b"float32[28,28]")
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    label = np.array([b"six"], object)
    chunk = Chunk.from_stacked(0, [image, label, np.array([6])])
    builder = DigestBuilder()
    builder.update(chunk.hashes)
    assert f"{int(chunk.hashes[0]):016x}" == "0a09b7e95866ed73"
    assert str(builder.digest()) == "1:0a09b7e95866ed73:68c04e0e87e96921"


@given(st.lists(hashes, max_size=5))
def test_a_digest_does_not_depend_on_the_chunks(parts: list) -> None:
    whole = np.concatenate([np.empty(0, np.uint64), *parts])
    one, many = DigestBuilder(), DigestBuilder()
    one.update(whole)
    for part in parts:
        many.update(part)
    digest = one.digest()
    assert digest == many.digest()
    assert digest.count == len(whole)
    assert digest.total == sum(whole.tolist()) % 2**64
    assert digest.chain == xxhash.xxh3_64_intdigest(whole.astype("<u8").tobytes())
    assert Digest.parse(str(digest)) == digest


def test_strided_hashes_are_read_as_they_are_shown() -> None:
    numbers = np.arange(10, dtype=np.uint64)
    one, other = DigestBuilder(), DigestBuilder()
    one.update(numbers[::2])
    other.update(np.array([0, 2, 4, 6, 8], np.uint64))
    assert one.digest() == other.digest()


def test_order_shows_in_the_chain_only() -> None:
    forth, back = DigestBuilder(), DigestBuilder()
    numbers = np.array([1, 2, 2**64 - 1], np.uint64)
    forth.update(numbers)
    back.update(numbers[::-1])
    assert forth.digest().total == back.digest().total == 2
    assert forth.digest().chain != back.digest().chain


def test_a_copy_goes_its_own_way() -> None:
    one = DigestBuilder()
    one.update(np.array([1], np.uint64))
    other, before = one.copy(), one.digest()
    other.update(np.array([2], np.uint64))
    assert one.digest() == before
    assert other.digest().count == 2


def test_combining_counts_and_totals() -> None:
    digests = [Digest(2, 2**64 - 1, 5), Digest(3, 2, 6)]
    assert (combine(digests).count, combine(digests).total) == (5, 1)
    assert combine(digests).chain != combine(digests[::-1]).chain
    assert combine([]).count == 0


@pytest.mark.parametrize("text", ["", "1:2:3", "-1:" + "0" * 16 + ":" + "0" * 16, "x" * 1000])
def test_other_texts_are_no_digests(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a digest"):
        Digest.parse(text)
