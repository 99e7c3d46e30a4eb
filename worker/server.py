"""A worker as a process: puts the parts together, runs until it is told to stop, ends cleanly."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..security.access import Access
from ..security.settings import Security
from ..timing import Timing
from .agent import Agent
from .announce import announce, withdraw
from .attempts import AttemptBook
from .checkpointing import Interval
from .checkpoints import CheckpointStore
from .exchange import Exchange
from .keeper import Keeper
from .last_words import Former, LastWords, Limits, limits_after, read_former
from .link import Link, parse_addresses
from .probes import Probes
from .processors import Processors
from .producers import Producers
from .requests import Identity
from .startup import load_tensorflow
from .stream import StreamServer, host_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cache import Cache
    from .messages import Key

logger = logging.getLogger(__name__)

_CLOSE_DEADLINE_S = 2.0
#: What slots may have of the memory limit, as long as they do: one part in so many.
_SLOTS_PART = 2
_ANY_HOSTS = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        dispatcher: `HOST:PORT` of the dispatcher, several separated by commas.
        host: address to listen on for clients.
        port: port to listen on; 0 picks a free one.
        advertise: host under which clients reach this worker; empty: `host`, or if that is every
            address, the one that the way to the dispatcher begins at.
        standby: get no work until another worker fails.
        slots: attempts to run at once ahead of need.
        memory_limit: bytes that the buffers of all attempts, and the memory that is shared with
            clients on this machine, may have together.
        unix: also listen on a Unix socket, for clients on this machine.
        checkpoint_dir: local directory for checkpoints, which several workers may share; empty:
            none are taken.
        checkpoint_interval: seconds of production between two of a split, `auto` or `off`; those
            that there are, are used in any case.
        cache_dir: directory for what pipelines cache, which several workers may share; empty:
            nothing is cached.
        cache_limit: bytes that it may hold; 0 for most of what is free there.
        last_words: file that says what is run, for the process after this one; empty: none.
        last_exit: how the process before this one ended, if its supervisor says so; else 0.
        announce: file to write one JSON line to once registered; "-" is standard output.
        stop_on_stdin_eof: stop when standard input ends.
        security: by what it shows who it is, and what it demands of its peers.
        timing: intervals and deadlines.

    Raises:
        UsageError: a value is not acceptable.
    """

    dispatcher: str = "127.0.0.1:5050"
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    standby: bool = False
    slots: int = 8
    memory_limit: int = 1 << 30
    unix: bool = True
    checkpoint_dir: str = ""
    checkpoint_interval: str = "auto"
    cache_dir: str = ""
    cache_limit: int = 0
    last_words: str = ""
    last_exit: int = 0
    announce: str = ""
    stop_on_stdin_eof: bool = False
    security: Security = field(default_factory=Security)
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        parse_addresses(self.dispatcher)
        Interval.parse(self.checkpoint_interval)
        if not 0 <= self.port < 1 << 16:
            raise UsageError(f"--port must be 0..65535, not {self.port}")
        if self.slots < 1:
            raise UsageError(f"--slots must be at least 1, not {self.slots}")
        if self.memory_limit < 1 << 20:
            raise UsageError(f"--memory-limit must be at least 1MiB, not {self.memory_limit} bytes")


class Worker:
    """All parts of one worker.

    Args:
        options: how it runs.
        on_change: called, in some thread, when it is registered (again) or refused for good.

    Attributes:
        agent: tells id, term, and refusal.
        address: `host:port` under which clients reach it.
        listen: `host:port` that it listens on.

    Raises:
        AddressInUseError: the address is taken.
        UnavailableError: the address cannot be listened on.
        UsageError: a file of the security settings cannot be used.
    """

    def __init__(self, options: WorkerOptions, on_change: Callable[[], None]) -> None:
        access = Access.load(options.security, serving=True)
        tf = load_tensorflow()  # late, so that bad usage is told at once
        from .production import Production

        timing = options.timing
        self._link = Link(parse_addresses(options.dispatcher), timing, access)
        self._keeper: Keeper | None = None
        production = Production(self._link.get_dataset, Interval.parse(options.checkpoint_interval))
        former, limits = _former(options)
        words = options.last_words
        self._words = LastWords(Path(words), limits.deaths) if words else None
        self._producers = Producers(production.produce, timing.attempt_grace_s, self._words)
        book = AttemptBook(limits.memory_limit, timing.attempt_grace_s)
        self._exchange = Exchange(
            book,
            self._producers.start,
            self._producers.stop,
            self._report,
            self._forget,
            Processors().idle,
        )
        self._producers.connect(self._exchange)
        self._server = StreamServer(
            self._exchange,
            lambda: self.agent.worker,
            options.host,
            options.port,
            unix=options.unix,
            hello_deadline_s=timing.rpc_deadline_s,
            slots=limits.memory_limit // _SLOTS_PART,
            access=access,
        )
        self.listen = _address(options.host, self._server.port)
        self.address = _address(_advertised(options), self._server.port)
        if options.checkpoint_dir:
            self._keeper = self._keep(options, tf.__version__)
        self._cache = self._open_cache(options, tf.__version__) if options.cache_dir else None
        production.keeper, production.cache = self._keeper, self._cache
        identity = Identity(
            incarnation=secrets.token_hex(8),
            address=self.address,
            unix_path=self._server.unix_path,
            host_id=host_id(),
            slots=limits.slots,
            standby=options.standby,
            tensorflow_version=tf.__version__,
            pid=os.getpid(),
            limited=limits.reason,
            killed=former.doing if limits.deaths > former.deaths else (),
            last_exit=options.last_exit,
        )
        self._probes = Probes(production.probe, self._report)
        told = self._keeper, self._cache, self._probes
        self.agent = Agent(self._link, identity, self._exchange, timing, on_change, *told)

    def _keep(self, options: WorkerOptions, tensorflow: str) -> Keeper:
        """Opens the checkpoints of this address."""
        try:
            store = CheckpointStore(Path(options.checkpoint_dir), self.address, tensorflow)
        except UsageError:
            self._server.close(_CLOSE_DEADLINE_S)
            raise
        logger.info(
            "checkpoints in %s, interval %s; of %d splits there are some",
            store.directory,
            options.checkpoint_interval,
            len(store.newest()),
        )
        if not options.port:
            logger.warning("checkpoints are found again at the same address only: give a --port")
        return Keeper(store)

    def _open_cache(self, options: WorkerOptions, tensorflow: str) -> Cache:
        """Opens the cache directory."""
        from .cache import open_cache

        root = Path(options.cache_dir)
        try:
            return open_cache(root, self.address, options.cache_limit, tensorflow, self._report)
        except UsageError:
            self._server.close(_CLOSE_DEADLINE_S)
            raise

    def start(self) -> None:
        """Serves clients and registers."""
        logger.info("listening on %s %s", self.address, self._server.unix_path)
        self._server.start()
        if self._keeper is not None:
            self._keeper.start()
        if self._cache is not None:
            self._cache.start()
        self.agent.start()

    def close(self) -> bool:
        """Stops everything in bounded time; whether every thread has ended."""
        done = self.agent.close(_CLOSE_DEADLINE_S)
        self._link.close()
        self._probes.set_wanted(())
        if self._cache is not None:
            self._cache.leaving = True
        self._exchange.drop_all()
        self._server.close(_CLOSE_DEADLINE_S)
        left = self._producers.close(_CLOSE_DEADLINE_S)
        done &= self._probes.close(_CLOSE_DEADLINE_S)
        if self._keeper is not None:
            done &= self._keeper.close(_CLOSE_DEADLINE_S)
        if self._cache is not None:
            done &= self._cache.close(_CLOSE_DEADLINE_S)
        if self._words is not None:
            self._words.close()
        if left:
            logger.warning("still inside an element, left behind: %s", ", ".join(left))
        return done and not left

    def _report(self) -> None:
        self.agent.report()

    def _forget(self, key: Key) -> None:
        if self._keeper is not None:
            self._keeper.forget(key)


def _former(options: WorkerOptions) -> tuple[Former, Limits]:
    """What the process before this one left behind, and what this one takes on."""
    former = read_former(Path(options.last_words)) if options.last_words else Former()
    limits = limits_after(former, options.last_exit, options.slots, options.memory_limit)
    if limits.reason:
        logger.warning("limited: %s", limits.reason)
    return former, limits


def serve(options: WorkerOptions) -> int:
    """Runs a worker until SIGTERM, SIGINT or, if asked for, the end of standard input.

    Returns:
        The exit code: 0.

    Raises:
        PenstockError: it could not start, or the dispatcher refused it for good.
    """
    withdraw(options.announce)
    with _Doorbell() as doorbell, _stop_signals(doorbell):
        worker = Worker(options, lambda: doorbell.ring(b"c"))
        try:
            worker.start()
            announced = False
            while (ring := doorbell.wait(options.stop_on_stdin_eof)) != b"s":
                del ring
                if worker.agent.error is not None:
                    raise worker.agent.error
                if not announced and worker.agent.worker:
                    announced = True
                    announce(options.announce, _introduction(worker))
            logger.info("worker %s stops", worker.agent.worker or "(not registered)")
        finally:
            worker.close()
    return 0


class _Doorbell:
    """Wakes the main thread from signal handlers and threads: a pipe, since locks may not."""

    def __enter__(self) -> _Doorbell:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._write, self._read):
            os.close(descriptor)

    def ring(self, kind: bytes) -> None:
        """`s`: stop; `c`: something has changed."""
        with contextlib.suppress(OSError):
            os.write(self._write, kind)

    def wait(self, stdin: bool) -> bytes:
        """Waits for the next ring."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            if stdin:
                selector.register(0, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._read in ready:
                    return os.read(self._read, 1)
                if not os.read(0, 4096):
                    return b"s"


@contextlib.contextmanager
def _stop_signals(doorbell: _Doorbell) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: doorbell.ring(b"s")) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _introduction(worker: Worker) -> dict[str, object]:
    fields = {"worker": worker.agent.worker, "address": worker.address, "listen": worker.listen}
    return {**fields, "pid": os.getpid()}


def _advertised(options: WorkerOptions) -> str:
    if options.advertise:
        return options.advertise
    if options.host not in _ANY_HOSTS:
        return options.host
    host, _, port = parse_addresses(options.dispatcher)[0].rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: only asks the kernel for the way
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            f"no way to {host} was found ({error}): say with --advertise how clients reach this"
            " worker"
        ) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
