"""One process of a PyTorch `DistributedDataParallel` training (gloo), without TensorFlow.

`python -m tests.cluster.ddp_trainer ADDRESS JOB RANK PORTS WEIGHTS FINGERPRINT` does as it is told,
as `mirrored_trainer` does: its weight is the sum of all that was ever trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from penstock.client.reader import Reader

from .consumer import TIMING
from .mirrored_trainer import BATCH, follow


class Model:
    """The weight, and a step of all processes together.

    Args:
        weight: what it was.
        rank: of this process.
        ports: one for each process; the first process listens at the first one.
    """

    def __init__(self, weight: float, rank: int, ports: list[str]) -> None:
        import torch
        from torch import distributed
        from torch.nn.parallel import DistributedDataParallel

        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{ports[0]}",
            rank=rank,
            world_size=len(ports),
        )
        layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.fill_(weight)
        self._world = len(ports)
        self._layer = layer
        self._parallel = DistributedDataParallel(layer)

    @property
    def value(self) -> float:
        """The weight."""
        return float(self._layer.weight.item())

    def step(self, elements: list[int]) -> bool:
        """Trains on what this process has; whether any process had something."""
        import torch
        from torch import distributed

        values = torch.tensor(elements + [0] * (BATCH - len(elements)), dtype=torch.float64)
        self._parallel.zero_grad()
        # The gradients of all processes are averaged, so this makes their sum of it.
        (self._world * self._parallel(values.reshape(-1, 1)).sum()).backward()
        with torch.no_grad():
            self._layer.weight.add_(self._layer.weight.grad)
        some = torch.tensor([float(bool(elements))])
        distributed.all_reduce(some)
        return float(some.item()) > 0


def main(address: str, job: str, rank: int, ports: list[str], weights: Path, stream: str) -> None:
    """Trains as it is told."""
    model = Model(float(weights.read_text()) if weights.exists() else 0.0, rank, ports)
    with Reader(
        stream,
        address,
        job_name=job,
        seed=5,
        consumer=(rank, len(ports)),
        restore="committed",
        timing=TIMING,
    ) as reader:
        follow(model, reader, batches(reader), rank, weights, batch=BATCH)


def batches(reader: Reader) -> Iterator[list[int]]:
    """The elements of an epoch in batches: a stream has what its workers make, single ones here."""
    numbers = (int(element[0]) for element in reader)
    while batch := list(islice(numbers, BATCH)):
        yield batch


if __name__ == "__main__":
    main(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4].split(","), Path(sys.argv[5]), sys.argv[6])
