"""Starts and stops the dispatcher process's parts, in the order that the guarantees need."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from ..errors import AddressInUseError, JournalError
from ..failpoints import failpoint
from ..journal import Log, hold
from ..proto import control_pb2, control_pb2_grpc
from ..recovery.extensions import Askers, find_extension
from ..security.access import Access
from ..security.channels import bind, demands
from ..security.settings import Security
from ..timing import Timing
from .announce import announce, withdraw
from .commit import Committer
from .datasets import DirectoryBlobs, MemoryBlobs
from .engine import Engine
from .recover import replay
from .service import ControlService
from .snapshot import to_snapshot
from .standby import stand_by
from .state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..journal import Lease
    from ..recovery.alerts import Alerts
    from .commit import JournalLog
    from .datasets import BlobStore

logger = logging.getLogger(__name__)

_SERVICE = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name
_STOP_GRACE_S = 2.0
#: Allocations before the garbage collector looks at the youngest objects. Thousands of held calls
#: are thousands of young objects that live on: with the usual 700 a tenth of the time goes there.
_GC_ALLOCATIONS = 20_000
#: A request may list many delivered splits, a dataset many weights; graphs travel in parts.
_RECEIVE_BYTES_MAX = 64 << 20
_SEND_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class DispatcherOptions:
    """How a dispatcher runs.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        journal: directory of the journal; None keeps everything in memory only.
        timing: intervals and deadlines.
        standby: wait for the journal if another dispatcher has it, and take over.
        announce: where to write one JSON line when serving: a file, or `-` for standard output.
        stop_on_stdin_eof: stop when standard input ends.
        snapshot_records: journal records after which a snapshot is taken.
        failover_extension: `module::Class` that says what is done about faults; "" for penstock's.
        failover_deadline_s: how long it may take, seconds.
        alerts: tells a person of decisions that need one; None: by the log alone.
        security: by what it shows who it is, and what it demands of its peers.
    """

    host: str = "127.0.0.1"
    port: int = 5050
    journal: Path | None = None
    standby: bool = False
    timing: Timing = field(default_factory=Timing)
    announce: str | None = None
    stop_on_stdin_eof: bool = False
    snapshot_records: int = 20_000
    failover_extension: str = ""
    failover_deadline_s: float = 10.0
    alerts: Alerts | None = None
    security: Security = field(default_factory=Security)


class Dispatcher:
    """A dispatcher in this process's event loop: `start`, then `stop`.

    Args:
        options: how it runs.
        log: used instead of opening `options.journal`; for tests.
        lease: of `options.journal`, if the caller has it; it is given up at the end.

    Raises:
        UsageError: the failover extension, or a file of the security settings, cannot be loaded.

    Attributes:
        address: `host:port` that it serves on, once started.
        engine: what decides, once started.
    """

    def __init__(
        self,
        options: DispatcherOptions,
        log: JournalLog | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.options = options
        self.address = ""
        self.engine: Engine
        self._askers = Askers(options.failover_extension, options.failover_deadline_s)
        self._access = Access.load(options.security, serving=True)
        self._log = log
        self._lease = lease
        self._server: grpc.aio.Server | None = None
        self._health = HealthServicer()

    async def start(self) -> None:
        """Binds, replays the journal, begins a term and serves.

        Raises:
            AddressInUseError: the address is taken.
            JournalError: the journal is locked, damaged, or cannot be read.
        """
        started_s = time.monotonic()
        options = self.options
        # Bound first: a dispatcher that cannot serve must not begin a term.
        server = self._server = _make_server(self._access)
        port = _bind(server, options.host, options.port, self._access)
        try:
            state, blobs = self._recover()
        except BaseException:
            await server.stop(None)
            raise
        committer = Committer(
            self._log, self.journal_failed, lambda: to_snapshot(state), options.snapshot_records
        )
        self.engine = Engine(state, committer, options.timing, self._askers, options.alerts)
        self.engine.reachability.access = self._access
        failpoint("dispatcher.term.before_start")
        self.engine.start()
        await self.engine.durable()
        failpoint("dispatcher.term.after_start")
        service = ControlService(self.engine, blobs)
        add_service: Callable[..., None] = control_pb2_grpc.add_ControlServicer_to_server
        add_service(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server
        )
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self.address = f"{options.host}:{port}"
        logger.info(
            "serving at %s, term %d: %d jobs, %d workers; started in %.0f ms",
            self.address,
            state.term,
            len(state.jobs),
            len(state.workers),
            1000 * (time.monotonic() - started_s),
        )

    async def stop(self) -> None:
        """Answers what is held, finishes the commit and closes the journal."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.engine.stop()
        if self._server is not None:
            await self._server.stop(_STOP_GRACE_S)
        await self.engine.committer.close()
        if self.options.alerts is not None:
            await asyncio.to_thread(self.options.alerts.close, _STOP_GRACE_S)
        logger.info("stopped")

    def journal_failed(self, error: BaseException) -> None:
        """Ends the process at once: nobody may be answered any more."""
        logger.critical("the journal failed, so this process ends: %s", error)
        sys.stderr.flush()
        _exit_at_once()

    def _recover(self) -> tuple[State, BlobStore]:
        directory = self.options.journal
        if directory is None:
            if self._log is None:
                logger.warning("there is no journal: what is known ends with this process")
            return State(), MemoryBlobs()
        # Renewed from now on: to replay a long journal may take longer than a lease.
        lease = self._lease or hold(directory)
        lease.keep(self.options.timing.lease_s, lambda error: self.journal_failed(error))
        log, recovered = Log.open(directory, lease=lease)
        try:
            state = replay(recovered.snapshot, recovered.records)
            blobs = DirectoryBlobs(directory / "datasets")
        except BaseException:
            log.close()
            raise
        self._log = log
        return state, blobs

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", _SERVICE):
            await self._health.set(name, status)


async def serve(options: DispatcherOptions) -> None:
    """Runs a dispatcher until SIGTERM, SIGINT or (if so told) the end of standard input.

    Raises:
        AddressInUseError: the address is taken.
        JournalError: the journal is locked, damaged, or cannot be read.
        UsageError: a standby without a journal or a port, or a failover extension that cannot be
            loaded.
    """
    if options.failover_extension:
        find_extension(options.failover_extension, "--failover-extension")
    Access.load(options.security, serving=True)  # a standby tells what is wrong before it waits
    if options.announce:
        withdraw(options.announce)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if options.stop_on_stdin_eof:
        _watch_stdin(loop, stopping)
    lease: Lease | None = None
    if options.standby:
        lease = await stand_by(options, stopping)
        if lease is None:
            return
    gc.set_threshold(_GC_ALLOCATIONS)
    dispatcher = Dispatcher(options, lease=lease)
    await dispatcher.start()
    gc.freeze()  # what was loaded and replayed stays, for the most part
    if options.announce:
        announce(options.announce, dispatcher.address)
    await stopping.wait()
    await dispatcher.stop()


def _make_server(access: Access) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=demands(access),
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _RECEIVE_BYTES_MAX),
            ("grpc.max_send_message_length", _SEND_BYTES_MAX),
            # Peers that vanished without a word are noticed, and their held calls ended.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ),
    )


def _bind(server: grpc.aio.Server, host: str, port: int, access: Access) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return bind(server, address, access)
    except RuntimeError as error:
        raise AddressInUseError(
            f"cannot listen on {address}: another process does, or it is not an address of this"
            f" machine ({error}). Choose another --host or --port; --port 0 takes any free one"
        ) from error


def _watch_stdin(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Stops when standard input ends. A thread, because a loop cannot watch every kind of file."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _exit_at_once() -> NoReturn:
    os._exit(JournalError.exit_code)
