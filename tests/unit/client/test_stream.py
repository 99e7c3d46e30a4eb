"""A link to a worker: what happens when the worker does not answer."""

from __future__ import annotations

import socket
import threading

from penstock import Timing
from penstock.client.stream import Target, WorkerLink


class Silence:
    """A listener that only waits for the link's end."""

    def __init__(self) -> None:
        self.down = threading.Event()

    def link_up(self, link: WorkerLink) -> None:
        raise AssertionError("nobody greeted")

    def link_down(self, link: WorkerLink, detail: str, refusal: object = None) -> bool:
        self.down.set()
        return False


def test_a_link_to_a_worker_that_never_greets_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("w1", f"127.0.0.1:{server.getsockname()[1]}", "", "elsewhere")
        listener = Silence()
        timing = Timing(rpc_deadline_s=250.0)  # beyond the test's own limit
        link = WorkerLink(target, job="j1", client="c", listener=listener, timing=timing)
        link.start()
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1)  # its HELLO has come: it waits for the answer
            link.close()
            assert listener.down.wait(60)
            assert link.join(60)
