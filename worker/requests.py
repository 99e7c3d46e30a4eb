"""What the agent tells the dispatcher and hears from it, as messages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..proto import control_pb2
from ..proto.wire import PROTOCOL_VERSION
from .messages import Assignment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .last_words import Doing
    from .messages import Held, Key


@dataclass(frozen=True, slots=True)
class Identity:
    """What a worker says of itself when it registers; see `RegisterWorkerRequest`."""

    incarnation: str
    address: str
    unix_path: str
    host_id: str
    slots: int
    standby: bool
    tensorflow_version: str
    pid: int
    limited: str = ""
    killed: tuple[Doing, ...] = ()
    last_exit: int = 0


def registration(
    me: Identity, offered: Iterable[tuple[Key, int]]
) -> control_pb2.RegisterWorkerRequest:
    """The request with which a worker introduces itself.

    Args:
        me: who it is.
        offered: splits that need not be made from their beginning, and the elements before that.
    """
    return control_pb2.RegisterWorkerRequest(
        protocol_version=PROTOCOL_VERSION,
        incarnation=me.incarnation,
        address=me.address,
        unix_path=me.unix_path,
        host_id=me.host_id,
        slots=me.slots,
        standby=me.standby,
        tensorflow_version=me.tensorflow_version,
        pid=me.pid,
        limited=me.limited,
        last_exit=me.last_exit,
        killed=[control_pb2.KilledSplit(**asdict(doing)) for doing in me.killed],
        checkpoints=[
            control_pb2.Checkpoint(
                dataset=key.dataset,
                seed=key.seed,
                epoch=key.epoch,
                split=key.split,
                elements=elements,
            )
            for key, elements in offered
        ],
    )


def held_message(held: Held) -> control_pb2.HeldAttempt:
    """What is told of one attempt."""
    return control_pb2.HeldAttempt(
        attempt=held.attempt,
        state=held.state.name,
        elements=held.elements,
        code=held.code,
        detail=held.detail,
        restored=held.restored,
        recomputed=held.recomputed,
        waiting=held.waiting,
        element=held.element,
        exceptions=held.exceptions,
    )


def assignment_of(spec: control_pb2.AttemptSpec) -> Assignment:
    """What is wanted, as it came."""
    return Assignment(
        attempt=spec.attempt,
        job=spec.job,
        stream=spec.stream,
        epoch=spec.epoch,
        split=spec.split,
        dataset=spec.dataset,
        seed=spec.seed,
        trial=spec.trial,
        cache=spec.cache or "off",
        bad=tuple(spec.bad),
    )
