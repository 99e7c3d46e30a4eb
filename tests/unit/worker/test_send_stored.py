"""A chunk that lies in a file is the same frame to its reader as one that is in memory."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.wire import FrameType, payload_digest, read_frame
from penstock.security.tls_socket import TlsSocket
from penstock.worker.connection import send_stored
from penstock.worker.messages import Stored

from ...papers import Papers, tls_pair

Pair = tuple[socket.socket, socket.socket] | tuple[TlsSocket, TlsSocket]


@pytest.fixture(params=["unix", "tcp", "tls"])
def sockets(request: pytest.FixtureRequest, papers: Papers) -> Iterator[Pair]:
    if request.param == "tls":
        pair: Pair = tls_pair(papers.good, papers.good)
    elif request.param == "unix":
        pair = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            pair = socket.create_connection(server.getsockname()), server.accept()[0]
    with pair[0], pair[1]:
        yield pair


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("elements", [0, 1, 5000, 50_000])
def test_the_reader_gets_the_chunk_under_the_new_numbers(
    sockets: Pair, tmp_path: Path, elements: int, bare: bool
) -> None:
    ours, theirs = sockets
    chunk = Chunk.from_stacked(7, [np.arange(elements * 10).reshape(elements, 10)])
    header, buffers = encode(chunk, {})
    payload = b"".join(buffers)
    path = tmp_path / "stored"
    path.write_bytes(b"before" + payload + b"behind")
    with path.open("rb") as file:
        stored = Stored(file.fileno(), 6, len(payload), payload_digest([payload]))
        sender = threading.Thread(
            target=send_stored,
            args=(ours, {**header, "attempt": 9}, stored),
            kwargs={"bare": bare},
        )
        sender.start()
        frame = read_frame(theirs.recv_into, bare=bare)
        sender.join()
    assert frame is not None
    assert (frame.type, frame.header["attempt"], frame.bare) == (FrameType.CHUNK, 9, bare)
    found = decode(frame.header, frame.payload)
    found.verify()
    assert (found.start, found.count) == (7, elements)


def test_a_file_that_has_become_shorter_breaks_the_connection(
    sockets: Pair, tmp_path: Path
) -> None:
    ours, _ = sockets
    path = tmp_path / "stored"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        os.truncate(path, 50)
        with pytest.raises(OSError, match="shorter"):
            send_stored(ours, {"attempt": 1}, Stored(file.fileno(), 0, 100, 0))
