"""A link to a worker: what happens when the worker does not answer."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock import Timing
from penstock.client.stream import Target, WorkerLink
from penstock.proto.budget import Budget
from penstock.proto.chunk import Chunk, encode
from penstock.proto.spec import ComponentSpec
from penstock.proto.wire import PROTOCOL_VERSION, FrameType, encode_frame, read_frame, send_frame

SPECS = (ComponentSpec("int64", ()),)


class Silence:
    """A listener that only waits for the link's end."""

    def __init__(self) -> None:
        self.down = threading.Event()

    def link_up(self, link: WorkerLink) -> None:
        raise AssertionError("nobody greeted")

    def link_down(self, link: WorkerLink, detail: str, refusal: object = None) -> bool:
        self.down.set()
        return False


def link_to(target: Target, listener: Any, timing: Timing) -> WorkerLink:
    return WorkerLink(
        target, job="j1", client="c", listener=listener, timing=timing, pooled=Budget(0)
    )


def test_a_link_to_a_worker_that_never_greets_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("w1", f"127.0.0.1:{server.getsockname()[1]}", "", "elsewhere")
        listener = Silence()
        timing = Timing(rpc_deadline_s=250.0)  # beyond the test's own limit
        link = WorkerLink(
            target, job="j1", client="c", listener=listener, timing=timing, pooled=Budget(0)
        )
        link.start()
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1)  # its HELLO has come: it waits for the answer
            link.close()
            assert listener.down.wait(60)
            assert link.join(60)


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, object]] = queue.Queue()

    def link_up(self, link: WorkerLink) -> None:
        pass

    def link_down(self, link: WorkerLink, detail: str, refusal: object = None) -> bool:
        self.heard.put(("down", detail))
        return True

    def specs_of(self, attempt: int) -> Sequence[ComponentSpec]:
        return SPECS

    def chunk_came(self, attempt: int, chunk: Chunk, nbytes: int) -> None:
        self.heard.put(("chunk", chunk.element(chunk.start)[0].tolist()))

    def corrupt_came(self, attempt: int, detail: str) -> None:
        self.heard.put(("corrupt", detail))


def bare_chunk(*, spoiled: int | None) -> bytes:
    """A frame of the elements 5 to 7, one byte of the payload changed if that is said."""
    header, buffers = encode(Chunk.from_stacked(5, [np.arange(5, 8)]), {"attempt": 3})
    frame = bytearray(b"".join(encode_frame(FrameType.CHUNK, header, buffers, bare=True)))
    if spoiled is not None:
        frame[spoiled - 24] ^= 1
    return bytes(frame)


def greeted(server: socket.socket) -> socket.socket:
    accepted, _ = server.accept()
    accepted.settimeout(60)
    hello = read_frame(accepted.recv_into)
    assert hello is not None
    assert hello.header["bare"] is True
    send_frame(accepted, FrameType.WELCOME, {"version": PROTOCOL_VERSION, "worker": "w1"})
    return accepted


def test_what_is_damaged_on_its_way_is_sent_again_and_what_stays_wrong_is_the_workers() -> None:
    ear = Ear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("w1", f"127.0.0.1:{server.getsockname()[1]}", "", "elsewhere")
        link = WorkerLink(
            target, job="j1", client="c", listener=ear, timing=Timing(), pooled=Budget(0)
        )
        link.start()
        try:
            with greeted(server) as first:
                first.sendall(bare_chunk(spoiled=8))
                what, detail = ear.heard.get(timeout=60)
                assert what == "down"
                assert "damaged on its way: element 6 is not what was sent" in str(detail)
            with greeted(server) as second:
                second.sendall(bare_chunk(spoiled=None))
                assert ear.heard.get(timeout=60) == ("chunk", 5)
                second.sendall(bare_chunk(spoiled=16))
                what, detail = ear.heard.get(timeout=60)
                assert what == "corrupt"
                assert "element 7 is not what was sent" in str(detail)
        finally:
            link.close()
            assert link.join(60)
