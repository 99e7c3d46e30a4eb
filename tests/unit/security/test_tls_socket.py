"""TLS of data streams: two threads at once, all sizes, timeouts, and ends."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.errors import AuthenticationError
from penstock.proto.wire import FrameType, read_frame, send_frame
from penstock.security.access import Access
from penstock.security.settings import Security
from penstock.security.tls_socket import TlsSocket, begins_with_tls

from ...papers import DEADLINE_S, Pair, Papers, tls_pair


@pytest.fixture
def pair(papers: Papers) -> Iterator[Pair]:
    serving, calling = tls_pair(papers.good, papers.good)
    with serving, calling:
        yield serving, calling


def receive(stream: TlsSocket, nbytes: int) -> bytes:
    into, got = bytearray(nbytes), 0
    while got < nbytes:
        count = stream.recv_into(memoryview(into)[got:])
        assert count, f"the stream ended after {got} of {nbytes} bytes"
        got += count
    return bytes(into)


@pytest.mark.parametrize("nbytes", [1, 16_384, 16_385, 300_000, 5_000_000])
def test_what_is_sent_comes_out_whatever_its_size(pair: Pair, nbytes: int) -> None:
    serving, calling = pair
    data = hashlib.shake_128(b"data").digest(nbytes)
    sender = threading.Thread(target=serving.sendall, args=(data,))
    sender.start()
    assert receive(calling, nbytes) == data
    sender.join()


def test_both_ways_at_once_by_two_threads_on_each_side(pair: Pair) -> None:
    rounds, data = 200, hashlib.shake_128(b"both").digest(100_000)
    results: list[bool] = []

    def send(stream: TlsSocket) -> None:
        for number in range(rounds):
            send_frame(stream, FrameType.CHUNK, {"number": number}, [data, data[: number * 7]])

    def read(stream: TlsSocket) -> None:
        for number in range(rounds):
            frame = read_frame(stream.recv_into)
            assert frame is not None
            assert frame.header["number"] == number
            assert bytes(frame.payload) == data + data[: number * 7]
        results.append(True)

    threads = [
        threading.Thread(target=work, args=(stream,)) for stream in pair for work in (send, read)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results == [True, True]


def test_frames_of_several_senders_come_whole(pair: Pair) -> None:
    serving, calling = pair
    lock = threading.Lock()

    def send(number: int) -> None:
        for _ in range(50):
            with lock:  # a frame is several sends; records of one are never mixed
                send_frame(serving, FrameType.END, {"number": number}, [bytes([number]) * 70_000])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        frame = read_frame(calling.recv_into)
        assert frame is not None
        assert set(bytes(frame.payload)) == {frame.header["number"]}
    for thread in threads:
        thread.join()


def test_an_end_is_an_end_and_a_timeout_loses_nothing(pair: Pair) -> None:
    serving, calling = pair
    calling.settimeout(0.05)
    with pytest.raises(TimeoutError):
        calling.recv_into(memoryview(bytearray(10)))
    serving.sendall(b"after")
    calling.settimeout(DEADLINE_S)
    assert receive(calling, 5) == b"after"
    serving.shutdown(socket.SHUT_WR)
    assert calling.recv_into(memoryview(bytearray(10))) == 0
    assert calling.recv_into(memoryview(bytearray(10))) == 0


def test_a_reader_that_waits_is_woken_by_shutdown(pair: Pair) -> None:
    _, calling = pair
    ended = threading.Event()

    def read() -> None:
        assert calling.recv_into(memoryview(bytearray(10))) == 0
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert not ended.wait(0.1)
    calling.shutdown(socket.SHUT_RDWR)
    assert ended.wait(DEADLINE_S)
    thread.join()


def test_sending_does_not_keep_a_reader_out(pair: Pair) -> None:
    """A sender that is stuck, because nobody reads, must not hold up what comes."""
    serving, calling = pair
    stuck = threading.Thread(target=lambda: _ignore(lambda: serving.sendall(bytes(64 << 20))))
    stuck.start()
    calling.sendall(b"a wish")
    assert receive(serving, 6) == b"a wish"
    assert stuck.is_alive()
    serving.shutdown(socket.SHUT_RDWR)
    stuck.join(DEADLINE_S)
    assert not stuck.is_alive()


def _ignore(call: Callable[[], None]) -> None:
    with pytest.raises(OSError, match=r"."):
        call()


@pytest.mark.parametrize(
    ("server", "client", "host", "said"),
    [
        ("good", "distrusting", "127.0.0.1", "not trusted here"),
        ("expired", "good", "127.0.0.1", "not trusted here: certificate has expired"),
        ("elsewhere", "good", "127.0.0.1", "IP address mismatch"),
        ("elsewhere", "good", "somewhere.example", "Hostname mismatch"),
        ("stranger", "good", "127.0.0.1", "not trusted here"),
        ("good", "anonymous", "127.0.0.1", "demands a certificate: give PENSTOCK_TLS_CERT"),
        ("good", "stranger", "127.0.0.1", "does not trust who signed"),
        ("good", "expired", "127.0.0.1", "that has expired"),
    ],
)
def test_g10_a_certificate_that_is_not_accepted_is_named(
    papers: Papers, server: str, client: str, host: str, said: str
) -> None:
    with pytest.raises(AuthenticationError, match=said):
        tls_pair(getattr(papers, server), getattr(papers, client), host)


def test_a_client_needs_no_certificate_where_none_is_demanded(papers: Papers) -> None:
    one_sided = Security(tls_cert=papers.good.tls_cert, tls_key=papers.good.tls_key)
    serving, calling = tls_pair(one_sided, papers.anonymous, "localhost")
    with serving, calling:
        calling.sendall(b"hello")
        assert receive(serving, 5) == b"hello"


@pytest.mark.parametrize("answer", [b"PNSK" * 20, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_without_tls_is_told_apart_from_one_that_breaks(
    papers: Papers, answer: bytes
) -> None:
    context = Access.load(papers.good).client
    assert context is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(answer)
        with pytest.raises(AuthenticationError, match="does not speak TLS"):
            TlsSocket(theirs, context, server_hostname="x").handshake(DEADLINE_S)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match=r"(?i)eof") as caught:
            TlsSocket(theirs, context, server_hostname="x").handshake(DEADLINE_S)
        assert not isinstance(caught.value, AuthenticationError)


def test_a_handshake_has_one_deadline_however_slowly_bytes_come(papers: Papers) -> None:
    context = Access.load(papers.good, serving=True).server
    assert context is not None
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall(b"\x16\x03\x01\x02\x00")
        while not stop.wait(0.02):
            theirs.send(b"\x00")

    thread = threading.Thread(target=drip, daemon=True)
    with ours, theirs:
        thread.start()
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            TlsSocket(ours, context, server_side=True).handshake(0.3)
        assert time.monotonic() - began_s < 10.0
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "tls"), [(b"\x16\x03\x01", True), (b"PNSK", False), (b"GET", False), (b"", True)]
)
def test_the_first_byte_tells_who_comes(first: bytes, tls: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(first)
        theirs.shutdown(socket.SHUT_WR)
        assert begins_with_tls(ours, DEADLINE_S) is tls
        assert ours.recv(3) == first[:3]
