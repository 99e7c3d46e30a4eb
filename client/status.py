"""Asks a dispatcher what its cluster is doing."""

from __future__ import annotations

import contextlib
import json
import queue
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError, UsageError
from ..proto import control_pb2, control_pb2_grpc
from ..security.access import Access
from ..security.channels import open_channel
from ..security.faults import Suspicion
from ..security.settings import Security
from .control import error_of, is_transient, parse_service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

#: A dispatcher usually answers in milliseconds.
_LONG_S = 0.5


def fetch_status(
    addresses: str, timeout_s: float = 5.0, security: Security | None = None
) -> dict[str, Any]:
    """Asks the dispatcher for its status document.

    Args:
        addresses: `host:port` of the dispatcher, several separated by commas.
        timeout_s: how long to wait for an answer, seconds.
        security: certificates and token; None: as the environment says.

    Returns:
        The document that docs/operations.md describes.

    Raises:
        UsageError: `addresses` are not that.
        UnavailableError: no dispatcher answered within `timeout_s` seconds.
    """
    request = control_pb2.GetStatusRequest()
    reply = _ask(addresses, lambda stub: stub.GetStatus, request, timeout_s, security)
    picture: dict[str, Any] = json.loads(reply.json)
    return picture


def readmit_worker(addresses: str, worker: str, timeout_s: float = 5.0) -> None:
    """Lets a retired worker work again; returns when that is journaled.

    Args:
        addresses: `host:port` of the dispatcher, several separated by commas.
        worker: its id.
        timeout_s: how long to wait for an answer, seconds.

    Raises:
        UsageError: `addresses` are not that.
        NotFoundError: no worker of that id is retired.
        UnavailableError: no dispatcher answered within `timeout_s` seconds.
    """
    request = control_pb2.ReadmitWorkerRequest(worker=worker)
    _ask(addresses, lambda stub: stub.ReadmitWorker, request, timeout_s)


def retry_element(
    addresses: str,
    job: str,
    *,
    stream: int,
    epoch: int,
    split: int,
    element: int,
    timeout_s: float = 5.0,
) -> None:
    """Has an element made that was left out, should its split be made again.

    Args:
        addresses: `host:port` of the dispatcher, several separated by commas.
        job: the job's id.
        stream, epoch, split, element: which one it is.
        timeout_s: how long to wait for an answer, seconds.

    Raises:
        UsageError: `addresses` are not that, or a number is out of range.
        NotFoundError: it is not left out.
        RefusedError: its epoch is open.
        UnavailableError: no dispatcher answered within `timeout_s` seconds.
    """
    _check_number("stream", stream, 32)
    for name, value in (("epoch", epoch), ("split", split), ("element", element)):
        _check_number(name, value, 64)
    request = control_pb2.RetryElementRequest(
        job=job, stream=stream, epoch=epoch, split=split, element=element
    )
    _ask(addresses, lambda stub: stub.RetryElement, request, timeout_s)


def _check_number(name: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise UsageError(f"{name} must be 0 to 2**{bits} - 1, not {value!r:.40}")


def _ask(
    addresses: str,
    method: Callable[[Any], Any],
    request: Any,
    timeout_s: float,
    security: Security | None = None,
) -> Any:
    """The answer of the dispatcher that serves."""
    access = Access.load(Security.of(security))
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reason = ""
    with contextlib.ExitStack() as channels:
        calls = []
        for address in parse_service(addresses):  # one of them serves, the others wait for it
            channel = channels.enter_context(open_channel(address, access))
            call = method(_stub(channel)).future(request, timeout=timeout_s, wait_for_ready=True)
            call.add_done_callback(answers.put)
            calls.append(call)
        suspicion = Suspicion(access, len(calls))
        for _ in calls:
            call = _next_of(answers, suspicion, parse_service(addresses))
            error = call.exception()
            if error is None:
                return call.result()
            if not is_transient(error):
                raise error_of(error, addresses)
            reason = call.code().name
    raise UnavailableError(
        f"no dispatcher answers at {addresses} within {timeout_s:g} s ({reason});"
        " is `penstock dispatcher` running there?"
    )


def _next_of(
    answers: queue.SimpleQueue[Any], suspicion: Suspicion, addresses: Sequence[str]
) -> Any:
    """The next call to end; if that takes long, looks whether any can end well."""
    try:
        return answers.get(timeout=_LONG_S)
    except queue.Empty:
        for address in addresses:
            suspicion.check(address)
        return answers.get()


def _stub(channel: grpc.Channel) -> Any:
    make: Any = control_pb2_grpc.ControlStub  # the generated stubs have no annotations
    return make(channel)
