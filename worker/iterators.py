"""tf.data iterators whose state can be taken out and put into another: all that TensorFlow lends.

A `Source` makes an iterator for one split; `fed` has those that are used for split after split.

The state is that of the optimised graph, with names of its nodes as keys: it fits only an
iterator of the same graph, options and batch size, in the same release of TensorFlow. It is
defined between two elements, so only the thread that reads an iterator may ask for it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Protocol

import tensorflow as tf

from ..errors import PenstockError
from . import ragged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .checkpoint_file import Layout

#: Refuse to save what could not be restored: random numbers and functions with a state.
FAIL = 2
#: Save it all the same.
IGNORE = 1
_NOISE = re.compile(r"\{\{(?:function_)?node [^}]*\}\}\s*|\s*\[Op:\w+\].*", re.DOTALL)


class StateError(PenstockError):
    """An iterator's state cannot be taken, or does not fit."""

    exit_code = 4


def options() -> Any:
    """Bounds for one of many datasets in this process; none of them changes its elements.

    Without a private pool all iterators share the process's own, which has a thread a core.
    """
    made = tf.data.Options()
    made.deterministic = True
    made.autotune.cpu_budget = os.cpu_count() or 1
    made.threading.max_intra_op_parallelism = 1
    return made


def options_name() -> str:
    """Says which options iterators have here: the state of one with others may not fit."""
    return f"deterministic cpu_budget={os.cpu_count() or 1} intra_op=1"


class Elements(Protocol):
    """The elements of one split, and the state of what makes them."""

    @property
    def layout(self) -> Layout:
        """How they are wanted."""

    @property
    def batched(self) -> bool:
        """What comes has a leading dimension."""

    @property
    def over(self) -> bool:
        """All have come, and there is no state any more."""

    def __iter__(self) -> Iterator[Any]:
        """The elements or batches that follow; every caller goes on where the last one stopped."""

    def capture(self) -> bytes:
        """The state, between two elements.

        Raises:
            StateError: it has none that could be restored; the message says why.
        """

    def restore(self, state: bytes) -> None:
        """Goes on as the iterator that `state` was taken from.

        Raises:
            StateError: the state does not fit; this object cannot be used any more.
        """


class Source:
    """The iterator of one split: its `Elements`.

    Args:
        dataset: of the split, without options.
        layout: how its elements are wanted.

    Attributes:
        layout: as given.
        batched: what it gives has a leading dimension.
    """

    def __init__(self, dataset: Any, layout: Layout) -> None:
        self.layout = layout
        if layout.kind == "ragged":
            dataset = ragged.batched(dataset, layout.size)
        dataset = dataset.with_options(options())
        self.batched = is_batched(layout, dataset.element_spec)
        self.over = False
        self._iterator = iter(dataset.batch(layout.size) if self.batched else dataset)
        self._elements = FlatElements(self._iterator)

    def __iter__(self) -> Iterator[Any]:
        """See `Elements`."""
        return self._elements

    def capture(self) -> bytes:
        """See `Elements`."""
        return capture(self._iterator, FAIL)

    def restore(self, state: bytes) -> None:
        """See `Elements`."""
        restore(self._iterator, state)


class FlatElements:
    """An iterator's elements, each as a list of its components.

    TensorFlow's own `next` puts them into the structure of the spec, checks on the way what kinds
    of structures there are, and so takes twice as long as the op.

    Args:
        iterator: eager, of flat tuples of tensors.
    """

    def __init__(self, iterator: Any) -> None:
        spec = iterator.element_spec
        self._iterator = iterator  # the resource lives as long as this
        self._types = [part.dtype for part in spec]
        self._shapes = [part.shape for part in spec]

    def __iter__(self) -> FlatElements:
        """Itself."""
        return self

    def __next__(self) -> list[Any]:
        """The next one. After an error that is an element's own, the one after that."""
        try:
            components: list[Any] = tf.raw_ops.IteratorGetNext(
                iterator=self._iterator._iterator_resource,
                output_types=self._types,
                output_shapes=self._shapes,
            )
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        return components


def is_batched(layout: Layout, specs: Any) -> bool:
    """Whether elements of these specs come in batches."""
    # A batch of one would only be a copy, save of strings, which come in another form alone.
    strings = any(spec.dtype == tf.string for spec in tf.nest.flatten(specs))
    return layout.kind == "stacked" and (layout.size > 1 or strings)


def capture(iterator: Any, policy: int) -> bytes:
    """The state of an eager iterator.

    Args:
        iterator: of a tf.data.Dataset.
        policy: what is done about a state that it has besides, outside of it: `FAIL` or `IGNORE`.

    Raises:
        StateError: it has none that could be restored; the message says why.
    """
    try:
        state = tf.raw_ops.SerializeIterator(
            resource_handle=iterator._iterator_resource, external_state_policy=policy
        )
        found: bytes = tf.io.serialize_tensor(state).numpy()
    except tf.errors.OpError as error:
        raise StateError(_plain(error)) from error
    return found


def restore(iterator: Any, state: bytes) -> None:
    """Puts a state into an eager iterator.

    Raises:
        StateError: it does not fit; the iterator cannot be used any more.
    """
    try:
        tf.raw_ops.DeserializeIterator(
            resource_handle=iterator._iterator_resource,
            serialized=tf.io.parse_tensor(state, tf.variant),
        )
    except tf.errors.OpError as error:
        raise StateError(_plain(error)) from error


def _plain(error: Exception) -> str:
    text = _NOISE.sub("", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"
