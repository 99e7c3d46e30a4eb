"""The stream server with TLS, as clients and the dispatcher meet it (G10)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.client.stream import Target, WorkerLink
from penstock.dispatcher.probe import Verdict, probe
from penstock.proto.budget import Budget
from penstock.proto.wire import PROTOCOL_VERSION, FrameType
from penstock.security.access import OPEN, Access
from penstock.security.tls_socket import TlsSocket
from penstock.timing import Timing

from ...papers import Papers
from .clients import DEADLINE_S, Client
from .stations import Station, read_all

HELLO = {"version": PROTOCOL_VERSION, "job": "j1", "client": "c1"}
TOKEN = "the-token-of-this-test"


class TlsClient(Client):
    """A client that encrypts."""

    def __init__(self, address: tuple[str, int], access: Access, *, hello: bool = True) -> None:
        assert access.client is not None
        plain = socket.create_connection(address, DEADLINE_S)
        tls = TlsSocket(plain, access.client, server_hostname=address[0])
        tls.handshake(DEADLINE_S)
        self.sock = tls  # type: ignore[assignment]
        if hello:
            self.send(FrameType.HELLO, **HELLO)
            self.welcome = self.expect(FrameType.WELCOME).header


@pytest.fixture
def secure(papers: Papers) -> Iterator[Station]:
    made = Station(access=Access.load(papers.good, serving=True))
    yield made
    made.server.close(DEADLINE_S)


def test_a_split_is_served_over_tls(secure: Station, papers: Papers) -> None:
    secure.hold(1)
    producer = threading.Thread(target=secure.produce, args=(1, 40), kwargs={"size": 300_000})
    producer.start()
    with TlsClient(secure.tcp, Access.load(papers.good)) as client:
        client.fetch(1, credit=1 << 30)
        assert read_all(client, 1) == 80
    producer.join()


def test_the_unix_socket_stays_plain(secure: Station) -> None:
    with Client(secure.server.unix_path) as client:
        assert client.welcome["worker"] == "w7"


def test_no_frame_is_served_to_a_plain_client(secure: Station) -> None:
    with Client(secure.tcp, hello=False) as client:
        client.send(FrameType.HELLO, **HELLO)
        client.fetch(1)
        fail = client.expect(FrameType.FAIL).header
        assert fail["code"] == "UNAUTHENTICATED"
        assert "PENSTOCK_TLS_CA" in fail["detail"]
        assert client.read() is None


def test_the_token_is_demanded_within_tls_too(papers: Papers) -> None:
    access = replace(Access.load(papers.good, serving=True), tokens=(TOKEN,))
    station = Station(access=access)
    try:
        with TlsClient(station.tcp, access, hello=False) as client:
            client.send(FrameType.HELLO, **HELLO)
            assert client.expect(FrameType.FAIL).header["code"] == "UNAUTHENTICATED"
            assert client.read() is None
        with TlsClient(station.tcp, access, hello=False) as client:
            client.send(FrameType.HELLO, **HELLO, token=TOKEN)
            client.expect(FrameType.WELCOME)
    finally:
        station.server.close(DEADLINE_S)


def test_a_client_that_shakes_no_hands_holds_up_nobody_and_is_let_go(papers: Papers) -> None:
    station = Station(access=Access.load(papers.good, serving=True), hello_deadline_s=0.3)
    try:
        with (
            socket.create_connection(station.tcp, DEADLINE_S) as silent,
            socket.create_connection(station.tcp, DEADLINE_S) as half,
        ):
            half.sendall(b"\x16\x03\x01\x02\x00")
            with TlsClient(station.tcp, Access.load(papers.good)) as client:
                assert client.welcome["worker"] == "w7"
            assert silent.recv(1) == b""
            assert half.recv(1) == b""
    finally:
        station.server.close(DEADLINE_S)


def test_tls_to_a_plain_server_is_said_to_be_that(station: Station) -> None:
    with socket.create_connection(station.tcp, DEADLINE_S) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600))
        text = sock.makefile("rb").read()
    assert b"the peer speaks TLS" in text


class Listener:
    """What a link tells its client."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.down = threading.Event()
        self.refusal: object = None
        self.detail = ""

    def link_up(self, link: WorkerLink) -> None:
        self.up.set()

    def link_down(self, link: WorkerLink, detail: str, refusal: object = None) -> bool:
        self.detail, self.refusal = detail, refusal
        self.down.set()
        return False


def link_to(station: Station, access: Access) -> Listener:
    """Has a client's link connect to a station by TCP, and waits for what comes of it."""
    listener = Listener()
    target = Target("w7", f"127.0.0.1:{station.server.port}", "", "elsewhere")
    common = {"timing": Timing(), "pooled": Budget(0), "access": access}
    link = WorkerLink(target, job="j1", client="c", listener=listener, **common)
    link.start()
    try:
        while not (listener.up.wait(0.02) or listener.down.is_set()):
            pass
    finally:
        link.close()
        assert link.join(DEADLINE_S)
    return listener


def test_a_clients_link_comes_up_over_tls(secure: Station, papers: Papers) -> None:
    assert link_to(secure, Access.load(papers.good)).up.is_set()


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        ("good", "anonymous", "demands a certificate"),
        ("good", "stranger", "does not trust who signed"),
        ("good", "expired", "has expired"),
        ("good", "distrusting", "not trusted here"),
        ("expired", "good", "not trusted here: certificate has expired"),
        ("elsewhere", "good", "IP address mismatch"),
        ("good", None, "speaks TLS only"),
        (None, "good", "does not speak TLS"),
    ],
)
def test_a_clients_link_names_what_keeps_it_out(
    papers: Papers, server: str | None, client: str | None, said: str
) -> None:
    served = Access.load(getattr(papers, server), serving=True) if server else OPEN
    station = Station(access=served)
    try:
        shown = Access.load(getattr(papers, client)) if client else OPEN
        listener = link_to(station, shown)
        assert not listener.up.is_set()
        assert said in str(listener.refusal)
        assert listener.detail == str(listener.refusal)
        assert f"worker w7 at 127.0.0.1:{station.server.port}" in listener.detail

        answer = asyncio.run(probe(f"127.0.0.1:{station.server.port}", "w7", 20.0, shown))
        # Nothing of this proves that the worker is dead.
        assert answer.verdict is Verdict.UNKNOWN
        assert said in answer.detail
    finally:
        station.server.close(DEADLINE_S)


def test_the_dispatcher_asks_a_worker_over_tls(secure: Station, papers: Papers) -> None:
    address = f"127.0.0.1:{secure.server.port}"
    answer = asyncio.run(probe(address, "w7", 20.0, Access.load(papers.good)))
    assert answer.verdict is Verdict.ALIVE
