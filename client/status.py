"""Asks a dispatcher what its cluster is doing."""

from __future__ import annotations

import contextlib
import json
import queue
from typing import Any

import grpc

from ..errors import UnavailableError
from ..proto import control_pb2, control_pb2_grpc
from .control import parse_service


def fetch_status(addresses: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Asks the dispatcher for its status document.

    Args:
        addresses: `host:port` of the dispatcher, several separated by commas.
        timeout_s: how long to wait for an answer, seconds.

    Returns:
        The document that docs/operations.md describes.

    Raises:
        UsageError: `addresses` are not that.
        UnavailableError: no dispatcher answered within `timeout_s` seconds.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reason = ""
    with contextlib.ExitStack() as channels:
        calls = []
        for address in parse_service(addresses):  # one of them serves, the others wait for it
            channel = channels.enter_context(grpc.insecure_channel(address))
            call = _stub(channel).GetStatus.future(
                control_pb2.GetStatusRequest(), timeout=timeout_s, wait_for_ready=True
            )
            call.add_done_callback(answers.put)
            calls.append(call)
        for _ in calls:
            call = answers.get()
            if call.exception() is None:
                picture: dict[str, Any] = json.loads(call.result().json)
                return picture
            reason = call.code().name
    raise UnavailableError(
        f"no dispatcher answers at {addresses} within {timeout_s:g} s ({reason});"
        " is `penstock dispatcher` running there?"
    )


def _stub(channel: grpc.Channel) -> Any:
    make: Any = control_pb2_grpc.ControlStub  # the generated stubs have no annotations
    return make(channel)
