"""A real MultiWorkerMirroredStrategy training, scaled 2 -> 1 -> 2 by killing and adding."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock import LocalCluster

from .consumer import Told
from .mirrored_trainer import COUNT


def free_ports(count: int) -> str:
    """Ports that nobody listens at."""
    with ExitStack() as sockets:
        found = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return ",".join(str(one.getsockname()[1]) for one in found)


@pytest.mark.timeout(240)
def test_a_mirrored_training_that_is_scaled_down_and_up_accounts_for_every_element(
    shared_cluster: LocalCluster, tmp_path: Path
) -> None:
    trained: Counter[int] = Counter()
    weights = tmp_path / "weights"
    with ExitStack() as processes:

        def workers(count: int) -> list[Told]:
            ports = free_ports(count)
            out = []
            for rank in range(count):
                arguments = (shared_cluster.address, "mirrored", rank, ports, weights)
                out.append(Told("mirrored_trainer", *arguments))
                processes.callback(out[-1].close)
            return out

        def steps(workers: list[Told], count: int) -> Counter[int]:
            for worker in workers:
                worker.tell(f"steps {count}")
            return sum((Counter(worker.answer()) for worker in workers), Counter())

        def save(workers: list[Told]) -> None:
            for worker in workers:
                assert worker.ask("save") == []

        two = workers(2)
        trained += steps(two, 10)
        save(two)
        lost = steps(two, 3)
        for worker in two:  # the one that is left could not go on alone
            worker.kill()
        (alone,) = workers(1)
        again = steps([alone], 15)
        assert set(lost) <= set(again), "what no checkpoint holds comes again"
        trained += again
        save([alone])
        alone.kill()
        two = workers(2)
        trained += steps(two, 1000)
        assert trained == Counter(range(COUNT))
        assert [worker.ask("weight") for worker in two] == [float(sum(range(COUNT)))] * 2
