"""The stream server over real sockets, with pieces that no pipeline made."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import AddressInUseError, UnavailableError
from penstock.proto.wire import PROTOCOL_VERSION, FrameType, read_frame
from penstock.worker.attempts import AttemptBook
from penstock.worker.exchange import Exchange
from penstock.worker.messages import GONE
from penstock.worker.stream import host_id, listen_tcp

from .clients import DEADLINE_S, Client
from .fakes import FakePiece, assignment, digest, hashes
from .stations import GRACE_S, Station, read_all


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_split_is_served(station: Station, kind: str) -> None:
    station.hold(1)
    station.produce(1, pieces=5)
    with Client(station.tcp if kind == "tcp" else station.server.unix_path) as client:
        assert client.welcome == {"version": PROTOCOL_VERSION, "worker": "w7"}
        client.fetch(1)
        assert read_all(client, 1) == 10


@pytest.mark.parametrize("greeting", [{}, {"bare": True}, {"bare": 1}])
def test_chunks_are_bare_for_a_client_that_asks_for_it(station: Station, greeting: dict) -> None:
    station.hold(1)
    station.produce(1, pieces=1)
    with Client(station.tcp, **greeting) as client:
        client.fetch(1)
        frame = read_frame(client.sock.recv_into, bare=True)
        assert frame is not None
        assert (frame.type, frame.bare) == (FrameType.CHUNK, greeting.get("bare") is True)
        client.expect(FrameType.END)


def test_end_carries_the_digest(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=0)
    with Client(station.tcp) as client:
        client.fetch(1)
        want = digest(0)
        assert client.expect(FrameType.END).header == {
            "attempt": 1,
            "count": 0,
            "total": want.total,
            "chain": want.chain,
        }


def test_a_fetch_waits_for_its_assignment_and_for_what_is_produced(station: Station) -> None:
    with Client(station.tcp) as client:
        client.fetch(1)
        station.hold(1)
        station.produce(1, pieces=2)
        assert read_all(client, 1) == 4


def test_a_fetch_of_an_unknown_attempt_is_gone_after_the_grace(station: Station) -> None:
    with Client(station.tcp) as client:
        began = time.monotonic()
        client.fetch(99)
        fail = client.expect(FrameType.FAIL).header
        assert time.monotonic() - began >= GRACE_S * 0.9
        assert (fail["attempt"], fail["code"]) == (99, GONE)


def test_a_refetch_of_what_was_acknowledged_is_gone(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=3)
    with Client(station.tcp) as client:
        client.fetch(1)
        read_all(client, 1)
        client.fetch(1, first=2)
        fail = client.expect(FrameType.FAIL).header
        assert (fail["attempt"], fail["code"]) == (1, GONE)
        assert "not from 2" in fail["detail"]


def test_verify_brings_the_hashes_first(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=3)
    with Client(station.tcp) as client:
        client.fetch(1, first=3, verify=True)
        frame = client.expect(FrameType.HASHES)
        assert frame.header == {"attempt": 1, "start": 0, "count": 3}
        np.testing.assert_array_equal(np.frombuffer(frame.payload, "<u8"), hashes(0, 3))
        assert read_all(client, 1, received=3) == 6


def test_what_was_not_acknowledged_is_there_after_a_disconnect(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=3)
    with Client(station.tcp) as client:
        client.fetch(1)
        client.expect(FrameType.CHUNK)
    with Client(station.tcp) as client:
        client.fetch(1)
        assert read_all(client, 1) == 6


def test_a_disconnect_in_the_middle_of_a_chunk_frees_the_sender(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=4, elements=1, size=32 << 20)  # more than the kernel buffers
    client = Client(station.tcp)
    client.fetch(1)
    assert client.sock.recv(1000)
    client.close()
    with Client(station.tcp) as again:
        again.fetch(1)
        assert read_all(again, 1) == 4
    assert station.closed_within(lambda: not station.server._connections)


def test_a_slow_reader_holds_up_neither_others_nor_the_memory_bound(station: Station) -> None:
    station.hold(1, 2)
    station.produce(1, pieces=4, elements=1, size=16 << 20)
    with Client(station.tcp) as slow, Client(station.tcp) as quick:
        slow.fetch(1)  # and does not read
        station.produce(2, pieces=50)
        quick.fetch(2)
        assert read_all(quick, 2) == 100
        assert read_all(slow, 1) == 4


def test_two_connections_read_two_attempts(station: Station) -> None:
    station.hold(1, 2)
    threads = [threading.Thread(target=station.produce, args=(n, 200)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    with Client(station.tcp) as one, Client(station.server.unix_path) as two:
        one.fetch(1)
        two.fetch(2)
        assert read_all(one, 1) == read_all(two, 2) == 400
    for thread in threads:
        thread.join(DEADLINE_S)


def test_two_fetches_of_one_connection_take_turns(station: Station) -> None:
    station.hold(1, 2)
    for attempt in (1, 2):
        station.produce(attempt, pieces=10)
    with Client(station.tcp) as client:
        client.fetch(1, credit=0)
        client.fetch(2, credit=0)
        client.credit(1, 0, 1 << 20)
        client.credit(2, 0, 1 << 20)
        got = [client.read() for _ in range(22)]
        ends = [f.header["attempt"] for f in got if f is not None and f.type is FrameType.END]
        assert sorted(ends) == [1, 2]


def test_credit_bounds_what_is_sent(station: Station) -> None:
    station.hold(1)
    station.produce(1, pieces=5)
    with Client(station.tcp) as client:
        client.fetch(1, credit=1)
        client.expect(FrameType.CHUNK)
        client.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.sock.recv(1)
        client.sock.settimeout(DEADLINE_S)
        client.credit(1, 2, 1000)
        assert read_all(client, 1, received=2) == 10


def test_a_producer_waits_for_the_client_and_is_woken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    station = Station(memory_limit=8192)
    station.hold(1)
    thread = threading.Thread(target=station.produce, args=(1, 100))
    thread.start()
    with Client(station.tcp) as client:
        client.fetch(1)
        assert read_all(client, 1) == 200
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    station.server.close(5.0)


def test_a_blocked_producer_is_woken_by_a_stop(station: Station) -> None:
    small = AttemptBook(1, GRACE_S)
    runs: list[int] = []
    stopped: list[int] = []
    exchange = Exchange(small, lambda _, run: runs.append(run), stopped.append, lambda: None)
    exchange.set_desired([assignment(1)])
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(exchange.put(runs[0], FakePiece(0, 1))))
    thread.start()
    exchange.set_desired([])
    thread.join(DEADLINE_S)
    assert results == [False]
    assert stopped == [1]


def test_release_stops_the_attempt(station: Station) -> None:
    station.hold(1)
    with Client(station.tcp) as client:
        client.fetch(1)
        client.send(FrameType.RELEASE, attempt=1)
        client.fetch(1)
        assert client.expect(FrameType.FAIL).header["code"] == GONE
        assert station.stopped == [station.runs[1]]


def test_closing_the_server_ends_connections_and_removes_the_socket(station: Station) -> None:
    path = Path(station.server.unix_path)
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert str(os.getpid()) in path.name
    with Client(station.tcp) as client:
        station.server.close(5.0)
        assert client.read() is None
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(station.tcp, timeout=DEADLINE_S)


def test_the_sockets_of_dead_workers_are_swept_and_those_of_live_ones_stay(
    station: Station,
) -> None:
    dead = Path(station.server.unix_path).with_name("worker-1-dead.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(dead))
    other = Station()
    assert not dead.exists()
    assert Path(station.server.unix_path).exists()
    other.server.close(5.0)


def test_a_directory_of_somebody_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"penstock-{os.getuid()}").mkdir(mode=0o755)
    (tmp_path / f"penstock-{os.getuid()}").chmod(0o755)
    station = Station()
    assert station.server.unix_path == ""
    station.server.close(5.0)


def test_a_taken_port_is_named(station: Station) -> None:
    with pytest.raises(AddressInUseError, match=f"127.0.0.1:{station.server.port}"):
        listen_tcp("127.0.0.1", station.server.port)


def test_a_foreign_address_cannot_be_listened_on() -> None:
    with pytest.raises(UnavailableError, match=r"192\.0\.2\.1"):
        listen_tcp("192.0.2.1", 0)


def test_the_host_id_is_the_same_for_all_processes_here() -> None:
    assert host_id() == host_id()
    assert socket.gethostname() in host_id()
