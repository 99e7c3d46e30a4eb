"""A server of chat completions on loopback that says what a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer: its status, its headers and what it writes, in which order."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    endless: bytes = b""
    silent: bool = False


class Server(ThreadingHTTPServer):
    """Answers with its replies in turn, the last one for ever."""

    daemon_threads = True

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = list(replies)
        self.received: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        self.server.headers.append(dict(self.headers))
        self.server.paths.append(self.path)
        replies = self.server.replies
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply.silent:
            self.server.release.wait(30)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # nobody listens to the end
            self.wfile.write(reply.body)
            while reply.endless and not self.server.release.wait(0.01):
                self.wfile.write(reply.endless)

    def log_message(self, format: str, *args: object) -> None:
        pass


def completion(content: object) -> Reply:
    """A chat completion with this text, or with this object as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text}
    return Reply(body=json.dumps({"choices": [{"message": message}]}).encode())


def answer(**changed: object) -> dict[str, object]:
    """An answer as it should be, but for what is changed."""
    return {
        "root_cause": "FluxError",
        "category": "infrastructure",
        "recoverable": True,
        "action": "replace_worker",
        "mitigation": "Fill the flux capacitor.",
        "quotes": ["flux capacitor f7 is dry"],
        "confidence": 0.9,
        "pattern": None,
        **changed,
    }


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Starts servers, and stops them at the end."""
    servers: list[Server] = []

    def start(*replies: Reply) -> Server:
        servers.append(Server(*replies))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()
