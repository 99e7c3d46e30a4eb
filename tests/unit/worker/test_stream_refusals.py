"""What the stream server refuses: garbage, other versions, nonsense; and that it goes on."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from penstock.proto.wire import MAGIC, PROTOCOL_VERSION, FrameType, encode_frame, read_frame
from penstock.security.access import Access

from .clients import Client
from .stations import Station


def refusal(client: Client) -> str:
    """The text of the FAIL that closes a connection."""
    fail = client.expect(FrameType.FAIL).header
    assert fail["attempt"] == 0
    assert client.read() is None
    return str(fail["detail"])


def test_another_version_is_refused_with_both_versions(station: Station) -> None:
    with Client(station.tcp, hello=False) as client:
        client.send(FrameType.HELLO, version=77, job="j1", client="c1")
        text = refusal(client)
        assert "version 77" in text
        assert f"this worker {PROTOCOL_VERSION}" in text


def test_another_framing_version_is_refused_with_both_versions(station: Station) -> None:
    with Client(station.tcp, hello=False) as client:
        (prefix, *rest) = encode_frame(FrameType.HELLO, {"version": 77})
        client.sock.sendall(MAGIC + struct.pack("<H", 77) + bytes(prefix)[6:] + b"".join(rest))
        text = refusal(client)
        assert "version 77" in text
        assert str(PROTOCOL_VERSION) in text


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n", bytes(64), os.urandom(4096)],
    ids=["http", "zeros", "noise"],
)
def test_garbage_is_refused_and_the_server_goes_on(station: Station, garbage: bytes) -> None:
    with Client(station.tcp, hello=False) as client:
        client.sock.sendall(garbage)
        assert "not a penstock data stream" in refusal(client)
    with Client(station.tcp) as client:
        assert client.welcome["worker"] == "w7"


def test_an_oversized_frame_is_refused_before_it_is_allocated(station: Station) -> None:
    with Client(station.tcp) as client:
        prefix = struct.pack(
            "<4sHBBI4xQQ", MAGIC, PROTOCOL_VERSION, FrameType.FETCH, 0, 10, 1 << 60, 0
        )
        client.sock.sendall(prefix)
        assert "0 are allowed" in refusal(client)


@pytest.mark.parametrize(
    ("type_", "header", "complaint"),
    [
        (FrameType.FETCH, {"attempt": -1, "from": 0, "credit": 0}, "attempt of a FETCH"),
        (FrameType.FETCH, {"attempt": 1, "from": "0", "credit": 0}, "from of a FETCH"),
        (FrameType.FETCH, {"attempt": 1, "from": 0, "credit": 1 << 63}, "credit of a FETCH"),
        (FrameType.FETCH, {"attempt": 1, "from": 0, "credit": 1, "verify": 1}, "verify"),
        (FrameType.CREDIT, {"attempt": 1, "received": True, "credit": 0}, "received of a CREDIT"),
        (FrameType.RELEASE, {}, "attempt of a RELEASE"),
        (FrameType.END, {"attempt": 1}, "does not send END"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused(
    station: Station, type_: FrameType, header: dict[str, object], complaint: str
) -> None:
    with Client(station.tcp) as client:
        client.send(type_, **header)
        assert complaint in refusal(client)


def test_the_first_frame_must_be_hello(station: Station) -> None:
    with Client(station.tcp, hello=False) as client:
        client.send(FrameType.RELEASE, attempt=1)
        assert "not a HELLO" in refusal(client)


def test_who_says_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    station = Station(hello_deadline_s=0.1)
    with Client(station.tcp, hello=False) as client:
        assert "no HELLO within" in refusal(client)
    station.server.close(5.0)


def test_a_stream_that_ends_before_hello_is_no_error(station: Station) -> None:
    Client(station.tcp, hello=False).close()
    with Client(station.tcp) as client:
        client.fetch(5)
        assert read_frame(client.sock.recv_into) is not None


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_g10_no_frame_is_served_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unix: bool
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    station = Station(access=Access(tokens=("this-is-the-token", "this-was-the-token")))
    address = station.server.unix_path if unix else station.tcp
    hello = {"version": PROTOCOL_VERSION, "job": "j1", "client": "c1"}
    try:
        for shown, said in (
            ({}, "the client shows none"),
            ({"token": "this-is-no-token"}, "the client's is wrong"),
            ({"token": ""}, "the client's is wrong"),
            ({"token": ["this-is-the-token"]}, "the client's is wrong"),
        ):
            with Client(address, hello=False) as client:
                client.send(FrameType.HELLO, **hello, **shown)
                client.fetch(1)  # what comes with it is not even read
                fail = client.expect(FrameType.FAIL).header
                assert (fail["code"], fail["attempt"]) == ("UNAUTHENTICATED", 0)
                assert said in fail["detail"]
                assert "PENSTOCK_TOKEN_FILE" in fail["detail"]
                assert client.read() is None
        for token in ("this-is-the-token", "this-was-the-token"):
            with Client(address, hello=False) as client:
                client.send(FrameType.HELLO, **hello, token=token)
                assert client.expect(FrameType.WELCOME).header["worker"] == "w7"
    finally:
        station.server.close(5.0)
