"""One daemon process on this machine: started, announced, and killed or stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError, UsageError
from ..security.settings import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
        self._signalled = False

    def start(self) -> None:
        """Starts the process; `wait_ready` tells when it serves."""
        # Workers are for the CPU; the accelerator belongs to the trainer.
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # The environment's security settings are those of another cluster.
            **{name: value for name, value in os.environ.items() if name not in VARIABLES},
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
    def last_exit(self) -> dict[str, str]:
        """What its successor is told of its end, as variables; nothing of one that we wanted."""
        code = 0 if self._signalled else self.exit_code
        return {"PENSTOCK_LAST_EXIT": str(code)} if code else {}

    @property
    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def send_signal(self, number: int) -> None:
        """Sends signal `number` to the process."""
        self._signalled = True
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
        self._signalled = True
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
