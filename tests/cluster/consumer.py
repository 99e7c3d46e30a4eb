"""One of several consumers as a process of its own, without TensorFlow, that does as it is told.

`python -m tests.cluster.consumer ADDRESS FINGERPRINT JOB RANK WORLD LEDGER` reads commands from
standard input and answers each with one JSON line: `take N` with the next elements as [epoch,
value]; `epoch` with all that is left of the epoch; `commit` commits what was taken. It ends with
its input. A penstock error is answered with its class and text.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.client.reader import Reader
from penstock.errors import PenstockError
from penstock.timing import Timing

TIMING = Timing(heartbeat_s=0.1, retry_max_s=0.1)


class Told:
    """The parent's end of a process that answers each line with a line of JSON."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.cluster.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> None:
        """Sends a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The answer to the oldest command that was not answered."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, command: str) -> Any:
        """Sends a command, and waits for its answer."""
        self.tell(command)
        return self.answer()

    def kill(self) -> None:
        """Ends the process as a crash does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.stdout.close()


class Consumer(Told):
    """The parent's end of such a process."""

    def __init__(
        self, address: str, fingerprint: str, job: str, rank: int, world: int, ledger: Path
    ) -> None:
        super().__init__("consumer", address, fingerprint, job, rank, world, ledger)


def main() -> None:
    address, fingerprint, job, rank, world, ledger = sys.argv[1:]
    with Reader(
        fingerprint,
        address,
        job_name=job,
        seed=5,
        consumer=(int(rank), int(world)),
        restore="committed",
        ledger=ledger,
        timing=TIMING,
    ) as reader:

        def epochs() -> Iterator[Iterator[tuple[int | None, int]]]:
            while True:
                yield ((reader.epoch, int(element[0])) for element in reader)

        taken = 0
        rest = epochs()
        epoch: Iterator[Any] = iter(())
        for line in sys.stdin:
            command, _, number = line.strip().partition(" ")
            answer: list[Any] = []
            try:
                if command == "commit":
                    answer = [repr(reader.commit(taken))]
                elif command == "epoch":
                    answer = list(epoch) or list(next(rest))
                while command == "take" and len(answer) < int(number):
                    more = list(itertools.islice(epoch, int(number) - len(answer)))
                    if not more:
                        epoch = next(rest)
                    answer += more
            except PenstockError as error:
                answer = [type(error).__name__, str(error)]
            else:
                taken += 0 if command == "commit" else len(answer)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
