"""A data-stream client for tests: one socket, one frame at a time."""

from __future__ import annotations

import socket
from typing import Any

from penstock.client.borrowing import Borrower
from penstock.proto.wire import PROTOCOL_VERSION, Frame, FrameType, read_frame, send_frame

DEADLINE_S = 10.0


class Client:
    """A connection that has said HELLO, unless told not to."""

    def __init__(
        self, address: tuple[str, int] | str, *, hello: bool = True, **greeting: Any
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(address)
        if hello:
            self.send(FrameType.HELLO, version=PROTOCOL_VERSION, job="j1", client="c1", **greeting)
            self.welcome = self.expect(FrameType.WELCOME).header

    def send(self, type_: FrameType, **header: Any) -> None:
        send_frame(self.sock, type_, header)

    def fetch(self, attempt: int, first: int = 0, credit: int = 1 << 40, **more: Any) -> None:
        header = {"attempt": attempt, "from": first, "credit": credit, "verify": False, **more}
        send_frame(self.sock, FrameType.FETCH, header)

    def credit(self, attempt: int, received: int, credit: int = 0) -> None:
        self.send(FrameType.CREDIT, attempt=attempt, received=received, credit=credit)

    def read(self) -> Frame | None:
        return read_frame(self.sock.recv_into)

    def expect(self, type_: FrameType) -> Frame:
        frame = self.read()
        assert frame is not None, f"the stream ended, not {type_.name}"
        assert frame.type is type_, f"{frame} is not {type_.name}"
        return frame

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_chunk(borrower: Borrower) -> Frame:
    """The next CHUNK of a connection with slots; those that are announced before it are learnt."""
    while True:
        frame = read_frame(borrower.recv_into)
        assert frame is not None
        if frame.type is not FrameType.SLOT:
            assert frame.type is FrameType.CHUNK
            return frame
        borrower.learn(frame.header)
