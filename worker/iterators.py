"""tf.data iterators whose state can be taken out and put into another: all that TensorFlow lends.

The state is that of the optimised graph, with names of its nodes as keys: it fits only an
iterator of the same graph, options and batch size, in the same release of TensorFlow. It is
defined between two elements, so only the thread that reads an iterator may ask for it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import PenstockError
from . import ragged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .checkpoint_file import Layout

#: Refuse to save what could not be restored: random numbers and functions with a state.
_POLICY_FAIL = 2
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


class Source:
    """The iterator of one split.

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
        # A batch of one would only be a copy, save of strings, which come in another form alone.
        strings = any(spec.dtype == tf.string for spec in tf.nest.flatten(dataset.element_spec))
        self.batched = layout.kind == "stacked" and (layout.size > 1 or strings)
        self._iterator = iter(dataset.batch(layout.size) if self.batched else dataset)

    def __iter__(self) -> Iterator[Any]:
        """The elements or batches that follow; every caller goes on where the last one stopped."""
        found: Iterator[Any] = self._iterator
        return found

    def capture(self) -> bytes:
        """The state, between two elements.

        Raises:
            StateError: it has none that could be restored; the message says why.
        """
        try:
            state = tf.raw_ops.SerializeIterator(
                resource_handle=self._iterator._iterator_resource,
                external_state_policy=_POLICY_FAIL,
            )
            found: bytes = tf.io.serialize_tensor(state).numpy()
        except tf.errors.OpError as error:
            raise StateError(_plain(error)) from error
        return found

    def restore(self, state: bytes) -> None:
        """Goes on as the iterator that `state` was taken from.

        Raises:
            StateError: the state does not fit; this source cannot be used any more.
        """
        try:
            tf.raw_ops.DeserializeIterator(
                resource_handle=self._iterator._iterator_resource,
                serialized=tf.io.parse_tensor(state, tf.variant),
            )
        except tf.errors.OpError as error:
            raise StateError(_plain(error)) from error


def _plain(error: Exception) -> str:
    text = _NOISE.sub("", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"
