"""A dispatcher and workers for the client's tests: real sockets and gRPC, made-up splits.

The dispatcher places every open split on the workers it is told of, in turn, and follows
docs/protocol.md as far as a client can see. Tests make trouble by calling its methods.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import msgpack
import numpy as np

from penstock.proto import chunk as chunk_codec
from penstock.proto import control_pb2, control_pb2_grpc
from penstock.proto.chunk import Chunk
from penstock.proto.deal import deal
from penstock.proto.hashing import DigestBuilder
from penstock.proto.spec import ComponentSpec
from penstock.proto.wire import (
    PROTOCOL_VERSION,
    UNAUTHENTICATED,
    Frame,
    FrameType,
    read_frame,
    send_frame,
)

SplitData = Callable[[int, int], list[np.ndarray]]
NUMBER = (ComponentSpec("int64", ()),)


def numbers(per_split: int) -> SplitData:
    """Split s has the numbers s * per_split and so on, the same in every epoch."""

    def data(split: int, epoch: int) -> list[np.ndarray]:
        return [np.arange(split * per_split, (split + 1) * per_split)]

    return data


class FakeWorker:
    """Serves attempts over TCP: whole splits, in chunks of `chunk` elements, within credit."""

    def __init__(self, name: str, data: SplitData, *, chunk: int = 10) -> None:
        self.name = name
        self.announced = name
        self.chunk = chunk
        self.data = data
        self.attempts: dict[int, tuple[int, int]] = {}
        self.fetches: list[dict[str, Any]] = []
        self.released: list[int] = []
        self.broken: set[int] = set()
        self.fail: dict[int, tuple[str, str]] = {}
        #: It lets nobody in, for that reason; counts whom it has refused.
        self.refusal, self.refused = "", threading.Semaphore(0)
        #: Fetches that begin from now on send so many elements, and no more.
        self.pause_after: int | None = None
        #: Where it is not set, connections are made and wait to be welcomed.
        self.welcoming = threading.Event()
        self.welcoming.set()
        self.changed = threading.Condition()
        self.connections: list[socket.socket] = []
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept, ())

    def _start(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name="fake-worker")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            self._start(self._serve, (sock,))

    def _serve(self, sock: socket.socket) -> None:
        sends: dict[int, _Send] = {}
        try:
            hello = read_frame(sock.recv_into)
            if hello is None:
                return
            assert (hello.type, hello.header["version"]) == (FrameType.HELLO, PROTOCOL_VERSION)
            self.welcoming.wait(30.0)
            if self.refusal:
                refusal = {"attempt": 0, "code": UNAUTHENTICATED, "detail": self.refusal}
                send_frame(sock, FrameType.FAIL, refusal)
                self.refused.release()
                return
            send_frame(
                sock, FrameType.WELCOME, {"version": PROTOCOL_VERSION, "worker": self.announced}
            )
            while (frame := read_frame(sock.recv_into)) is not None:
                self._handle(sock, frame, sends)
        except OSError:
            pass
        finally:
            sock.close()

    def _handle(self, sock: socket.socket, frame: Frame, sends: dict[int, _Send]) -> None:
        attempt = frame.header["attempt"]
        if frame.type is FrameType.FETCH:
            with self.changed:
                self.fetches.append(frame.header)
                self.changed.notify_all()
            if attempt in self.fail:
                code, detail = self.fail[attempt]
                fail = {"attempt": attempt, "code": code, "detail": detail}
                send_frame(sock, FrameType.FAIL, fail)
                return
            sends[attempt] = _Send(self, sock, frame.header)
            sends[attempt].go_on()
        elif frame.type is FrameType.CREDIT and attempt in sends:
            sends[attempt].credit += frame.header["credit"]
            sends[attempt].go_on()
        elif frame.type is FrameType.RELEASE:
            self.released.append(attempt)
            sends.pop(attempt, None)

    def drop_connections(self) -> None:
        """Breaks every connection; the worker goes on to listen."""
        for sock in self.connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def close(self) -> None:
        """Dies."""
        self._closed = True
        self.welcoming.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(5.0)


class _Send:
    """One fetch being answered."""

    def __init__(self, worker: FakeWorker, sock: socket.socket, fetch: dict[str, Any]) -> None:
        self._worker, self._sock, self._attempt = worker, sock, fetch["attempt"]
        split, epoch = worker.attempts[self._attempt]
        arrays = worker.data(split, epoch)
        self._chunk = Chunk.from_stacked(0, arrays)
        self._next = fetch["from"]
        self.credit = fetch["credit"]
        self._ended = False
        # A paused fetch stays paused: else a late CREDIT would have it go on after a test's back.
        self._pause_after = worker.pause_after
        if fetch["verify"]:
            hashes = self._chunk.hashes[: self._next]
            for start in range(0, len(hashes), 7):
                part = hashes[start : start + 7]
                header = {"attempt": self._attempt, "start": start, "count": len(part)}
                send_frame(sock, FrameType.HASHES, header, [part.tobytes()])

    def go_on(self) -> None:
        """Sends what credit allows."""
        while self.credit > 0 and self._next < self._chunk.count:
            if self._pause_after is not None and self._next >= self._pause_after:
                return
            stop = min(self._next + self._worker.chunk, self._chunk.count)
            part = self._chunk.slice(self._next, stop)
            header, buffers = chunk_codec.encode(part, {"attempt": self._attempt})
            if self._attempt in self._worker.broken:
                header["hashes"] = bytes(len(header["hashes"]))
            send_frame(self._sock, FrameType.CHUNK, header, buffers)
            self.credit -= sum(len(memoryview(buffer).cast("B")) for buffer in buffers)
            self._next = stop
        if self._next == self._chunk.count and not self._ended:
            self._ended = True
            builder = DigestBuilder()
            builder.update(self._chunk.hashes)
            digest = builder.digest()
            end = {"count": digest.count, "total": digest.total, "chain": digest.chain}
            send_frame(self._sock, FrameType.END, {"attempt": self._attempt, **end})


class FakeDispatcher(control_pb2_grpc.ControlServicer):
    """One job, in memory; `like` is the dispatcher that it is the next term of."""

    def __init__(
        self,
        workers: Sequence[FakeWorker] = (),
        *,
        port: int = 0,
        like: FakeDispatcher | None = None,
    ) -> None:
        self.workers = list(workers)
        self.term = 1
        self.version = 1
        self.datasets: dict[str, control_pb2.DatasetInfo] = {}
        self.graphs: dict[str, bytes] = {}
        self.job: control_pb2.OpenJobRequest | None = None
        self.known = True
        self.failure = ""
        self.notices: list[str] = []
        self.next_attempt = 1
        self.placed: dict[tuple[int, int, int], tuple[int, FakeWorker]] = {}
        self.done: dict[tuple[int, int], dict[int, control_pb2.Digest]] = {}
        self.finished: dict[tuple[int, int], control_pb2.Digest] = {}
        self.open: set[tuple[int, int]] = set()
        self.problems: list[control_pb2.Problem] = []
        self.requests: list[control_pb2.SyncClientRequest] = []
        self.closed_clients: list[str] = []
        self.replace_on_problem = True
        self.fails_on = ""  # the code of problems that fail the job
        self.arrivals = 0
        self.opened: list[tuple[int, int]] = []  # (term, arrival) of each OpenJob
        self.restarts_before_open = 0
        self.changed = threading.Condition()
        if like is not None:
            self.term = like.term + 1
            self.datasets, self.job, self.open = like.datasets, like.job, like.open
            self.placed, self.done, self.next_attempt = like.placed, like.done, like.next_attempt
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
        )
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def register(self, fingerprint: str, num_splits: int, *, replayable: bool = True) -> None:
        """Knows a dataset of numbers."""
        self.datasets[fingerprint] = control_pb2.DatasetInfo(
            fingerprint=fingerprint,
            num_splits=num_splits,
            replayable=replayable,
            components=msgpack.packb([spec.to_wire() for spec in NUMBER]),
        )

    def DescribeDataset(self, request, context):
        if request.fingerprint not in self.datasets:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no dataset {request.fingerprint}")
        return self.datasets[request.fingerprint]

    def PutDataset(self, requests, context):
        messages = list(requests)
        info = messages[0].info
        self.graphs[info.fingerprint] = b"".join(message.part for message in messages)
        self.datasets[info.fingerprint] = info
        return control_pb2.PutDatasetReply(term=self.term)

    def AnnounceClient(self, request, context):
        self.arrivals += 1
        return control_pb2.AnnounceClientReply(term=self.term, arrival=self.arrivals)

    def OpenJob(self, request, context):
        self.opened.append((request.term, request.arrival))
        if self.restarts_before_open:
            self.restarts_before_open -= 1
            self.term += 1
        if request.term != self.term:
            context.abort(grpc.StatusCode.ABORTED, "announce yourself in this term")
        if request.job_name == "taken":
            context.set_trailing_metadata((("penstock-error", "SpecMismatchError"),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "job 'taken' has another dataset")
        self.job = request
        # Another client: what the one before had not finished starts again.
        for left_over in (self.placed, self.done, self.finished, self.open):
            left_over.clear()
        return control_pb2.OpenJobReply(
            term=self.term,
            job="j1",
            seed=request.seed if request.HasField("seed") else 99,
            next_epoch=[0 for _ in request.streams],
            lanes=request.lanes,
            block=request.block,
        )

    def SyncClient(self, request, context):
        with self.changed:
            if not self.known:
                context.set_trailing_metadata((("penstock-error", "NotFoundError"),))
                context.abort(grpc.StatusCode.NOT_FOUND, "no job j1")
            self.requests.append(request)
            self._take_in(request)
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: self.version != request.seen_version or request.term != self.term,
                request.hold_ms / 1000,
            )
            return self._reply()

    def CloseClient(self, request, context):
        with self.changed:
            self.closed_clients.append(request.client)
            self.changed.notify_all()
        return control_pb2.CloseClientReply(term=self.term)

    def _take_in(self, request: control_pb2.SyncClientRequest) -> None:
        now_open = {(progress.stream, progress.epoch) for progress in request.epochs}
        if now_open != self.open:
            self.open = now_open
            self.version += 1
        for progress in request.epochs:
            key = (progress.stream, progress.epoch)
            for done in progress.done:
                self.done.setdefault(key, {})[done.split] = done.digest
            if progress.finished:
                self.finished[key] = progress.digest
        for problem in request.problems:
            if all(problem.attempt != known.attempt for known in self.problems):
                self.problems.append(problem)
                if problem.code == self.fails_on:
                    self.failure = f"decided: {problem.detail}"
                    self.version += 1
                elif self.replace_on_problem:
                    self.replace(problem.attempt)
        if request.failure and not self.failure:
            self.failure = request.failure
            self.version += 1

    def replace(self, attempt: int, worker: FakeWorker | None = None) -> None:
        """Gives an attempt's split to another worker."""
        for key, (number, holder) in list(self.placed.items()):
            if number == attempt:
                others = [other for other in self.workers if other is not holder] or self.workers
                self._place(key, worker or others[attempt % len(others)])

    def _place(self, key: tuple[int, int, int], worker: FakeWorker) -> None:
        attempt, self.next_attempt = self.next_attempt, self.next_attempt + 1
        worker.attempts[attempt] = (key[2], key[1])
        self.placed[key] = (attempt, worker)
        self.version += 1

    def place_all_on(self, worker: FakeWorker) -> None:
        """Everything goes to one worker, as after the loss of all others."""
        with self.changed:
            self.workers = [worker]
            for key in list(self.placed):
                self._place(key, worker)
            self.changed.notify_all()

    def news(self) -> None:
        """Answers held calls."""
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def _reply(self) -> control_pb2.SyncClientReply:
        views = []
        for stream, epoch in sorted(self.open):
            placements = []
            for split in self._splits(stream, epoch):
                if split in self.done.get((stream, epoch), {}) or not self.workers:
                    continue
                key = (stream, epoch, split)
                if key not in self.placed:
                    self._place(key, self.workers[self.next_attempt % len(self.workers)])
                attempt, worker = self.placed[key]
                placements.append(
                    control_pb2.Placement(
                        split=split, attempt=attempt, worker=worker.name, address=worker.address
                    )
                )
            views.append(control_pb2.EpochView(stream=stream, epoch=epoch, placements=placements))
        return control_pb2.SyncClientReply(
            term=self.term,
            version=self.version,
            epochs=views,
            notices=self.notices,
            failure=self.failure,
        )

    def _splits(self, stream: int, epoch: int) -> Iterator[int]:
        assert self.job is not None
        info = self.datasets[self.job.streams[stream]]
        lanes = deal(
            info.num_splits, self.job.lanes, seed=seed_of(self.job), epoch=epoch,
            ordered=self.job.ordered,
        )  # fmt: skip
        for lane in lanes:
            open_splits = [s for s in lane if s not in self.done.get((stream, epoch), {})]
            yield from open_splits[:2]

    def stop(self) -> None:
        """Goes away."""
        self._server.stop(0).wait()


def seed_of(job: control_pb2.OpenJobRequest) -> int:
    """The seed of a job."""
    return job.seed if job.HasField("seed") else 99
