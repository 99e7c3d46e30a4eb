"""Who reads what from whom in a speed case: names, who is compared with whom, and the targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .targets import Target
from .ways import WAYS

if TYPE_CHECKING:
    from .pipelines import Pipeline

WORKERS = (1, 2, 4)
CLIENTS = (1, 4)
LOCAL, STOCK, STOCK_OFF, PENSTOCK = "local", "stock", "stock-off", "penstock"
#: What runs if the command line does not say: one worker, one client.
USUAL = (
    "local/*",
    *(f"{STOCK}/tcp/{way}/w1" for way in WAYS),
    *(f"{PENSTOCK}/{transport}/{way}/w1" for transport in ("unix", "tcp") for way in WAYS),
    f"{PENSTOCK}/tls/eager/w1",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant.

    Attributes:
        system: local, stock, stock-off (which does not share the source out) or penstock.
        way: one of `WAYS`.
        transport: tcp, unix, tls; empty for the local one, as the following are 0.
        workers: of the cluster.
        clients: processes that read at once, each an epoch of its own.
    """

    system: str
    way: str
    transport: str = ""
    workers: int = 0
    clients: int = 1

    @property
    def name(self) -> str:
        """`penstock/unix/batched/w1`, with `/c4` for several clients; `local/batched`."""
        if self.system == LOCAL:
            return f"{LOCAL}/{self.way}"
        name = f"{self.system}/{self.transport}/{self.way}/w{self.workers}"
        return name if self.clients == 1 else f"{name}/c{self.clients}"

    @property
    def rivals(self) -> dict[str, str]:
        """Whom it is compared with: stock over TCP, which has nothing else, and the local run."""
        if self.system == LOCAL:
            return {}
        rivals = {"stock": replace(self, system=STOCK, transport="tcp").name}
        if self.system == STOCK:
            rivals = {}
        if self.clients == 1:
            rivals["local"] = Entry(LOCAL, self.way).name
        return rivals

    def elements(self, pipeline: Pipeline, *, quick: bool) -> int:
        """How many elements each of its clients reads."""
        sizes = pipeline.sizes
        if self.system in (STOCK, STOCK_OFF):
            # A batch that the pipeline makes itself is one element for it.
            elements = sizes.bulk if pipeline.inner and self.way != "batched" else sizes.stock
        elif self.way == "reduce":
            elements = min(2 * sizes.loop, sizes.bulk)  # TensorFlow calls a function for each
        else:
            elements = sizes.loop if self.way == "eager" else sizes.bulk
        return pipeline.rounded(elements // self.clients // (10 if quick else 1))


def entries() -> list[Entry]:
    """Every contestant that there is."""
    made = [Entry(LOCAL, way) for way in WAYS]
    services = [(STOCK, "tcp"), (STOCK_OFF, "tcp")]
    services += [(PENSTOCK, transport) for transport in ("unix", "tcp", "tls")]
    for system, transport in services:
        for workers in (1,) if system == STOCK_OFF else WORKERS:  # else elements come many times
            for clients in CLIENTS:
                made += [Entry(system, way, transport, workers, clients) for way in WAYS]
    return made


def targets(pipeline: str) -> tuple[Target, ...]:
    """What is wished of a case, of the table that is usual."""
    wished = []
    for way, transport, bound in _TIMES_STOCK.get(pipeline, ()):
        name = f"{PENSTOCK}/{transport}/{way}/w1"
        wished.append(Target("times stock", name, "times_stock", bound))
    for way, transport, bound in _TIMES_LOCAL.get(pipeline, ()):
        name = f"{PENSTOCK}/{transport}/{way}/w1"
        wished.append(Target("times the local run", name, "times_local", bound))
    eager = f"{PENSTOCK}/unix/eager/w1"
    return (
        *wished,
        Target("seconds to the first element", eager, "first_s", 1.0, at_most=True),
        Target("CPU of the client for each GB, times stock's", eager, "client_cpu", 0.5, True),
        Target("CPU of workers for each GB, times stock's", eager, "worker_cpu", 0.5, True),
    )


_TIMES_STOCK = {
    "scalars": (("eager", "unix", 10.0), ("batched", "unix", 100.0)),
    "vectors": (("eager", "unix", 8.0),),
    "images": (("eager", "unix", 5.0),),
    "batches": (("eager", "unix", 4.0), ("eager", "tcp", 3.0)),
    "jpeg": (("eager", "unix", 1.15),),
    "strings": (("eager", "unix", 5.0),),
}
_TIMES_LOCAL = {
    "scalars": (("eager", "unix", 0.9),),
    "vectors": (("eager", "unix", 0.9),),
    "jpeg": (("eager", "unix", 0.9),),
}
