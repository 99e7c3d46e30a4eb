"""A dispatcher for tests: in this process, says what it is told to say, remembers what it heard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from penstock.proto import control_pb2, control_pb2_grpc
from penstock.worker.messages import Assignment

DEADLINE_S = 60.0


class FakeDispatcher(control_pb2_grpc.ControlServicer):
    """Long polls as the real one holds them, but no journal and no decisions."""

    def __init__(self, term: int = 1) -> None:
        self.changed = threading.Condition()
        self.term = term
        self.version = 1
        self.registered = True
        self.desired: list[Assignment] = []
        self.blobs: dict[str, bytes] = {}
        self.registrations: list[Any] = []
        self.syncs: list[Any] = []
        self.fetched: list[str] = []
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.refuse_as = "RefusedError"
        self.unwanted: set[int] = set()  # splits whose checkpoints are of no use
        self.port = 0
        self._closing = False
        self._server: grpc.Server | None = None

    def start(self) -> FakeDispatcher:
        """Serves, at the port that it had before if it had one."""
        self._closing = False
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def stop(self) -> None:
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        assert self._server is not None
        self._server.stop(0).wait(DEADLINE_S)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def say(self, **fields: Any) -> None:
        """Changes attributes, and tells the workers."""
        with self.changed:
            for name, value in fields.items():
                setattr(self, name, value)
            self.version += 1
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until what was heard makes `condition` true."""
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE_S), (
                self.registrations[-1:],
                self.syncs[-1:],
            )

    def held(self) -> dict[int, Any]:
        """What the last heartbeat said, by attempt."""
        return {held.attempt: held for held in self.syncs[-1].held} if self.syncs else {}

    def RegisterWorker(self, request: Any, context: Any) -> Any:
        with self.changed:
            self.registrations.append(request)
            self.registered = self.registered or self.refuse is None
            self.changed.notify_all()
        if self.refuse is not None:
            context.set_trailing_metadata((("penstock-error", self.refuse_as),))
            context.abort(*self.refuse)
        wanted = [n for n, c in enumerate(request.checkpoints) if c.split not in self.unwanted]
        return control_pb2.RegisterWorkerReply(
            term=self.term, worker="w1", heartbeat_ms=2000, wanted=wanted
        )

    def SyncWorker(self, request: Any, context: Any) -> Any:
        with self.changed:
            self.syncs.append(request)
            self.changed.notify_all()
            fresh = request.term == self.term and request.seen_version == self.version
            if fresh and request.hold_ms:
                self.changed.wait_for(
                    lambda: (
                        self._closing
                        or request.seen_version != self.version
                        or not context.is_active()
                    ),
                    request.hold_ms / 1000,
                )
            return control_pb2.SyncWorkerReply(
                term=self.term,
                version=self.version,
                registered=self.registered,
                attempts=[
                    control_pb2.AttemptSpec(
                        attempt=a.attempt,
                        job=a.job,
                        stream=a.stream,
                        epoch=a.epoch,
                        split=a.split,
                        dataset=a.dataset,
                        seed=a.seed,
                        trial=a.trial,
                    )
                    for a in self.desired
                ],
            )

    def GetDataset(self, request: Any, context: Any) -> Iterator[Any]:
        with self.changed:
            self.fetched.append(request.fingerprint)
            blob = self.blobs.get(request.fingerprint)
        if blob is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such dataset")
            return
        for start in range(0, len(blob), 1000):
            yield control_pb2.GetDatasetReply(part=blob[start : start + 1000])
