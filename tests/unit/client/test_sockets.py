"""Which of a worker's sockets a client takes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from penstock.client.sockets import connect
from penstock.timing import Timing


@pytest.mark.parametrize(
    ("owner", "family"), [(os.geteuid(), socket.AF_UNIX), (os.geteuid() + 1, socket.AF_INET)]
)
def test_a_unix_socket_is_taken_if_it_is_of_this_user(
    owner: int, family: socket.AddressFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "s")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        monkeypatch.setattr(os, "geteuid", lambda: owner)
        address = f"127.0.0.1:{tcp.getsockname()[1]}"
        with connect(address, path, Timing()) as sock:
            assert isinstance(sock, socket.socket)
            assert sock.family == family
