"""The control socket: who may speak to it, how much, and for how long."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import RefusedError, UnavailableError
from penstock.recovery import operator_socket
from penstock.recovery.operator_socket import NAME, ControlSocket, is_served, request


def answer(message: dict[str, Any]) -> dict[str, Any]:
    return {"done": True} if message.get("do") == "end" else {"error": "say end"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Future[bool]]]:
    """A directory that is served for 20 s, and whether an answer ended that."""
    directory = tmp_path / ("deep" * 40)  # a path that no Unix socket can have
    directory.mkdir(mode=0o700)
    with ControlSocket(directory) as control, ThreadPoolExecutor(1) as pool:
        yield directory, pool.submit(control.serve, answer, time.monotonic() + 20)
        control.wake()


Served = tuple[Path, "Future[bool]"]


def speak(directory: Path, sent: bytes) -> bytes:
    """Sends bytes, and ends the sending; what comes back."""
    with socket.socket(socket.AF_UNIX) as connection, operator_socket._short_path(directory) as at:
        connection.settimeout(10)
        connection.connect(f"{at}/{NAME}")
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)


def test_it_waits_on_until_an_answer_is_for_good(served: Served) -> None:
    directory, ended = served
    assert stat.S_IMODE((directory / NAME).stat().st_mode) == 0o600
    assert request(directory, {"do": "what"}) == {"error": "say end"}
    assert is_served(directory)
    assert request(directory, {"do": "end"}) == {"done": True}
    assert ended.result(10) is True


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"not json\n", "not JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"[" * 60_000 + b"\n", "not JSON"),
        (b"{", "ended before the line"),
        (b"x" * (operator_socket.LINE_BYTES_MAX + 1), "at most 65536 bytes"),
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(
    served: Served, sent: bytes, why: str
) -> None:
    directory, ended = served
    assert why in json.loads(speak(directory, sent))["error"]
    assert request(directory, {"do": "end"}) == {"done": True}
    assert ended.result(10) is True


def test_who_says_nothing_is_left_after_a_while(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_socket, "CONNECTION_S", 0.1)
    directory, ended = served
    with socket.socket(socket.AF_UNIX) as silent, operator_socket._short_path(directory) as at:
        silent.connect(f"{at}/{NAME}")
        assert request(directory, {"do": "end"}) == {"done": True}
    assert ended.result(10) is True


def test_another_user_is_not_heard(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_socket, "_uid_of", lambda connection: 12345)
    with pytest.raises((RefusedError, UnavailableError)):
        request(served[0], {"do": "end"})
    monkeypatch.undo()
    assert request(served[0], {"do": "end"}) == {"done": True}


def test_the_time_ends_it_and_so_does_a_wake(tmp_path: Path) -> None:
    with ControlSocket(tmp_path) as control:
        assert control.serve(answer, time.monotonic() + 0.05) is False
        threading.Timer(0.05, control.wake).start()
        assert control.serve(answer, time.monotonic() + 60) is False
    assert not (tmp_path / NAME).exists()
    control.wake()


def test_nobody_there_is_said(tmp_path: Path) -> None:
    assert not is_served(tmp_path)
    with pytest.raises(UnavailableError, match="no program waits"):
        request(tmp_path, {})
    (tmp_path / NAME).touch()
    with pytest.raises(RefusedError, match="not a socket of yours"):
        request(tmp_path, {})
