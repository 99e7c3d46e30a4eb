"""Runs a plan in this process the way the service would, and compares it with a local run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from penstock.graph import Plan, analyse, load_stream

if TYPE_CHECKING:
    from collections.abc import Iterator


def stream_dataset(plan: Plan, index: int, seed: int, epoch: int) -> Any:
    """One stream as the client would deliver it; every iteration is the next epoch."""
    stream = plan.streams[index]
    loaded = load_stream(bytes(stream.blob))
    assert loaded.num_splits == stream.num_splits
    assert loaded.components == stream.components
    signature = tuple(
        tf.TensorSpec(c.shape, tf.string if c.dtype == "string" else c.dtype)
        for c in stream.components
    )
    epochs = iter(range(epoch, 1 << 30))

    def elements() -> Iterator[Any]:
        now = next(epochs)
        order = list(range(stream.num_splits))
        if stream.shuffled or not plan.ordered:
            random.Random(now).shuffle(order)
        for split in order:
            yield from loaded.split_dataset(split, seed=seed, epoch=now).as_numpy_iterator()

    return tf.data.Dataset.from_generator(elements, output_signature=signature)


def run_plan(plan: Plan, *, seed: int = 7, epoch: int = 0, **kwargs: Any) -> Any:
    """The dataset that a consumer of the plan would read."""
    streams = [stream_dataset(plan, i, seed, epoch) for i in range(len(plan.streams))]
    return plan.apply_suffix(streams, **kwargs)


def plain(element: Any) -> Any:
    """An element as comparable Python values."""
    if isinstance(element, tf.RaggedTensor):
        return ("ragged", element.to_list())
    if isinstance(element, tf.SparseTensor):
        return ("sparse", *(plain(part) for part in (element.indices, element.values)))
    if isinstance(element, tf.Tensor):
        value = element.numpy()
        return value if isinstance(value, bytes) else value.tolist()
    if isinstance(element, dict):
        return {key: plain(value) for key, value in sorted(element.items())}
    if isinstance(element, tuple):
        return tuple(plain(value) for value in element)
    return element


def listed(ds: Any, limit: int | None = None) -> list[Any]:
    """The elements of a dataset as Python values."""
    return [plain(element) for element in (ds if limit is None else ds.take(limit))]


def check(ds: Any, *, order: bool | None = None, **options: Any) -> Plan:
    """Asserts that the service's result equals the local one, and returns the plan.

    As a sequence if the plan is ordered, as a multiset otherwise.
    """
    plan = analyse(ds, **options)
    if order is not None:
        assert plan.ordered is order, plan.notes
    local, served = listed(ds), listed(run_plan(plan))
    assert run_plan(plan).element_spec == ds.element_spec
    if plan.ordered and not any(s.shuffled for s in plan.streams):
        assert served == local
    else:
        assert sorted(map(repr, served)) == sorted(map(repr, local))
    return plan
