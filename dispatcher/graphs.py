"""Datasets as clients register them: the graph in a file first, then the journal's word for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import NotFoundError, UsageError
from ..proto import control_pb2
from . import admission, caching
from .datasets import GRAPH_BYTES_MAX

if TYPE_CHECKING:
    from .datasets import BlobStore
    from .engine import Engine


class Graphs:
    """Receives and looks up graphs.

    Args:
        engine: journals what is registered.
        blobs: keeps the graphs.
    """

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    async def receive(self, requests: Any) -> control_pb2.PutDatasetReply:
        """Registers a dataset from a stream of messages: its info, and the parts of its graph.

        Raises:
            UsageError: what is sent is not what was announced, or is too much.
            NotFoundError: the graph is not here and was not sent.
        """
        engine = self._engine
        info: control_pb2.DatasetInfo | None = None
        graph = bytearray()
        async for request in requests:
            if info is None:
                info = request.info
                admission.register_dataset(engine.state, info)
                if info.graph_bytes > GRAPH_BYTES_MAX:
                    raise UsageError(
                        f"graph_bytes must be at most {GRAPH_BYTES_MAX}, not {info.graph_bytes}"
                    )
                if await self._is_stored(info.fingerprint):
                    engine.commit(caching.dataset_events(engine.state, info))
                    return control_pb2.PutDatasetReply(term=engine.state.term)
            graph += request.part
            if len(graph) > info.graph_bytes:
                raise UsageError(f"the graph is longer than the announced {info.graph_bytes} bytes")
        if info is None:
            raise UsageError("PutDataset needs a first message with the dataset's info")
        if len(graph) < info.graph_bytes:
            raise NotFoundError(
                f"dataset {info.fingerprint} is not registered, and {len(graph)} of its"
                f" {info.graph_bytes} bytes were sent"
            )
        await asyncio.to_thread(self._blobs.put, info.fingerprint, bytes(graph))
        engine.commit(admission.register_dataset(engine.state, info))
        engine.commit(caching.dataset_events(engine.state, info))
        return control_pb2.PutDatasetReply(term=engine.state.term)

    async def get(self, fingerprint: str) -> bytes:
        """The graph of a registered dataset."""
        return await asyncio.to_thread(self._blobs.get, fingerprint)

    async def describe(self, fingerprint: str) -> control_pb2.DatasetInfo:
        """What is known of a dataset whose graph is there.

        Raises:
            UsageError: that is no fingerprint.
            NotFoundError: it is not registered.
        """
        admission.check_fingerprint(fingerprint)
        known = self._engine.state.datasets.get(fingerprint)
        if known is None or not await self._is_stored(fingerprint):
            raise NotFoundError(f"dataset {fingerprint} is not registered")
        return control_pb2.DatasetInfo(
            fingerprint=known.fingerprint,
            num_splits=known.num_splits,
            weights=known.weights,
            replayable=known.replayable,
            components=known.components,
            graph_bytes=known.graph_bytes,
            cache_key=known.cache_key,
        )

    async def _is_stored(self, fingerprint: str) -> bool:
        if fingerprint not in self._engine.state.datasets:
            return False
        return await asyncio.to_thread(self._blobs.has, fingerprint)
