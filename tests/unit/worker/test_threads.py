"""Threads are used again, however many tasks there are at a time, and end when idle."""

from __future__ import annotations

import threading

from penstock.worker.threads import Task, Threads


def run_all(threads: Threads, count: int) -> set[int]:
    """Runs so many tasks at the same time; the threads that did."""
    ids: set[int] = set()
    together = threading.Barrier(count + 1)

    def work() -> None:
        ids.add(threading.get_ident())
        together.wait(60)

    tasks = [Task(f"task-{number}", work) for number in range(count)]
    for task in tasks:
        threads.start(task)
    together.wait(60)  # broken if one of them waited for another one's thread
    assert all(task.wait(60) for task in tasks)
    return ids


def test_every_task_starts_at_once_and_threads_are_used_again() -> None:
    threads = Threads()
    first = run_all(threads, 8)
    assert len(first) == 8
    seen = set(first)
    for _ in range(20):
        seen |= run_all(threads, 4)
    assert len(seen) < 8 + 20 * 4 / 2  # a task may start before a thread is back from the last one


def test_a_thread_has_the_name_of_its_task() -> None:
    threads, names = Threads(), []
    for name in ("one", "two"):
        task = Task(name, lambda: names.append(threading.current_thread().name))
        threads.start(task)
        assert task.wait(60)
    assert names == ["one", "two"]


def test_a_task_that_raises_is_over_and_its_thread_goes_on() -> None:
    threads = Threads()

    def fail() -> None:
        raise ValueError("of the task")

    told = threading.Event()
    before = threading.excepthook
    threading.excepthook = lambda args: told.set()
    try:
        task = Task("fails", fail)
        threads.start(task)
        assert task.wait(60)
        assert told.wait(60)
    finally:
        threading.excepthook = before
    assert len(run_all(threads, 2)) == 2


def test_idle_threads_end() -> None:
    threads = Threads(idle_s=0.0)
    ended = []

    def work() -> None:
        ended.append(threading.current_thread())

    task = Task("short", work)
    threads.start(task)
    assert task.wait(60)
    ended[0].join(60)
    assert not ended[0].is_alive()
    assert len(run_all(threads, 2)) == 2


def test_what_a_task_held_is_freed_when_it_is_over() -> None:
    threads, freed = Threads(), threading.Event()

    class Held:
        def __del__(self) -> None:
            freed.set()

    held = Held()
    threads.start(Task("holds", lambda held=held: None))  # type: ignore[misc]
    del held
    assert freed.wait(60)
