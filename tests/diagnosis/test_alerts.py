"""Alerts, against a real server on loopback."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import UnavailableError, UsageError
from penstock.recovery.alerts import Alert, Alerts, url_in, url_of
from penstock.recovery.diagnosis import diagnose
from penstock.recovery.http_json import parse_endpoint, post_json
from penstock.recovery.masking import mask_secrets


class Server(ThreadingHTTPServer):
    """Answers with the statuses that it is given, the last one for ever."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = list(statuses)
        self.received: list[Any] = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status == 0:  # never answers
            self.server.release.wait(30)
            return
        self.send_response(status)
        self.end_headers()
        if status == 299:
            with contextlib.suppress(ConnectionError):  # nobody listens to the end
                while not self.server.release.is_set():
                    self.wfile.write(b"x" * (1 << 20))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Server] = []

    def start(*statuses: int) -> Server:
        servers.append(Server(*statuses))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


def alerts_to(server: Server, **options: float) -> Alerts:
    return Alerts(parse_endpoint(server.url, "url"), **{"pause_s": 0.01, **options})


def test_an_alert_is_posted_with_its_diagnosis_and_without_secrets(serve: Any) -> None:
    server = serve(200)
    alerts = alerts_to(server)
    found = diagnose(["ConnectionError: token=abcdef123456 was refused"])
    alerts.send(Alert("worker 3 is lost", subject="job 7", diagnosis=found, needs_operator=True))
    assert alerts.flush(10)
    alerts.close()
    (posted,) = server.received
    assert posted["text"] == "penstock: worker 3 is lost"
    assert posted["needs_operator"] is True
    assert posted["diagnosis"]["root_cause"] == "ConnectionError"
    assert "abcdef123456" not in json.dumps(posted)


def test_what_fails_is_tried_again_and_what_is_refused_is_not(serve: Any) -> None:
    server = serve(500, 429, 200)
    alerts = alerts_to(server)
    alerts.send(Alert("one"))
    assert alerts.flush(10)
    assert len(server.received) == 3
    refusing = serve(404)
    alerts = alerts_to(refusing)
    alerts.send(Alert("one"))
    assert alerts.flush(10)
    assert len(refusing.received) == 1


def test_a_silent_server_neither_blocks_the_caller_nor_breaks_anything(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(0)
    alerts = alerts_to(server, deadline_s=0.1)
    with caplog.at_level(logging.WARNING, "penstock.alerts"):
        for number in range(100):
            alerts.send(Alert(f"alert {number}"))
        assert not alerts.flush(0)
        assert sum("ALERT alert" in line for line in caplog.messages) == 100
    alerts.close(0.1)


def test_without_a_webhook_there_is_still_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "penstock.alerts"):
        Alerts(None).send(Alert("disk is full\nforged line", diagnosis=diagnose(["KeyError: 1"])))
    (line,) = caplog.messages
    assert line.startswith("ALERT disk is full forged line; root cause KeyError")


def test_an_answer_without_end_is_not_waited_for(serve: Any) -> None:
    server = serve(299)
    post_json(parse_endpoint(server.url, "url"), {"text": "x"}, deadline_s=10)
    assert server.received == [{"text": "x"}]


def test_a_refused_connection_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
        post_json(parse_endpoint("http://127.0.0.1:9/secret", "url"), {}, deadline_s=5)


def test_a_name_that_is_not_looked_up_in_time_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def slow(*_: object, **__: object) -> list[Any]:
        answered.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(UnavailableError, match=r"no whole answer within 0\.2 s"):
        post_json(parse_endpoint("https://slow.example.org/", "url"), {}, deadline_s=0.2)
    answered.set()


def test_a_handshake_that_does_not_end_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = parse_endpoint(f"https://127.0.0.1:{silent.getsockname()[1]}/", "url")
        with pytest.raises(UnavailableError, match=r"no whole answer within 0\.2 s"):
            post_json(endpoint, {}, deadline_s=0.2)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://127.0.0.1/",
        "https://user:pw@example.org/",
        "https:///x",
        "https://h:99999/",
        "https://h/a b",
        "http://127.0.0.1.example.org/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--alert-url must"):
        parse_endpoint(url, "--alert-url")


def test_the_url_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("https://hooks.example.org/T0/secret\n")
    for endpoint in (
        url_in(str(path), "--alert-url-file"),
        url_of({"PENSTOCK_ALERT_URL": str(path)}),
        url_of({"PENSTOCK_ALERT_URL": "https://hooks.example.org/T0/secret"}),
    ):
        assert endpoint is not None
        assert endpoint.path == "/T0/secret"
        assert "secret" not in repr(endpoint)
    assert url_of({}) is None
    with pytest.raises(UsageError, match="cannot be read"):
        url_in(str(tmp_path / "none"), "--alert-url-file")


@pytest.mark.parametrize(
    "text",
    [
        "key sk-abcdefghijklmnopqrstuvwx",
        "password: hunter2hunter2",
        "AKIAABCDEFGHIJKLMNOP",
        "Authorization: Bearer abcdefgh12345678",
        "https://user:hunter2@host/x",
        "hf_abcdefghijklmnop",
        "?X-Amz-Signature=0123456789abcdef",
        'api_key="zzzzzzzz"',
        "mail to abcdefgh@example.org",
        "https://abcdefgh@host/x",
        "run --auth-token abcdefgh --steps 7",
        "[rank0]: " + "abcdefgh" * 8,
        "token eyJhbGci…" + "abcdefgh" * 8,
    ],
)
def test_secrets_are_masked(text: str) -> None:
    masked = mask_secrets(text)
    assert "[masked]" in masked
    for secret in ("hunter2", "abcdefgh", "ABCDEFGH", "0123456789", "zzzz"):
        assert secret not in masked
