"""Ground truth: the digest of a local dataset, to compare what the service delivered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..proto.chunk import Chunk
from ..proto.hashing import DigestBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tensorflow as tf

    from ..proto.hashing import Digest, Hashes

_ELEMENTS = 256


def digest_of(dataset: tf.data.Dataset) -> Digest:
    """The digest of a dataset, iterated here: what an epoch's digest has to be.

    Elements are hashed as the service hashes them. `count` and `total` do not depend on the
    order; `chain` does. Where a pipeline's last part runs at the client (batching, for instance),
    the service delivers, and hashes, the elements before that part.

    Args:
        dataset: a finite `tf.data.Dataset`, not distributed.
    """
    builder = DigestBuilder()
    for hashes in element_hashes(dataset):
        builder.update(hashes)
    return builder.digest()


def element_hashes(dataset: tf.data.Dataset) -> Iterator[Hashes]:
    """The hashes of a dataset's elements, in order, some at a time."""
    from ..graph.spec import components_of, fixed_bytes, flatten_element

    spec = dataset.element_spec
    components = components_of(spec)
    start = 0
    if fixed_bytes(spec) is not None:
        # Stacked by TensorFlow, which is much faster than element by element.
        stacked = dataset.map(lambda *parts: _flat(spec, parts)).batch(_ELEMENTS)
        for arrays in stacked.as_numpy_iterator():
            chunk = Chunk.from_stacked(start, arrays)
            start = chunk.stop
            yield chunk.hashes
        return
    pending: list[tuple[Any, ...]] = []
    for element in dataset:
        pending.append(tuple(_array(part) for part in flatten_element(spec, element)))
        if len(pending) == _ELEMENTS:
            yield Chunk.from_elements(start, pending, components).hashes
            start += len(pending)
            pending.clear()
    if pending:
        yield Chunk.from_elements(start, pending, components).hashes


def _flat(spec: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    from ..graph.spec import flatten_element

    # tf.data spreads an element that is a tuple over the arguments, and only such.
    return flatten_element(spec, parts if isinstance(spec, tuple) else parts[0])


def _array(part: Any) -> Any:
    value = part.numpy()
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
