"""The soak's trainer: a process of its own, so that it can be paused and killed like the others.

It reads one `Reading` after the other as JSON lines from its standard input, consumes what they
name, and answers with JSON lines on its standard output: `ready`, `progress`, `wait` (it wanted an
element and waited), `epoch`, `error`, `done`. The hashes of the elements go to a file for each
epoch while they come, so that what a killed trainer was given can be judged, too. Times are those
of the system-wide monotonic clock, which the soak reads as well.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

    from ..client.reader import Reader
    from ..timing import Timing

#: Elements of a step, and how long a step takes beyond the reading: a model would be busy.
_STEP = 64
_STEP_S = 0.02
#: Waits from this on are told.
_WAIT_S = 0.5
_PROGRESS_S = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """An order to read some epochs of one job.

    Attributes:
        number: of this reading, unique in a soak.
        pipeline: a name of `soak_data.pipelines`.
        seed: of the job.
        lanes: of the job.
        job: its name; empty for a job without one, which ends with its client.
        first: the epoch to begin with (what a job with a name has delivered is not read again).
        epochs: the number of epochs, from 0, that have been read when this reading is done.
        memory_limit: bytes that the client may buffer.
        folder: directory for the hashes; the file of an epoch is its number.
    """

    number: int
    pipeline: str
    seed: int
    lanes: int
    job: str
    first: int
    epochs: int
    memory_limit: int
    folder: str

    def path(self, epoch: int) -> Path:
        """The file with the hashes of what was delivered of an epoch."""
        return Path(self.folder) / f"{self.number}-{epoch}.hashes"


def say(event: str, **fields: Any) -> None:
    """Writes one line for the soak."""
    print(json.dumps({"event": event, **fields}), flush=True)


def serve(data: Path, service: str, timing: Timing) -> None:
    """Carries out readings until standard input ends.

    Args:
        data: where `soak_data.write_data` wrote.
        service: the dispatcher's address or addresses.
        timing: the client's intervals.
    """
    from .data import pipelines

    built = pipelines(data)
    say("ready")
    for line in sys.stdin:
        reading = Reading(**json.loads(line))
        _read(reading, built[reading.pipeline](), service, timing)


def _read(reading: Reading, local: tf.data.Dataset, service: str, timing: Timing) -> None:
    from .. import distribute

    served = local.apply(
        distribute(
            service,
            job_name=reading.job or None,
            seed=reading.seed,
            lanes=reading.lanes,
            memory_limit=reading.memory_limit,
            timing=timing,
        )
    )
    reader = served.penstock
    try:
        for epoch in range(reading.first, reading.epochs):
            elements = _consume(served, reading.path(epoch), reader)
            number, digest = max(reader.digests.items())
            digest_fields = {"count": digest.count, "total": digest.total}
            say("epoch", epoch=epoch, number=number, elements=elements, **digest_fields)
    except Exception as error:
        # A graph shows an error of the reader as text only; the soak judges by the kind.
        cause = reader.error or error
        say("error", kind=type(cause).__name__, text=str(cause)[:2000], epoch=epoch)
    else:
        say("done")
    finally:
        reader.close()


def _consume(served: tf.data.Dataset, path: Path, reader: Reader) -> int:
    """Reads one epoch, writes the hash of each element, and tells of waits; how many there were."""
    from .data import hash_of

    elements = 0
    told_s = asked_s = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for element in served.as_numpy_iterator():
            now_s = _told_wait(asked_s)
            if now_s - told_s >= _PROGRESS_S:
                say("progress", elements=elements)
                told_s = now_s
            if not elements:  # before anything is written that is to be judged by it
                say("begin", number=reader.epoch)
            file.write(hash_of(element))
            elements += 1
            if elements % _STEP == 0:
                time.sleep(_STEP_S)  # stands for the model's work on a batch
            asked_s = time.monotonic()
    _told_wait(asked_s)
    return elements


def _told_wait(asked_s: float) -> float:
    """Now, having told of the wait since `asked_s` if it was long."""
    now_s = time.monotonic()
    if now_s - asked_s >= _WAIT_S:
        say("wait", begin_s=asked_s, end_s=now_s)
    return now_s


def main() -> None:
    """The process: its one argument is a JSON object with data, service and timing."""
    from ..cli.logs import configure
    from ..errors import UsageError
    from ..timing import Timing

    if len(sys.argv) != 2:
        raise UsageError("this is a part of `penstock soak`, and started by it")
    options = json.loads(sys.argv[1])
    configure("info", "human")
    timing = dataclasses.replace(Timing(), **options["timing"])
    serve(Path(options["data"]), options["service"], timing)


if __name__ == "__main__":
    main()
