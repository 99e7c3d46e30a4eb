"""Threads that are used again: a new one for each task would be dear.

TensorFlow and the allocator keep what they have found out by thread. In a new one each function of
a pipeline is looked up among all kernels once more, which was a sixth of a worker's processor time
with large elements. There is a thread for each task that runs, however many there are, since one
may hang and must not keep another from its start; so nothing is ever queued. The standard pool
waits for its threads when the process ends, and these may never end.
"""

from __future__ import annotations

import threading
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
        self._run = run
        self._over = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits until it has ended; False if it has not in time."""
        return self._over.wait(timeout_s)

    def carry_out(self) -> None:
        """Does it, in this thread."""
        try:
            self._run()
        finally:
            self._over.set()


class Threads:
    """As many daemon threads as there are tasks at a time."""

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[_Seat] = []

    def start(self, task: Task) -> None:
        """Begins a task at once, in a thread that is idle or in a new one."""
        with self._lock:
            seat = self._idle.pop() if self._idle else None
            if seat is not None:
                seat.task = task
                seat.changed.notify()
                return
        seat = _Seat(threading.Condition(self._lock), task)
        threading.Thread(target=self._main, args=(seat,), name=task.name, daemon=True).start()

    def _main(self, seat: _Seat) -> None:
        while (task := seat.task) is not None:
            threading.current_thread().name = task.name
            seat.task = None
            task.carry_out()
            del task  # what it refers to must not live on in an idle thread
            with self._lock:
                self._idle.append(seat)
                seat.changed.wait_for(lambda: seat.task is not None, self._idle_s)
                if seat.task is None:
                    self._idle.remove(seat)


class _Seat:
    """What a thread waits at."""

    def __init__(self, changed: threading.Condition, task: Task | None) -> None:
        self.changed = changed
        self.task = task
