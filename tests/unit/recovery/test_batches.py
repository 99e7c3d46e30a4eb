"""Batches of any structure: leaves, hashes, and what differs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from penstock.recovery.batches import differences, hashes_of, leaves

BATCH = {"x": np.arange(6.0).reshape(2, 3), "more": (np.array([b"a", b"bc"], object), 3, "text")}


def test_leaves_are_named_by_the_expression_that_gives_them() -> None:
    names = [name for name, _ in leaves(BATCH)]
    assert names == ["batch['x']", "batch['more'][0]", "batch['more'][1]", "batch['more'][2]"]


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({**BATCH, "x": np.arange(6.0).reshape(3, 2)}, "batch['x']"),
        ({**BATCH, "x": np.arange(6.0, dtype="f4").reshape(2, 3)}, "batch['x']"),
        ({**BATCH, "more": (np.array([b"ab", b"c"], object), 3, "text")}, "batch['more'][0]"),
        ({**BATCH, "more": (BATCH["more"][0], 3.0, "text")}, "batch['more'][1]"),
        ({"x": BATCH["x"], "more": BATCH["more"][:2]}, "batch['more'][2]"),
    ],
)
def test_what_differs_is_named(other: Any, name: str) -> None:
    assert differences(hashes_of(BATCH), hashes_of(other)) == (name,)


def test_equal_bytes_are_equal_whatever_their_strides_and_dtype() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert hashes_of(np.asfortranarray(x)) == hashes_of(x)
    half = x.astype(ml_dtypes.bfloat16)
    assert hashes_of(half) == hashes_of(half.copy())
    assert hashes_of(half) != hashes_of(half + 1)
    nan = np.array([np.nan])
    assert hashes_of(nan) == hashes_of(nan.copy())


def test_a_leaf_without_bytes_has_no_hash() -> None:
    assert hashes_of([object()]) == {"batch[0]": None}
