"""The processes of a speed benchmark, seen from the one that compares: asked, waited for, ended.

Every contestant's trainers, and the servers of stock tf.data service, are processes of `child`,
all with the same environment, which is that of penstock's daemons. What does not answer in time is
killed: one contestant that hangs does not end a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import PenstockError, UnavailableError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_END_DEADLINE_S = 5.0
_START_DEADLINE_S = 120.0
_VERIFICATION_EXIT = VerificationError.exit_code
_REASON_MAX = 300


class Child:
    """One process, which is started when it is first asked, and again after it was killed.

    Args:
        name: for people; also the name of its log file.
        directory: where its log is.
        module: what runs in it: `child`, or another one of this package that has `answers`.
    """

    def __init__(self, name: str, directory: Path, module: str = "child") -> None:
        self.name = name
        self._module = f"penstock.bench.{module}"
        self._log_path = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 if it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Starts the process, unless it runs, and waits until it has loaded what it needs.

        Raises:
            UnavailableError: it does not start.
        """
        if self._process is not None:
            return
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us, who then end it
            )
        self._converse({"do": "ready"}, _START_DEADLINE_S)

    def ask(self, deadline_s: float, **request: Any) -> dict[str, Any]:
        """Asks it to do something, and waits for the answer.

        Raises:
            UnavailableError: it does not start, ended, or took longer, and was killed.
            VerificationError: the data that it read was wrong.
            PenstockError: it could not do it; the message says why.
        """
        self.start()
        answer = self._converse(request, deadline_s)
        if "error" in answer:
            wrong = answer["exit_code"] == _VERIFICATION_EXIT
            raise (VerificationError if wrong else PenstockError)(answer["error"])
        return answer

    def end(self) -> int | None:
        """Ends the process, by force if needed; its exit code, None if it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        return process.returncode

    def _converse(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(time.monotonic() + deadline_s)
        except TimeoutError:
            self._process.kill()
            self.end()
            raise UnavailableError(f"no end of it after {deadline_s:g} s") from None
        except OSError:
            line = b""  # it has ended: the same as if its output had
        if not line:
            raise UnavailableError(
                f"{self.name} ended with exit code {self.end()}; its last words: "
                f"{self._last_words()}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _line(self, deadline: float) -> bytes:
        """One line of its output; empty at the end of it."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(descriptor, 1 << 16)
                if not piece:
                    return b""
                received += piece
        return bytes(received)

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def ask_all(children: Sequence[Child], deadline_s: float, **request: Any) -> list[dict[str, Any]]:
    """Asks several for the same at once, and waits for all answers; see `Child.ask`."""
    with ThreadPoolExecutor(len(children)) as pool:
        asked = [pool.submit(child.ask, deadline_s, **request) for child in children]
        try:
            return [one.result() for one in asked]
        except KeyboardInterrupt:
            for child in children:  # else the pool would wait for their answers
                child.end()
            raise


def one_line(text: str) -> str:
    """An error in one line, without where in its graphs TensorFlow met it."""
    line = re.sub(r"\{\{.*?\}\} ?", "", " ".join(text.split()))
    return line if len(line) <= _REASON_MAX else f"{line[:_REASON_MAX]}…"


@dataclass(frozen=True, slots=True)
class Service:
    """A service that can be read from.

    Attributes:
        address: `host:port` of its dispatcher.
        workers: the process ids of its workers.
        files: those of its TLS, by their names in `penstock.Security`; none: it has none.
    """

    address: str
    workers: tuple[int, ...]
    files: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def stock_service(workers: int, directory: Path) -> Iterator[Service]:
    """Stock tf.data service: a dispatcher and workers, each a process of its own, on loopback.

    Raises:
        PenstockError: it did not start.
    """
    names = ["stock-dispatcher", *(f"stock-worker-{number + 1}" for number in range(workers))]
    children = [Child(f"{name}-of-{workers}", directory) for name in names]
    try:
        ask_all(children, _START_DEADLINE_S, do="ready")  # all load TensorFlow at once
        address = str(children[0].ask(_START_DEADLINE_S, do="dispatcher")["address"])
        ask_all(children[1:], _START_DEADLINE_S, do="worker", dispatcher=address)
        yield Service(address, tuple(child.pid for child in children[1:]))
    finally:
        for child in children:
            child.end()
