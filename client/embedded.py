"""A whole penstock cluster on this machine, as real daemon processes that end with this one.

Theory of operation. `LocalCluster` runs `python -m penstock dispatcher` and `… worker` on the
loopback interface. Each daemon writes one JSON line to its standard output when it is ready,
which is what we wait for, and watches its standard input, whose write end only we hold: when
this process ends in whatever way, even by SIGKILL, the daemons see the end of file and stop.
Nothing is imported from the dispatcher or worker packages.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..security.settings import Security
from .daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


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
        cache_dir: where workers keep what pipelines cache; by default in `directory`.
        worker_timeout_s: a worker silent for so many seconds is dead.
        worker_arguments: more command line arguments for every worker.
        dispatcher_arguments: more command line arguments for every dispatcher.
        security: certificates and token of every daemon; by default none, whatever the environment
            says. The certificate must be of 127.0.0.1.

    Attributes:
        address: `host:port` of every dispatcher: the `service` argument of `penstock.distribute`.
        dispatcher: the dispatcher's `Daemon`.
        standby_dispatcher: that of the second one; None without.
        security: certificates and token, as given; `penstock.distribute(cluster)` uses them.
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
        cache_dir: str | os.PathLike[str] | None = None,
        worker_timeout_s: float = 5.0,
        worker_arguments: Sequence[str] = (),
        dispatcher_arguments: Sequence[str] = (),
        security: Security | None = None,
    ) -> None:
        for name, value in (("workers", workers), ("standbys", standbys)):
            if value < 0:
                raise UsageError(f"{name} must be a number >= 0, not {value!r}")
        if standby_dispatcher and not journal:
            raise UsageError("a standby dispatcher takes the journal over: it needs journal=True")
        self.security = security or Security()
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="penstock-"))
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        cache_dir = os.fspath(cache_dir or self.directory / "cache")
        self._worker_arguments = (f"--cache-dir={cache_dir}", *worker_arguments)
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
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Daemon:
        """Starts one more worker, with `environment` added to ours, and returns it.

        Args:
            standby: get no work until another worker fails.
            arguments: more command line arguments; of an option given twice the last one counts.
            environment: variables for this process only.
            wait: return once it is registered; else call `wait_ready` on it, if that matters.
        """
        worker = self._start_worker(arguments, standby=standby, environment=environment)
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

        The new one takes its place in `workers`, and is told how it ended if nobody here ended it
        (`penstock worker --last-exit`). See `add_worker` for the arguments.
        """
        replacement = worker.successor({**worker.last_exit, **(environment or {})})
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
        self,
        arguments: Sequence[str] = (),
        *,
        standby: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Daemon:
        worker = self._daemon(
            "worker",
            f"--dispatcher={self.address}",
            "--port=0",
            *(["--standby"] if standby else []),
            *self._worker_arguments,
            *arguments,
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
        common = ("--announce=-", "--stop-on-stdin-eof", *self.security.arguments())
        return Daemon(name, (command, *common, *arguments), log_path, environment)


def _free_port() -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
