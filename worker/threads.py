"""Threads that are used again: a new one for each task would be dear.

TensorFlow and the allocator keep what they have found out by thread. In a new one each function of
a pipeline is looked up among all kernels once more, which was a sixth of a worker's processor time
with large elements. There is a thread for each task that runs, however many there are, since one
may hang and must not keep another from its start; so nothing is ever queued. The standard pool
waits for its threads when the process ends, and these may never end.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: A thread that has nothing to do for so long ends.
_IDLE_S = 60.0


class Task:
    """Something that runs in a thread, from its start to its end.

    Args:
        name: of its thread, as long as it runs.
        run: what is done; it should not raise.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.run = run
        self.over = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        """Waits until it has ended; False if it has not in time."""
        return self.over.wait(timeout_s)


class Threads:
    """As many daemon threads as there are tasks at a time.

    Args:
        idle_s: a thread that has nothing to do for so long ends.
    """

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[_Seat] = []
        self._closed = False

    def start(self, task: Task) -> None:
        """Begins a task at once, in a thread that is idle or in a new one."""
        with self._lock:
            if self._idle:
                self._idle.pop().take(task)
                return
        seat = _Seat(threading.Condition(self._lock), task)
        thread = threading.Thread(target=self._main, args=(seat,), name=task.name, daemon=True)
        seat.thread = thread
        thread.start()

    def close(self, end: float) -> None:
        """Ends the idle threads and waits for them, until `end` (monotonic); others end later."""
        with self._lock:
            self._closed = True
            seats = self._idle
            self._idle = []
            for seat in seats:
                seat.take(None)
        for seat in seats:
            seat.thread.join(max(0.0, end - time.monotonic()))

    def _main(self, seat: _Seat) -> None:
        while (task := seat.task) is not None:
            seat.thread.name = task.name
            seat.task = None
            over = task.over
            try:
                task.run()
            except BaseException:
                over.set()
                raise
            del task  # what it refers to must not live on in an idle thread
            self._await_task(seat, over)

    def _await_task(self, seat: _Seat, over: threading.Event) -> None:
        with self._lock:
            over.set()  # not before the thread can be had: who closes waits for both
            if self._closed:
                return
            self._idle.append(seat)
            seat.changed.wait_for(lambda: seat not in self._idle, self._idle_s)
            if seat in self._idle:
                self._idle.remove(seat)


class _Seat:
    """What a thread waits at, and what it is to do next; None: it ends."""

    thread: threading.Thread

    def __init__(self, changed: threading.Condition, task: Task) -> None:
        self.changed = changed
        self.task: Task | None = task

    def take(self, task: Task | None) -> None:
        """Wakes the thread, which is idle, with the lock held."""
        self.task = task
        self.changed.notify()
