"""The process that puts load on a dispatcher: many simulated peers in one event loop.

`python -m penstock.bench.swarm` answers what `children` asks; see `answers`.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .answers import serve
from .processes import process_cpu_s, process_rss_bytes
from .simulated import Tally, Trainer, Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine


@dataclass(frozen=True, slots=True)
class Load:
    """What is done to a dispatcher.

    Attributes:
        address: of the dispatcher.
        pid: its process.
        workers: how many.
        slots: attempts that each of them holds ahead of need.
        split_s: how long a worker takes to make a split; 0 for no time.
        splits: of an epoch; 0 for no trainer.
        warm_s: how long it runs before it is measured.
        seconds: how long it is measured.
        epochs: if this is not 0, it runs for so many epochs instead, and each is measured.
        heartbeat_s: time between heartbeats without news.
    """

    address: str
    pid: int
    workers: int
    slots: int = 8
    split_s: float = 0.0
    splits: int = 0
    warm_s: float = 2.0
    seconds: float = 5.0
    epochs: int = 0
    heartbeat_s: float = 1.0


class Swarm:
    """All peers of one load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._tally = Tally()
        self._epochs: list[tuple[float, float]] = []  # when each ended, and the CPU seconds then
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> dict[str, Any]:
        """Puts the load on, measures, and takes it off again."""
        load, tally = self._load, self._tally
        trainer = Trainer(
            load.address,
            splits=load.splits,
            heartbeat_s=load.heartbeat_s,
            tally=tally,
            finished=self._finished,
        )
        workers = [
            Worker(
                load.address,
                number,
                slots=load.slots,
                split_s=load.split_s,
                heartbeat_s=load.heartbeat_s,
                tally=tally,
                made=trainer.made,
            )
            for number in range(load.workers)
        ]
        try:
            for worker in workers:
                await worker.register()
                self._start(worker.run())
            if load.splits:
                await trainer.open()
                self._start(trainer.run())
            return await (self._count_epochs() if load.epochs else self._watch())
        finally:
            peers = (trainer, *workers)
            for peer in peers:
                peer.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(peer.close() for peer in peers))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A peer never ends by itself: whatever ended it ends all."""
        if not task.cancelled():
            self._over.set()

    async def _watch(self) -> dict[str, Any]:
        load, tally = self._load, self._tally
        await self._sleep(load.warm_s)
        began_s, cpu_s, own_s = time.monotonic(), process_cpu_s(load.pid) or 0.0, os.times()
        tally.assigned = tally.heartbeats = 0
        tally.latencies_s = []
        await self._sleep(load.seconds)
        seconds = time.monotonic() - began_s
        cpu_s = (process_cpu_s(load.pid) or 0.0) - cpu_s
        own = os.times()
        latencies_s = sorted(tally.latencies_s)
        return {
            "seconds": seconds,
            "assigned": tally.assigned,
            "heartbeats": tally.heartbeats,
            "cpu_s": cpu_s,
            "swarm_cpu_s": own.user + own.system - own_s.user - own_s.system,
            "rss_bytes": process_rss_bytes(load.pid),
            "p50_s": statistics.median(latencies_s) if latencies_s else None,
            "p99_s": latencies_s[len(latencies_s) * 99 // 100] if latencies_s else None,
        }

    async def _count_epochs(self) -> dict[str, Any]:
        self._epochs.append((time.monotonic(), process_cpu_s(self._load.pid) or 0.0))
        await self._over.wait()
        self._raise()
        return {"epochs": self._epochs, "rss_bytes": process_rss_bytes(self._load.pid)}

    def _finished(self, _epoch: int) -> None:
        self._epochs.append((time.monotonic(), process_cpu_s(self._load.pid) or 0.0))
        if self._load.epochs and len(self._epochs) > self._load.epochs:
            self._over.set()

    async def _sleep(self, seconds: float) -> None:
        """Lets the load run for so long; raises what ended a peer meanwhile."""
        waiting = asyncio.ensure_future(self._over.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()
        self._raise()

    def _raise(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()


class Swarms:
    """Answers what it is asked."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what the request says, and returns what came of it, or what went wrong."""
        if request["do"] == "ready":
            return {"pid": os.getpid()}
        arguments = {name: value for name, value in request.items() if name != "do"}
        try:
            return asyncio.run(_run(Load(**arguments)))
        except Exception as error:  # whatever a peer was refused with is the answer
            return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}


async def _run(load: Load) -> dict[str, Any]:
    return await Swarm(load).run()


if __name__ == "__main__":
    serve(Swarms().answer)
