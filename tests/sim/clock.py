"""Virtual time: one queue of events, processes that can be paused and killed, and their loops."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from penstock.testing.disk import Crash

T = TypeVar("T")
Handler = Callable[..., Any]
#: Virtual time begins here; zero would hide a clock that was never set.
START_S = 1000.0


class Timer:
    """Something that will happen; `cancel` takes it back."""

    __slots__ = ("args", "handler", "owner")

    def __init__(self, owner: Process | None, handler: Handler, args: tuple[Any, ...]) -> None:
        self.owner = owner
        self.handler: Handler | None = handler
        self.args = args

    def cancel(self) -> None:
        self.handler = None


class Clock:
    """The queue of all that will happen, in the order of virtual time."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.events = 0
        self._queue: list[tuple[float, int, Timer]] = []
        self._numbered = 0

    def at(self, when_s: float, owner: Process | None, handler: Handler, *args: Any) -> Timer:
        timer = Timer(owner, handler, args)
        self._numbered += 1
        heapq.heappush(self._queue, (max(when_s, self.now_s), self._numbered, timer))
        return timer

    def step(self) -> bool:
        """Lets the next thing happen; False if nothing is left."""
        while self._queue:
            when_s, _, timer = heapq.heappop(self._queue)
            handler, owner = timer.handler, timer.owner
            if handler is None:
                continue
            if owner is not None and not owner.alive:
                continue
            self.now_s = when_s
            if owner is not None and owner.paused:
                owner.backlog.append(timer)
                continue
            self.events += 1
            handler(*timer.args)
            return True
        return False


@contextlib.contextmanager
def virtual_time(clock: Clock) -> Iterator[None]:
    """What reads the clock of the machine reads the virtual one, as long as the body runs."""
    real_monotonic, real_time = time.monotonic, time.time
    time.monotonic = time.time = lambda: clock.now_s
    try:
        yield
    finally:
        time.monotonic, time.time = real_monotonic, real_time


class Process:
    """One life of a process. What belongs to it happens only while it is alive and not paused."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name
        self.alive = True
        self.paused = False
        self.backlog: deque[Timer] = deque()
        self.on_death: list[Callable[[], None]] = []

    def after(self, delay_s: float, handler: Handler, *args: Any) -> Timer:
        return self.clock.at(self.clock.now_s + delay_s, self, handler, *args)

    def pause(self) -> None:
        """SIGSTOP: what comes waits."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what came meanwhile happens now, in the order in which it came."""
        if self.alive and self.paused:
            self.paused = False
            backlog, self.backlog = self.backlog, deque()
            for timer in backlog:
                if timer.handler is not None:
                    # Through the queue, as the same timer: it may still be cancelled.
                    self.clock._numbered += 1
                    entry = (self.clock.now_s, self.clock._numbered, timer)
                    heapq.heappush(self.clock._queue, entry)

    def kill(self) -> None:
        """SIGKILL: nothing of it happens any more."""
        if self.alive:
            self.alive = False
            self.backlog.clear()
            hooks, self.on_death = self.on_death, []
            for hook in hooks:
                hook()


class ProcessLoop(asyncio.AbstractEventLoop):
    """An asyncio loop whose time is virtual and whose turns are events of one process.

    Args:
        process: whose loop it is.
        rng: how long threads take.
        turn_s: longest time that a turn of the loop takes; 0 runs turns at once.
        on_error: is told of what nobody caught.
        on_crash: is called when the simulated disk ends the process.
    """

    def __init__(
        self,
        process: Process,
        rng: random.Random,
        *,
        turn_s: float,
        disk_s: float,
        on_error: Callable[[str], None],
        on_crash: Callable[[], None],
    ) -> None:
        self.process = process
        self._rng = rng
        self._turn_s = turn_s
        self._disk_s = disk_s
        self._on_error = on_error
        self._on_crash = on_crash
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        process.on_death.append(self._end)

    def time(self) -> float:
        return self.process.clock.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Handler, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self.process.alive:
            self._ready.append(handle)
            self._wake()
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Handler, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Handler, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.process.clock.at(when, self.process, self._due, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name or "sim")
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = self.create_future()
        self.process.after(self._rng.uniform(0, self._disk_s), self._work, future, func, args)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.process.alive:
            error = context.get("exception")
            self._on_error(f"{self.process.name}: {context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The queue finds out by itself."""

    def _work(self, future: asyncio.Future[T], func: Callable[..., T], args: Any) -> None:
        """What a thread does. Its result is known a little later: the process may die between."""
        delay_s = self._rng.uniform(0, self._disk_s)
        try:
            result = func(*args)
        except Crash:
            self._on_crash()
        except Exception as error:
            self.process.after(delay_s, _settle, future, None, error)
        else:
            self.process.after(delay_s, _settle, future, result, None)

    def _due(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._ready.append(handle)
            self._wake()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.process.after(self._rng.uniform(0, self._turn_s), self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        previous = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._ready and self.process.alive:
                for _ in range(len(self._ready)):
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        handle._run()
                if self._turn_s:
                    break
        finally:
            asyncio._set_running_loop(previous)
        if self._ready:
            self._wake()

    def _end(self) -> None:
        """The process was killed: its coroutines go nowhere, and are not to be complained about."""
        self._ready.clear()
        tasks, self._tasks = list(self._tasks), {}
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            assert coroutine is not None
            with contextlib.suppress(RuntimeError):
                coroutine.close()


def _settle(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    if not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
