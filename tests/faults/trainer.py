"""A trainer that needs no TensorFlow: reads one epoch of a stream that was analysed before.

Usage: python trainer.py ADDRESS STREAM SEED OUT LEDGER. STREAM is a file that `write_stream` made.
OUT gets a line with each element before the next one is taken, LEDGER is a ledger directory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from penstock import Timing
from penstock.client.epoch import StreamInfo
from penstock.client.events import EndOfEpoch
from penstock.client.options import checked_options
from penstock.client.positions import Counting, Positions, Rate
from penstock.client.runs import runs_of
from penstock.client.session import Session
from penstock.proto.control_pb2 import RuleStepRequest
from penstock.proto.spec import ComponentSpec

_TAKE_BYTES = 512
_TIMING = Timing(retry_max_s=0.2, rpc_deadline_s=4.0)


def write_stream(path: Path, stream: StreamInfo) -> None:
    """Writes down all that a client has to know of a stream."""
    components = [spec.to_wire() for spec in stream.components]
    fields = (stream.fingerprint, stream.num_splits, stream.weights, stream.replayable)
    path.write_bytes(msgpack.packb([*fields, components, stream.graph]))


def read_stream(path: Path) -> StreamInfo:
    """What `write_stream` wrote."""
    fingerprint, splits, weights, replayable, components, graph = msgpack.unpackb(path.read_bytes())
    specs = tuple(ComponentSpec.from_wire(value) for value in components)
    weights = None if weights is None else tuple(weights)
    return StreamInfo(fingerprint, splits, weights, replayable, specs, graph)


def elements(
    service: Any, stream: StreamInfo, *, seed: int, ledger: Path | None = None
) -> Iterator[str]:
    """One epoch, element by element, of a stream of strings."""
    options = checked_options(seed=seed, lanes=4, block=4, ledger=ledger, timing=_TIMING)
    session = Session(service, (stream,), options)
    try:
        epoch = session.read()
        counting = Counting(stream.fingerprint, (Rate(),))
        positions = Positions(session.start().history, counting, None, rebuilt=False)
        try:
            taken_once = False
            while not isinstance(taken := epoch.take(_TAKE_BYTES), EndOfEpoch):
                assert taken is not None
                if not taken_once:
                    taken_once = True
                    session.commit(positions.at(1, None, 1))
                    rule(session)
                for arrays in runs_of(taken.pieces):
                    yield from (value.decode() for value in arrays[0])
        finally:
            epoch.close()
    finally:
        session.close()


def rule(session: Session) -> None:
    """Asks the dispatcher about a failed step, as the only rank of a training."""
    control, job = session.start_control()
    request = RuleStepRequest(
        group=job.client, ranks=1, action="skip", fingerprint="f", hold_ms=1000, vote_ms=1000
    )
    assert control.rule_step(request).action == "skip"
    request.action = "retry"
    assert control.rule_step(request).action == "skip", "what was ruled stands"


def main(service: str, stream: Path, seed: int, out: Path, ledger: Path) -> None:
    """Consumes one epoch."""
    with out.open("w") as file:
        for element in elements(service, read_stream(stream), seed=seed, ledger=ledger):
            file.write(element + "\n")
            file.flush()


if __name__ == "__main__":
    address, stream, seed, out, ledger = sys.argv[1:]
    main(address, Path(stream), int(seed), Path(out), Path(ledger))
