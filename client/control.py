"""Calls to the dispatcher: addresses, retries, and errors by their names.

A call is tried at one address after the other until one answers, with growing pauses. At a
client's start that ends with an `UnavailableError` after `connect_deadline_s`; what runs already
(`sync`) tries for as long as it lives.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from .. import errors
from ..failpoints import failpoint
from ..proto import control_pb2, control_pb2_grpc
from ..proto.wire import PROTOCOL_VERSION
from ..security.access import Access
from ..security.channels import open_channel
from ..security.faults import Suspicion
from ..security.settings import Security
from . import crash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..timing import Timing
    from .opened import OpenedJob

logger = logging.getLogger(__name__)

Reply = TypeVar("Reply")

_PART_BYTES = 1 << 20
_CLOSE_DEADLINE_S = 2.0
_ERROR_KEY = "penstock-error"
_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)
_CLASSES: tuple[tuple[grpc.StatusCode, type[errors.PenstockError]], ...] = (
    (grpc.StatusCode.NOT_FOUND, errors.NotFoundError),
    (grpc.StatusCode.INVALID_ARGUMENT, errors.UsageError),
)


def parse_service(service: object) -> tuple[str, ...]:
    """The dispatcher addresses that a `service` argument names.

    Args:
        service: `host:port`, several of them separated by commas, or an object with such an
            `address` (a `LocalCluster`).

    Raises:
        UsageError: it is none of these.
    """
    text = service if isinstance(service, str) else getattr(service, "address", None)
    if isinstance(text, str):
        addresses = tuple(address.strip() for address in text.split(","))
        if all(_is_address(address) for address in addresses):
            return addresses
    raise errors.UsageError(
        "service must be 'HOST:PORT' of a dispatcher (several are separated by commas), a "
        f"LocalCluster, or None for a cluster on this machine, not {service!r}"
    )


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16


def error_of(error: grpc.RpcError, address: str) -> errors.PenstockError:
    """The penstock error that the dispatcher named, or the nearest to the status code."""
    text = f"{error.details() or error.code().name} (dispatcher {address})"
    for key, value in error.trailing_metadata() or ():
        named: Any = getattr(errors, str(value), None) if key == _ERROR_KEY else None
        if isinstance(named, type) and issubclass(named, errors.PenstockError):
            found: errors.PenstockError = named(text)
            return found
    nearest: type[errors.PenstockError] = dict(_CLASSES).get(error.code(), errors.RefusedError)
    return nearest(text)


def is_transient(error: grpc.RpcError) -> bool:
    """Whether the same call may be answered later, or by another dispatcher."""
    return error.code() in _RETRIED


class Backoff:
    """Growing pauses between tries."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._pause_s = timing.retry_min_s

    def reset(self) -> None:
        """The last try worked."""
        self._pause_s = self._timing.retry_min_s

    def next_s(self) -> float:
        """The pause before the next try."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._timing.retry_max_s)
        return pause_s


class Control:
    """The dispatchers of a service: one is talked to, the next one when it does not answer.

    Args:
        addresses: `host:port` of each.
        timing: intervals and deadlines.
        access: whom to trust, and what to show; None: as the environment says.

    Raises:
        UsageError: a file that the environment names cannot be used.
    """

    def __init__(
        self, addresses: Sequence[str], timing: Timing, access: Access | None = None
    ) -> None:
        self.access = Access.load(Security.from_environment()) if access is None else access
        self._addresses = tuple(addresses)
        self._timing = timing
        self._lock = threading.Lock()
        self._current = 0
        self._channel: grpc.Channel | None = None
        self._closed = threading.Event()

    @property
    def address(self) -> str:
        """The address that is talked to now."""
        return self._addresses[self._current]

    @property
    def call_deadline_s(self) -> float:
        """How long one call may take, in seconds, beyond the time that it is held on purpose.

        A paused dispatcher accepts calls and answers none: with another one to ask, a call waits
        for it no longer than it keeps its hold of the journal.
        """
        timing = self._timing
        several = len(self._addresses) > 1
        return min(timing.rpc_deadline_s, timing.lease_s) if several else timing.rpc_deadline_s

    def stub(self) -> Any:
        """A stub for the current dispatcher."""
        with self._lock:
            if self._closed.is_set():
                raise errors.RefusedError("this client is closed")
            if self._channel is None:
                self._channel = open_channel(self.address, self.access, self._channel_options())
            make: Any = control_pb2_grpc.ControlStub  # the generated stubs have no annotations
            return make(self._channel)

    def rotate(self) -> None:
        """The current dispatcher does not answer: go on with the next address, if there is one."""
        if len(self._addresses) == 1:
            return  # the channel reconnects by itself
        with self._lock:
            self._current = (self._current + 1) % len(self._addresses)
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def describe(self, fingerprint: str) -> control_pb2.DatasetInfo | None:
        """What is known of a registered dataset; None if there is none of that fingerprint."""
        request = control_pb2.GetDatasetRequest(fingerprint=fingerprint)
        try:
            info: control_pb2.DatasetInfo = self._call(
                lambda stub, timeout_s: stub.DescribeDataset(request, timeout=timeout_s)
            )
        except errors.NotFoundError:
            return None
        return info

    def put(self, info: control_pb2.DatasetInfo, graph: bytes) -> None:
        """Registers a dataset; only sends the graph if the dispatcher has not got it."""
        if self.describe(info.fingerprint) is not None:
            return

        def parts() -> Iterator[control_pb2.PutDatasetRequest]:
            yield control_pb2.PutDatasetRequest(info=info)
            for at in range(0, len(graph), _PART_BYTES):
                yield control_pb2.PutDatasetRequest(part=graph[at : at + _PART_BYTES])

        failpoint("client.put_dataset.before_send")
        self._call(lambda stub, timeout_s: stub.PutDataset(parts(), timeout=timeout_s))
        failpoint("client.put_dataset.after_reply")

    def open_job(self, request: control_pb2.OpenJobRequest) -> control_pb2.OpenJobReply:
        """Creates or joins a job.

        The client is numbered once, so that a request which comes late takes no job from a client
        that arrived after this one; only a dispatcher that began anew numbers it again.
        """
        request.protocol_version = PROTOCOL_VERSION

        def call(stub: Any, timeout_s: float) -> control_pb2.OpenJobReply:
            if not request.arrival:
                announced = stub.AnnounceClient(
                    control_pb2.AnnounceClientRequest(), timeout=timeout_s
                )
                request.term, request.arrival = announced.term, announced.arrival
                failpoint("client.announce.after_reply")
            try:
                reply: control_pb2.OpenJobReply = stub.OpenJob(request, timeout=timeout_s)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.ABORTED:
                    request.arrival = 0
                raise
            return reply

        return self._call(call)

    def open_seat(
        self, request: control_pb2.OpenJobRequest, patience_s: float
    ) -> control_pb2.OpenJobReply:
        """Opens the job of one of several consumers, once a former life of it is gone.

        Raises:
            SeatTakenError: another one has had the rank for all of `patience_s` seconds.
        """
        deadline = time.monotonic() + patience_s
        waited = False
        while True:
            try:
                return self.open_job(request)
            except errors.SeatTakenError as error:
                if time.monotonic() > deadline:
                    raise
                if not waited:
                    logger.warning("waiting for a seat: %s", error)
                waited = True
            if self.pause(self._timing.heartbeat_s):
                raise errors.RefusedError("this client is closed")

    def join(
        self, request: control_pb2.JoinGroupRequest, timeout_s: float | None = None
    ) -> control_pb2.JoinGroupReply:
        """Asks for a seat in a group until there is one, and says in the log who is waited for.

        Raises:
            UnavailableError: there was none for `timeout_s` seconds, or no dispatcher answers.
        """
        started = warned = time.monotonic()
        while True:
            reply: control_pb2.JoinGroupReply = self._call(
                lambda stub, deadline_s: stub.JoinGroup(request, timeout=deadline_s)
            )
            now = time.monotonic()
            if reply.seated:
                return reply
            text = f"waiting for {'; '.join(reply.waiting)} in group {request.group!r}"
            if timeout_s is not None and now - started > timeout_s:
                raise errors.UnavailableError(f"no seat for {now - started:.1f} s: {text}")
            if now - warned > self._timing.warn_after_s:
                warned = now
                logger.warning("%s", text)
            if self.pause(self._timing.heartbeat_s):
                raise errors.RefusedError("this client is closed")

    def commit(self, request: control_pb2.CommitPositionRequest) -> None:
        """Has a position journaled; returns when it is."""
        failpoint("client.commit.before_send")
        self._call(lambda stub, timeout_s: stub.CommitPosition(request, timeout=timeout_s))
        failpoint("client.commit.after_reply")

    def committed(self, job_name: str) -> str:
        """The text of the position of a named job that was committed last; empty if none was."""
        request = control_pb2.GetPositionRequest(job_name=job_name)
        reply: control_pb2.GetPositionReply = self._call(
            lambda stub, timeout_s: stub.GetPosition(request, timeout=timeout_s)
        )
        return reply.position

    def rule_step(self, request: control_pb2.RuleStepRequest) -> control_pb2.RuleStepReply:
        """Asks what all ranks do about a failed step; held until that is ruled, for a while."""
        reply: control_pb2.RuleStepReply = self._call(
            lambda stub, timeout_s: stub.RuleStep(request, timeout=timeout_s)
        )
        return reply

    def close_client(
        self, job: OpenedJob, *, leaving: bool = False, step: int | None = None
    ) -> None:
        """Tells the dispatcher that this client is done; tried once, for a short time.

        Args:
            job: its job.
            leaving: it leaves its lanes to the other consumers of its group.
            step: that the trainer is at, if it says so.
        """
        request = control_pb2.CloseClientRequest(
            job=job.job, client=job.client, leaving=leaving, crash=crash.told(), trainer_step=step
        )
        failpoint("client.close.before_send")
        try:
            self.stub().CloseClient(
                request, timeout=min(_CLOSE_DEADLINE_S, self._timing.rpc_deadline_s)
            )
        except (grpc.RpcError, errors.RefusedError) as error:
            why = error.code().name if isinstance(error, grpc.RpcError) else error
            logger.info("the dispatcher was not told that %s is done: %s", job.client, why)

    def close(self) -> None:
        """Closes the channel and ends every wait. Closing twice is fine."""
        with self._lock:
            self._closed.set()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def pause(self, seconds: float) -> bool:
        """Waits before another try; True if the client was closed meanwhile."""
        return self._closed.wait(seconds)

    def _channel_options(self) -> list[tuple[str, int]]:
        least_ms = max(20, int(self._timing.retry_min_s * 1000))
        return [
            ("grpc.initial_reconnect_backoff_ms", least_ms),
            ("grpc.min_reconnect_backoff_ms", least_ms),
            ("grpc.max_reconnect_backoff_ms", max(least_ms, int(self._timing.retry_max_s * 1000))),
            ("grpc.max_receive_message_length", 64 << 20),
            # Clients of one process would else share a connection, and the pauses in making it.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.keepalive_time_ms", 10_000),
        ]

    def _call(self, call: Callable[[Any, float], Reply]) -> Reply:
        started = time.monotonic()
        warn_at = started + self._timing.warn_after_s
        deadline = started + self._timing.connect_deadline_s
        backoff = Backoff(self._timing)
        suspicion = Suspicion(self.access, len(self._addresses))
        while True:
            address = self.address
            left_s = max(0.1, deadline - time.monotonic())
            try:
                return call(self.stub(), min(left_s, self.call_deadline_s))
            except grpc.RpcError as error:
                if not is_transient(error):
                    raise error_of(error, address) from None
                reason = f"{error.code().name}: {error.details()}"
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    suspicion.check(address)
            self.rotate()
            pause_s = backoff.next_s()
            now = time.monotonic()
            if now + pause_s > deadline:
                raise errors.UnavailableError(
                    f"no dispatcher answers at {', '.join(self._addresses)} for "
                    f"{now - started:.1f} s ({reason}); is `penstock dispatcher` running there, "
                    "and may this machine connect to it?"
                )
            if now > warn_at:
                warn_at = now + self._timing.warn_after_s
                logger.warning(
                    "waiting for a dispatcher at %s for %.0f s: %s",
                    ", ".join(self._addresses),
                    now - started,
                    reason,
                )
            if self.pause(pause_s):
                raise errors.RefusedError("this client is closed")
