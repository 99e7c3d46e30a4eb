"""Streams that draw random numbers, and what they draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.graph import LoadedStream, Plan, analyse, load_stream

from .random_recipe import elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A job, an epoch: what nothing else is said of.
KEY = {"seed": 1, "epoch": 0}


def reproducible(ds: Any, **options: Any) -> LoadedStream:
    """The one stream of a pipeline, whose random ops must all have been rewritten."""
    plan = analyse(ds, strict=True, **options)
    (stream,) = plan.streams
    assert stream.replayable, plan.notes
    assert not said(plan, "replay")
    return load_stream(stream.blob)


def said(plan: Plan, kind: str) -> list[tuple[str, str]]:
    """Where and what the notes of one kind are about."""
    return [(note.where, note.text.split(":")[0]) for note in plan.notes if note.kind == kind]


def drawn(stream: LoadedStream, split: int = 0, **key: int) -> list[Any]:
    """The elements of one split, comparable to the bit."""
    return elements(stream.split_dataset(split, **{**KEY, **key}))


def numbers(stream: LoadedStream, split: int = 0, **key: int) -> NDArray[Any]:
    """The numbers that a stream of scalars, or of tuples of those, draws: a row an element."""
    dataset = stream.split_dataset(split, **{**KEY, **key})
    return np.array([tuple(element) for element in dataset.as_numpy_iterator()])
