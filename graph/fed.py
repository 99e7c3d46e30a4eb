"""A stream whose splits are fed to one iterator, one after the other.

To make an iterator TensorFlow optimises the graph anew and instantiates each of its functions: 15
to 50 ms of processor time, for every split. A *fed* dataset pays that once. It takes from a queue
what fills the holes of a split's form, makes the split's dataset of it, and gives its elements;
then comes a *mark*, and it waits for the next. The functions and their kernels stay.

What was taken from the queue is part of an iterator's state: one that is restored goes on in the
same split. It depends on the queue all the same, which TensorFlow would refuse to save: whoever
saves the state tells it not to look, and has to know that nothing else in the stream has a state.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from . import capture
from .lifting import NotLiftableError, lift
from .ops import is_dataset_op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .forms import Form

logger = logging.getLogger(__name__)

#: Ops besides those of datasets that may run again for every split.
_PURE = ("Const", "DummySeedGenerator", "_Retval", "Identity")


@dataclass(frozen=True, slots=True)
class Batching:
    """What the elements of a fed dataset are.

    Attributes:
        name: of the way.
        batch: makes batches of so many elements of a dataset; None: they come one by one.
    """

    name: str
    batch: Callable[[Any, Any], Any] | None


class FedStream:
    """Makes fed datasets; use `fed_stream`. Thread-safe.

    Args:
        form: what is fed is what fills its holes.
        graph: its graph, with all holes at the top; without functions that other graphs have, too.
        places: names of the holes there.
        spec: of the stream's elements, flat.

    Attributes:
        specs: as given.
    """

    def __init__(self, form: Form, graph: Any, places: Sequence[str], spec: Any) -> None:
        self._form = form
        self.specs: tuple[Any, ...] = spec
        self._holes = [place.spec for place in form.places()]
        self._template = _template(graph, places, self._holes)
        self._lock = threading.Lock()
        self._made: dict[Batching, tuple[Any, tuple[Any, ...]]] = {}

    def queue(self) -> Any:
        """A queue for one dataset, to which `values` are fed."""
        return tf.queue.FIFOQueue(1, [tf.int64, *(spec.dtype for spec in self._holes)])

    def values(self, split: int, *, seed: int, epoch: int, size: int) -> list[Any]:
        """What a dataset has to be fed for it to give a split.

        Args:
            split: which one.
            seed: of the job.
            epoch: of the job.
            size: how many elements are a batch, of a dataset of batches.
        """
        filling = self._form.values(split, seed=seed, epoch=epoch)
        return [tf.constant(size, tf.int64), *filling]

    def dataset(self, queue: Any, batching: Batching) -> Any:
        """A dataset that gives the splits that are put into a queue.

        Args:
            queue: made by `queue`, for this dataset alone.
            batching: what its elements are.

        Returns:
            A dataset of flat tuples. What follows a split's last element is a mark: see `is_mark`.
        """
        with self._lock:
            if batching not in self._made:
                self._made[batching] = self._traced(batching)
            make, specs = self._made[batching]
        return capture.variant_dataset(make(queue.queue_ref), specs)

    def is_mark(self, components: Sequence[Any], batching: Batching) -> bool:
        """Whether what a dataset gave is the mark after a split's last element.

        It has no rows: no batch is empty, and single elements have a dimension less.
        """
        shape = components[0].shape
        if batching.batch is None and len(shape) == len(self.specs[0].shape):
            return False
        return bool(shape[0] == 0)

    def _traced(self, batching: Batching) -> tuple[Any, tuple[Any, ...]]:
        """A function from a queue to a dataset's variant, and the specs of that dataset."""
        types = [tf.int64, *(spec.dtype for spec in self._holes)]
        specs: list[Any] = []

        def split(size: Any, *filling: Any) -> Any:
            made = capture.variant_dataset(self._template(*filling), self.specs)
            if batching.batch is not None:
                made = batching.batch(made, size)
            mark = tuple(_no_rows(spec, batching) for spec in made.element_spec)
            # TensorFlow adds the prefetch itself, but not within a function. Nothing may read
            # ahead of the mark: it would wait for the next split while the state is saved.
            ahead = made.prefetch(tf.data.AUTOTUNE)
            marked = ahead.concatenate(tf.data.Dataset.from_tensors(mark))
            specs[:] = marked.element_spec
            return marked

        def make(queue: Any) -> Any:
            def take(_: Any) -> tuple[Any, ...]:
                taken = tf.raw_ops.QueueDequeueV2(handle=queue, component_types=types)
                size, *filling = taken
                held = zip(filling, self._holes, strict=True)
                return (tf.reshape(size, []), *(tf.ensure_shape(f, h.shape) for f, h in held))

            turns = tf.data.Dataset.range(1).repeat().map(take)
            return capture.variant_of(turns.flat_map(split))

        traced = tf.compat.v1.wrap_function(make, [tf.TensorSpec([], tf.resource)])
        return traced, tuple(specs)


def _no_rows(spec: Any, batching: Batching) -> Any:
    """A component of the mark, in a dataset whose elements have one like `spec`."""
    shape = spec.shape if batching.batch is None else spec.shape[1:]
    if spec.dtype == tf.variant:
        none = tf.zeros([0], tf.int64)
        return tf.raw_ops.RaggedTensorToVariant(
            rt_nested_splits=[tf.zeros([1], tf.int64)], rt_dense_values=none, batched_input=True
        )
    return tf.zeros([0, *(size or 0 for size in shape)], spec.dtype)


def fed_stream(form: Form, spec: Any) -> FedStream | None:
    """The fed stream of a form; None if it has to be made anew for every split.

    Args:
        form: of the stream.
        spec: of its elements.
    """
    graph = form.unfilled()
    if not all(is_dataset_op(node.op) or node.op in _PURE for node in graph.node):
        return None  # what it makes besides datasets may have a state
    places = form.places()
    try:
        lifted = lift(graph, [(p.function, p.name) for p in places if p.function])
    except NotLiftableError as error:
        logger.info("not fed: %s", error)
        return None
    _rename_functions(graph)
    names = [lifted.get((place.function, place.name), place.name) for place in places]
    return FedStream(form, graph, names, spec)


def _template(graph: Any, places: Sequence[str], specs: Sequence[Any]) -> Any:
    """A function from what fills the holes to the variant of a dataset."""
    returned = next(node for node in graph.node if node.op == "_Retval")
    result = returned.input[0] if ":" in returned.input[0] else f"{returned.input[0]}:0"
    graph.node.remove(returned)
    for node in graph.node:
        if node.name in places:
            node.op = "Placeholder"
            node.attr.pop("value", None)

    def body(*filling: Any) -> Any:
        mapping = {f"{name}:0": value for name, value in zip(places, filling, strict=True)}
        return tf.graph_util.import_graph_def(
            graph, input_map=mapping, return_elements=[result], name=""
        )[0]

    return tf.compat.v1.wrap_function(body, list(specs))


def _rename_functions(graph: Any) -> None:
    """Names functions by what the graph is: the process has one library for all streams."""
    content = graph.SerializeToString(deterministic=True)
    ending = hashlib.blake2b(content, digest_size=8).hexdigest()
    names = {f.signature.name: f"{f.signature.name}_{ending}" for f in graph.library.function}
    every = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    for node in every:
        for attribute in node.attr.values():
            for func in [attribute.func] if attribute.HasField("func") else attribute.list.func:
                func.name = names.get(func.name, func.name)
    for body in graph.library.function:
        body.signature.name = names[body.signature.name]
