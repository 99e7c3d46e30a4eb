"""A process of a speed benchmark: a trainer that reads, or a part of stock tf.data service.

`python -m penstock.bench.child` answers what `children` asks; see `answers`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PenstockError, UsageError
from .answers import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .pipelines import Pipeline
    from .ways import Consumed

_TRUTH_ELEMENTS = 256


class Quiet:
    """Tells nobody."""

    def said(self, text: str) -> None:
        """Does nothing."""

    def step(self, what: str, done: float, total: float) -> None:
        """Does nothing."""


class Child:
    """Does what it is asked, one thing at a time, and keeps the servers that it was asked for."""

    def __init__(self) -> None:
        self._servers: list[Any] = []
        self._commands: dict[str, Callable[..., dict[str, Any]]] = {
            "ready": self.ready,
            "pictures": self.pictures,
            "truth": self.truth,
            "read": self.read,
            "dispatcher": self.dispatcher,
            "worker": self.worker,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what the request says, and returns what came of it, or what went wrong."""
        arguments = {name: value for name, value in request.items() if name != "do"}
        try:
            return self._commands[request["do"]](**arguments)
        except PenstockError as error:
            return {"error": str(error), "exit_code": error.exit_code}
        except Exception as error:  # whatever TensorFlow raises is what this contestant could not
            return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}

    def ready(self) -> dict[str, Any]:
        """Answers once TensorFlow is there."""
        import tensorflow as tf

        tf.constant(0)
        return {"pid": os.getpid()}

    def pictures(self, directory: str, files: int, records: int) -> dict[str, Any]:
        """Writes the files of pictures."""
        from .workloads import write_pictures

        return {"paths": write_pictures(Path(directory), Quiet(), files=files, records=records)}

    def truth(self, pipeline: str, elements: int, directory: str) -> dict[str, Any]:
        """What a plain local run gives: number, digest, and bytes."""
        from .pipelines import payload_bytes

        dataset = _pipeline(pipeline).dataset(elements, Path(directory), inner=False)
        count, total = _digest(dataset)
        return {"count": count, "total": total, "nbytes": payload_bytes(dataset)}

    def read(
        self,
        system: str,
        way: str,
        pipeline: str,
        elements: int,
        directory: str,
        address: str = "",
        **how: Any,
    ) -> dict[str, Any]:
        """Reads one epoch, and tells how that went.

        Args:
            system: local, stock or penstock.
            way: one of `WAYS`.
            pipeline: the name of what is read.
            elements: of the epoch.
            directory: of the files of pictures.
            address: of the dispatcher.
            how: further arguments of `distribute`; of penstock, `files` of its TLS.
        """
        from .ways import consume_dataset

        chosen = _pipeline(pipeline)
        inner = bool(chosen.inner) and way != "batched"
        plain = chosen.dataset(elements, Path(directory), inner=inner)
        if system == "penstock":
            return _read_penstock(plain, way, address, chosen, inner=inner, **how)
        if system == "stock":
            plain = plain.apply(_stock(address, **how))
        return consume_dataset(plain, way, batch=chosen.batch, inner=inner).as_json()

    def dispatcher(self) -> dict[str, Any]:
        """Starts stock's dispatcher here."""
        import tensorflow as tf

        service = tf.data.experimental.service
        server = service.DispatchServer(service.DispatcherConfig(port=0, protocol="grpc"))
        self._servers.append(server)
        return {"address": server.target.rpartition("//")[2]}

    def worker(self, dispatcher: str) -> dict[str, Any]:
        """Starts a worker of stock here."""
        import tensorflow as tf

        service = tf.data.experimental.service
        config = service.WorkerConfig(dispatcher_address=dispatcher, protocol="grpc")
        self._servers.append(service.WorkerServer(config))
        return {"pid": os.getpid()}


def _pipeline(name: str) -> Pipeline:
    from .pipelines import by_name

    return by_name()[name]


def _stock(address: str, *, compression: str | None, processing_mode: str = "dynamic") -> Any:
    import tensorflow as tf

    service = tf.data.experimental.service
    modes = {"dynamic": service.ShardingPolicy.DYNAMIC, "off": service.ShardingPolicy.OFF}
    return service.distribute(
        processing_mode=modes[processing_mode],
        service=f"grpc://{address}",
        compression=compression,
    )


def _read_penstock(
    plain: Any,
    way: str,
    address: str,
    pipeline: Pipeline,
    *,
    inner: bool,
    files: Mapping[str, str] | None = None,
    **how: Any,
) -> dict[str, Any]:
    from ..client.reader import Reader
    from ..security.settings import Security
    from .ways import consume_batches, consume_dataset

    with Reader(plain, address, seed=1, security=Security(**(files or {})), **how) as reader:
        consumed: Consumed
        try:
            if way == "numpy":
                consumed = consume_batches(reader.runs(), lambda run: len(run[0]))
            else:
                dataset = reader.dataset()
                consumed = consume_dataset(dataset, way, batch=pipeline.batch, inner=inner)
        except Exception as error:
            # tf.data shows what the reader raised as text only.
            raise reader.error or error from None
        if not reader.digests:
            raise UsageError("the epoch came to its end, but was not delivered whole")
        digest = reader.digests[0]
        return {**consumed.as_json(), "digest": [digest.count, digest.total]}


def _digest(dataset: Any) -> tuple[int, int]:
    """Number and digest of a plain local run's elements."""
    import tensorflow as tf

    from ..client.groundtruth import digest_of
    from ..proto.chunk import Chunk
    from ..proto.hashing import DigestBuilder

    specs = tf.nest.flatten(dataset.element_spec)
    if not all(type(spec) is tf.TensorSpec and spec.shape.is_fully_defined() for spec in specs):
        digest = digest_of(dataset)
        return digest.count, digest.total
    builder, start = DigestBuilder(), 0
    for batch in dataset.batch(_TRUTH_ELEMENTS).as_numpy_iterator():
        chunk = Chunk.from_stacked(start, tf.nest.flatten(batch))
        builder.update(chunk.hashes)
        start = chunk.stop
    digest = builder.digest()
    return digest.count, digest.total


def main() -> None:
    """Answers until standard input ends."""
    serve(Child().answer)


if __name__ == "__main__":
    main()
