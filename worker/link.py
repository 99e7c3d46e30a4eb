"""The way to the dispatcher: one of several addresses, a fresh channel after every failure."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from .. import errors
from ..proto import control_pb2, control_pb2_grpc
from ..security.access import OPEN, Access
from ..security.channels import open_channel
from ..security.faults import Suspicion, find_fault
from .messages import AttemptError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..timing import Timing

logger = logging.getLogger(__name__)

#: The graph of a stream could not be had, or is not one.
DATASET = "DATASET"
_OPTIONS = (
    # Channels to one address would else share a connection, and the pauses after its failures.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.enable_http_proxy", 0),
)
#: The metadata key under which the dispatcher names the error's class.
_ERROR_KEY = "penstock-error"
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)


def parse_addresses(text: str) -> tuple[str, ...]:
    """The dispatchers' addresses in `HOST:PORT[,HOST:PORT…]`.

    Raises:
        UsageError: the text is not that.
    """
    addresses = tuple(part.strip() for part in text.split(","))
    for address in addresses:
        host, _, port = address.rpartition(":")
        bare = host.startswith("[") and host.endswith("]")
        if not host or (":" in host and not bare) or not _is_port(port):
            raise errors.UsageError(
                f"--dispatcher takes HOST:PORT, several separated by commas, not {address!r}"
            )
    return addresses


def _is_port(text: str) -> bool:
    return text.isdecimal() and text.isascii() and 0 < int(text) < 1 << 16


def final_error(error: grpc.RpcError) -> errors.PenstockError | None:
    """The error to end with, or None if another try may help."""
    if error.code() not in _FINAL:
        return None
    for key, value in error.trailing_metadata() or ():
        named = getattr(errors, str(value), None) if key == _ERROR_KEY else None
        if isinstance(named, type) and issubclass(named, errors.PenstockError):
            return named(error.details())
    return errors.RefusedError(f"the dispatcher refuses this worker: {error.details()}")


class Backoff:
    """Growing pauses between tries, and rarer and rarer warnings of how long it has been.

    Args:
        timing: intervals and deadlines.
        clock: monotonic seconds.
    """

    def __init__(self, timing: Timing, clock: Callable[[], float] = time.monotonic) -> None:
        self._timing = timing
        self._clock = clock
        self._since: float | None = None
        self._pause_s = timing.retry_min_s
        self._warn_s = timing.warn_after_s

    def reset(self) -> float | None:
        """It worked; returns for how long it had not, if that was warned of."""
        since = self._since
        warned = self._warn_s > self._timing.warn_after_s
        self._since = None
        self._pause_s = self._timing.retry_min_s
        self._warn_s = self._timing.warn_after_s
        return self._clock() - since if since is not None and warned else None

    def failed(self) -> tuple[float, float | None]:
        """It failed once more.

        Returns:
            The pause before the next try, and for how long it has failed if that is to be said.
        """
        now = self._clock()
        self._since = now if self._since is None else self._since
        pause = self._pause_s
        self._pause_s = min(2 * pause, self._timing.retry_max_s)
        lasted = now - self._since
        if lasted < self._warn_s:
            return pause, None
        self._warn_s = max(2 * self._warn_s, lasted + self._timing.warn_after_s)
        return pause, lasted


class Link:
    """Calls to whichever dispatcher answers. Thread-safe.

    Args:
        addresses: `host:port` of each, in the order of trying.
        timing: intervals and deadlines.
        access: whom to trust, and what to show.
    """

    def __init__(self, addresses: Sequence[str], timing: Timing, access: Access = OPEN) -> None:
        self._addresses = tuple(addresses)
        self._timing = timing
        self._access = access
        self._lock = threading.Lock()
        self._turn = 0
        self._channel: grpc.Channel | None = None
        self._closed = threading.Event()
        self._suspicion = Suspicion(access, len(self._addresses))

    @property
    def address(self) -> str:
        """The address that is talked to now."""
        return self._addresses[self._turn % len(self._addresses)]

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
        """For calls to the present address."""
        with self._lock:
            if self._channel is None:
                self._channel = open_channel(self.address, self._access, _OPTIONS)
            return control_pb2_grpc.ControlStub(self._channel)  # type: ignore[no-untyped-call]

    def refusal(self, error: grpc.RpcError) -> errors.PenstockError | None:
        """Why the present dispatcher refuses this worker; None if another try may help.

        To find that out may take seconds.
        """
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return self._suspicion.find(self.address)
        return final_error(error)

    def fault(self) -> errors.PenstockError | None:
        """What waiting cannot mend at the present address, for the log; may take seconds, too."""
        return find_fault(self.address, self._access)

    def next(self) -> None:
        """A call failed: go on with the next address, or this one on a new channel."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._turn += 1
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Ends all calls and all trying."""
        self._closed.set()
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def get_dataset(self, fingerprint: str) -> bytes:
        """Fetches a stream's graph; tries until a dispatcher answers or the link is closed.

        Raises:
            AttemptError: no dispatcher has it, or the link was closed.
        """
        backoff = Backoff(self._timing)
        while not self._closed.is_set():
            try:
                return self._get_dataset_once(fingerprint)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND or final_error(error) is not None:
                    detail = f"dataset {fingerprint}: {error.details()}"
                    raise AttemptError(DATASET, detail) from error
                reason = error.code().name
            except ValueError:  # the channel was closed by `next`
                reason = "the connection was given up"
            pause, lasted = backoff.failed()
            if lasted is not None:
                logger.warning("no dataset %s for %.0f s: %s", fingerprint, lasted, reason)
            self._closed.wait(pause)
        raise AttemptError(DATASET, f"dataset {fingerprint}: this worker stops")

    def _get_dataset_once(self, fingerprint: str) -> bytes:
        request = control_pb2.GetDatasetRequest(fingerprint=fingerprint)
        deadline_s = self._timing.rpc_deadline_s + self._timing.connect_deadline_s
        replies = self.stub().GetDataset(request, timeout=deadline_s)
        return b"".join(reply.part for reply in replies)
