"""A whole penstock cluster on this machine, as real daemon processes that end with this one.

Theory of operation. `LocalCluster` runs `python -m penstock dispatcher` and `… worker` on the
loopback interface. Each daemon writes one JSON line to its standard output when it is ready,
which is what we wait for, and watches its standard input, whose write end only we hold: when
this process ends in whatever way, even by SIGKILL, the daemons see the end of file and stop.
Nothing is imported from the dispatcher or worker packages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

logger = logging.getLogger(__name__)

_START_DEADLINE_S = 120.0
_STOP_DEADLINE_S = 10.0


class Daemon:
    """One daemon process: started, announced, and killed or stopped.

    Args:
        name: for people; also the name of its log file.
        arguments: of `python -m penstock`.
        log_path: the file that holds its log.
        environment: variables that are added to this process's own.

    Attributes:
        address: `host:port` that it announced, once it is ready.
        worker_id: a worker's id at the dispatcher, once it is ready.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.address = ""
        self.worker_id = ""
        self.log_path = log_path
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process; `wait_ready` tells when it serves."""
        # Workers are for the CPU; the accelerator belongs to the trainer.
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            **self._environment,
        }
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the trainer, which then stops us
            )

    def wait_ready(self, deadline_s: float = _START_DEADLINE_S) -> dict[str, Any]:
        """Waits for the daemon's announcement and returns it.

        Raises:
            UnavailableError: it ended, or did not get ready within `deadline_s` seconds.
        """
        process = self._running()
        assert process.stdout is not None
        line = _read_line(process.stdout.fileno(), time.monotonic() + deadline_s)
        if not line:
            code = process.poll()
            state = f"ended with exit code {code}" if code is not None else "is not ready"
            raise UnavailableError(
                f"{self.name} {state}; the end of its log {self.log_path}:\n{self.log_tail()}"
            )
        # A standby dispatcher that takes over writes a second line: the last one is the truth.
        announcement: dict[str, Any] = json.loads(line.splitlines()[-1])
        self.address = str(announcement["address"])
        self.worker_id = str(announcement.get("worker", ""))
        return announcement

    @property
    def pid(self) -> int:
        """The process id of the daemon that runs or ran last."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (a stopped one, SIGSTOP, does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def send_signal(self, number: int) -> None:
        """Sends signal `number` to the process."""
        self._running().send_signal(number)

    def wait_ended(self, deadline_s: float) -> int:
        """Waits until the process ends by itself, and reaps it.

        Returns:
            Its exit code; the negative number of the signal that ended it.

        Raises:
            UnavailableError: it still runs after `deadline_s` seconds.
        """
        try:
            code = self._running().wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{self.name} still runs after {deadline_s:g} s") from None
        self._close_pipes()
        return code

    def kill(self) -> None:
        """Ends the process with SIGKILL and reaps it."""
        process = self._running()
        process.kill()
        process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """Ends the process cleanly (SIGTERM), or with SIGKILL if that takes too long."""
        if not self.alive:
            self._close_pipes()
            return
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not stop within %.0f s: killed", self.name, _STOP_DEADLINE_S)
            process.kill()
            process.wait()
        self._close_pipes()

    def successor(self, environment: Mapping[str, str] | None = None, *more: str) -> Daemon:
        """A daemon with the same arguments, `more`, and the same log and port; not started yet."""
        port = self.address.rpartition(":")[2]
        arguments = [part for part in self._arguments if not part.startswith("--port=")]
        arguments += [part for part in (*more, f"--port={port}") if part not in arguments]
        return Daemon(self.name, arguments, self.log_path, environment)

    def log_tail(self, lines: int = 20) -> str:
        """The last `lines` lines of the daemon's log."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise UsageError(f"{self.name} was never started")
        return self._process

    def _close_pipes(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


class LocalCluster:
    """A dispatcher and workers on this machine, for trying out, testing and small trainings.

    Use it as a context manager, or call `close`; the daemons also end when this process does.

    Args:
        workers: number of workers that get work at once, >= 0.
        standbys: number of workers that wait for another to fail, >= 0.
        directory: where the journal and the logs go; kept at the end. By default a temporary
            directory that is removed at the end.
        journal: keep a journal in `directory`; False keeps the dispatcher's state in memory.
        standby_dispatcher: start a second dispatcher, which takes over when the first one dies;
            needs the journal.
        worker_timeout_s: a worker silent for so many seconds is dead.
        worker_arguments: more command line arguments for every worker.
        dispatcher_arguments: more command line arguments for every dispatcher.

    Attributes:
        address: `host:port` of every dispatcher: the `service` argument of `penstock.distribute`.
        dispatcher: the dispatcher's `Daemon`.
        standby_dispatcher: that of the second one; None without.
        workers: the workers' `Daemon`s, standbys last, in the order of their start.

    Raises:
        UsageError: a number is negative, or there is a standby dispatcher but no journal.
        UnavailableError: a daemon did not start; the message holds the end of its log.
    """

    def __init__(
        self,
        workers: int = 2,
        standbys: int = 0,
        *,
        directory: str | os.PathLike[str] | None = None,
        journal: bool = True,
        standby_dispatcher: bool = False,
        worker_timeout_s: float = 5.0,
        worker_arguments: Sequence[str] = (),
        dispatcher_arguments: Sequence[str] = (),
    ) -> None:
        for name, value in (("workers", workers), ("standbys", standbys)):
            if value < 0:
                raise UsageError(f"{name} must be a number >= 0, not {value!r}")
        if standby_dispatcher and not journal:
            raise UsageError("a standby dispatcher takes the journal over: it needs journal=True")
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="penstock-"))
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        self._worker_arguments = tuple(worker_arguments)
        self._workers_started = 0
        self.workers: list[Daemon] = []
        arguments = (
            f"--journal={self.directory / 'journal' if journal else 'none'}",
            f"--worker-timeout={worker_timeout_s}",
            *dispatcher_arguments,
        )
        self.dispatcher = self._daemon("dispatcher", "--port=0", *arguments)
        self.standby_dispatcher: Daemon | None = None
        try:
            self.dispatcher.start()
            self.dispatcher.wait_ready()
            self.address = self.dispatcher.address
            if standby_dispatcher:
                name, port = "standby-dispatcher", f"--port={_free_port()}"
                standby = self._daemon("dispatcher", "--standby", port, *arguments, name=name)
                self.standby_dispatcher = standby
                standby.start()
                standby.wait_ready()
                self.address += f",{standby.address}"
            started = [self._start_worker() for _ in range(workers)]
            started += [self._start_worker(standby=True) for _ in range(standbys)]
            for worker in started:
                worker.wait_ready()
        except BaseException:
            self.close()
            raise

    def add_worker(
        self,
        *,
        standby: bool = False,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Daemon:
        """Starts one more worker, with `environment` added to ours, and returns it.

        Args:
            standby: get no work until another worker fails.
            environment: variables for this process only.
            wait: return once it is registered; else call `wait_ready` on it, if that matters.
        """
        worker = self._start_worker(standby=standby, environment=environment)
        if wait:
            worker.wait_ready()
        return worker

    def restart_worker(
        self,
        worker: Daemon,
        *,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Daemon:
        """Starts a new process with the arguments and address of `worker`, which must have ended.

        The new one takes its place in `workers`. See `add_worker` for the arguments.
        """
        replacement = worker.successor(environment)
        replacement.address, replacement.worker_id = worker.address, ""
        self.workers[self.workers.index(worker)] = replacement
        replacement.start()
        if wait:
            replacement.wait_ready()
        return replacement

    def restart_dispatcher(
        self, *, environment: Mapping[str, str] | None = None, wait: bool = True
    ) -> None:
        """Starts a dispatcher that has ended again, on its journal and port.

        Of two the first that has ended, as a standby if the other one holds the journal.
        """
        ended, second = self.dispatcher, self.standby_dispatcher
        if second is not None and ended.alive:
            ended = second
        replacement = ended.successor(environment, *(["--standby"] if second else []))
        replacement.address = ended.address
        if ended is second:
            self.standby_dispatcher = replacement
        else:
            self.dispatcher = replacement
        replacement.start()
        if wait:
            replacement.wait_ready()

    def close(self) -> None:
        """Stops every daemon and removes the temporary directory. Closing twice is fine."""
        daemons = [*self.workers, self.dispatcher]
        daemons += [self.standby_dispatcher] if self.standby_dispatcher else []
        for daemon in daemons:
            if daemon.alive:
                daemon.send_signal(signal.SIGCONT)  # a paused process could not stop
                daemon.send_signal(signal.SIGTERM)  # to all at once: they stop side by side
        for daemon in daemons:
            daemon.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start_worker(
        self, *, standby: bool = False, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        worker = self._daemon(
            "worker",
            f"--dispatcher={self.address}",
            "--port=0",
            *(["--standby"] if standby else []),
            *self._worker_arguments,
            environment=environment,
        )
        worker.start()
        self.workers.append(worker)
        return worker

    def _daemon(
        self,
        command: str,
        *arguments: str,
        name: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Daemon:
        name = name or command
        if command == "worker":
            self._workers_started += 1
            name = f"{command}-{self._workers_started}"
        log_path = self.directory / "logs" / f"{name}.log"
        common = ("--announce=-", "--stop-on-stdin-eof")
        return Daemon(name, (command, *common, *arguments), log_path, environment)


def _free_port() -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_line(descriptor: int, deadline: float) -> str:
    """Reads one line from a pipe; empty at its end or when `deadline` (monotonic) has passed."""
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return ""
            piece = os.read(descriptor, 4096)
            if not piece:
                return ""
            received += piece
    return received.decode()
