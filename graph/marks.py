"""The marks that a user can set in a pipeline, and how a graph shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import capture
from .ops import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorflow as tf

#: The name of the prefetch that marks a cache point; TensorFlow wants an identifier.
_MARK = "penstock_cache_here"


def cache_here() -> Callable[[Any], Any]:
    """Marks a point in a pipeline: what is made up to there is worth caching by the workers.

        dataset = dataset.map(decode).apply(penstock.cache_here()).map(augment)

    Without penstock's cache, and in a plain local run, the mark does nothing.

    Returns:
        A function for `Dataset.apply`.
    """

    def mark(dataset: tf.data.Dataset) -> tf.data.Dataset:
        # A prefetch of nothing hands each element through, and TensorFlow removes it from what
        # it runs; its name is the one thing of it that reaches the graph.
        return dataset.prefetch(0, name=_MARK)

    return mark


def is_mark(node: Any) -> bool:
    """Whether a node was made by `cache_here`."""
    return node.op == "PrefetchDataset" and capture.dataset_name(node) == _MARK


def marks_cache(node: Any) -> bool:
    """Whether a node marks a cache point: `cache_here()` or `Dataset.cache`."""
    return is_mark(node) or canonical(node.op) in ("CacheDataset", "CacheDatasetV2")
