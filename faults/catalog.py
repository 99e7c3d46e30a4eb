"""The fault tests. A new one is a function that acts on a stage, and an entry in `TESTS`.

When `act` is called, the trainer reads; it is held at each of the test's moments, all in the
epoch `struck`, until it is released. What `act` leaves behind is judged by what the trainer was
given; what else must be true, it says itself (`Stage.expect`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cache import cache_problems
from .checkpoints import replay_problems
from .data import FILES
from .stage import entry_of
from .tear import tear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .stage import Picture, Stage

#: How often the dispatcher is killed in one epoch, and the time at which its journal is torn.
_DISPATCHER_KILLS = 3
_TORN = 1
#: For how long the workers are away whose cache is tested, in seconds.
_DOWN_S = 3.0


@dataclass(frozen=True, slots=True)
class FaultTest:
    """A test.

    Attributes:
        name: for the command line.
        title: what happens, in a line.
        act: does the faults, and checks what is not in the data.
        workers, standbys, standby_dispatcher: the cluster.
        checkpoints: the workers take checkpoints, as often as they can.
        strikes: how many moments there are at which the trainer is held.
        struck: the epoch in which they are; by default the second.
        cache: how the job uses caches, with `.cache()` at the pipeline's end; empty: without it.
        commits: the trainer commits a position after every batch, and goes on there.
    """

    name: str
    title: str
    act: Callable[[Stage], None]
    workers: int = 1
    standbys: int = 0
    standby_dispatcher: bool = False
    checkpoints: bool = False
    strikes: int = 1
    struck: int = 1
    cache: str = ""
    commits: bool = False


def _nothing(stage: Stage) -> None:
    """Acts for a test without faults."""
    del stage


def _failover(stage: Stage) -> None:
    victim, standby = stage.cluster.workers
    stage.reach_checkpoint()
    stage.kill(victim)
    stage.release()

    def taken_over(picture: Picture) -> bool:
        states = [entry_of(picture, one.worker_id).get("state") for one in (victim, standby)]
        return states == ["lost", "live"]

    stage.until(taken_over, "the standby to take over")
    stage.finish()
    made = {one.worker for one in stage.attempts.values()}
    stage.expect(standby.worker_id in made, "the standby made nothing of the epoch")


def _recover(stage: Stage) -> None:
    (worker,) = stage.cluster.workers
    stage.reach_checkpoint()
    before = set(stage.attempts)
    stage.kill(worker)
    kept = stage.kept()
    stage.cluster.restart_worker(worker, wait=False)
    stage.release(step=True)

    def gone_on(_: Picture) -> bool:
        # A split of so small an epoch can be over between two looks, so each batch waits for one.
        if stage.consumer.held and stage.look() and not stage.restored:
            stage.release(step=True)
        return stage.restored > 0

    stage.until(gone_on, "a split to be restored from a checkpoint")
    stage.release()
    stage.cluster.workers[0].wait_ready()
    stage.finish()
    again = [one for number, one in stage.attempts.items() if number not in before]
    stage.problems += replay_problems(again, kept)
    stage.told.append(f"{stage.restored} splits went on at their checkpoints")


def _killall(stage: Stage) -> None:
    cluster = stage.cluster
    stage.reach_checkpoint(workers=len(cluster.workers))
    stage.kill(cluster.dispatcher, *cluster.workers)
    term = stage.term
    cluster.restart_dispatcher(wait=False)
    for worker in list(cluster.workers):
        cluster.restart_worker(worker, wait=False)
    stage.release()
    for daemon in (cluster.dispatcher, *cluster.workers):
        daemon.wait_ready()
    stage.finish()
    stage.expect(stage.term == term + 1, f"the dispatcher's term is {stage.term}, not {term + 1}")
    stage.expect(stage.restored > 0, "no split was restored from a checkpoint")


def _dispatcher(stage: Stage) -> None:
    terms = []
    for kill in range(_DISPATCHER_KILLS):
        stage.reach()
        stage.kill(stage.cluster.dispatcher)
        terms.append(stage.term)
        if kill == _TORN:
            nbytes = tear(stage.cluster.directory / "journal")
            stage.expect(nbytes > 0, "the journal's last record could not be torn")
            stage.note(f"{nbytes} bytes of a torn record at the journal's end")
        stage.release()
        stage.cluster.restart_dispatcher()
    stage.finish()
    stage.expect(
        [*terms, stage.term] == list(range(terms[0], terms[0] + _DISPATCHER_KILLS + 1)),
        f"the dispatcher's terms were {[*terms, stage.term]}",
    )
    _expect_nothing_again(stage)


def _standby_dispatcher(stage: Stage) -> None:
    stage.reach()
    stage.kill(stage.cluster.dispatcher)
    term = stage.term
    stage.release()
    stage.until(lambda _: stage.term > term, "the standby dispatcher to take over")
    stage.finish()
    _expect_nothing_again(stage)


def _pause(stage: Stage) -> None:
    late = stage.cluster.workers[0]
    stage.reach()
    stage.look()
    void = {number for number, one in stage.attempts.items() if one.worker == late.worker_id}
    stage.expect(bool(void), f"{late.name} made nothing of the epoch")
    stage.pause(late)
    stage.release()

    def lost(picture: Picture) -> bool:
        if stage.consumer.held:  # too early: that would hide how long it has to wait
            stage.consumer.go_on(step=True)
        return entry_of(picture, late.worker_id).get("state") == "lost"

    stage.until(lost, f"the dispatcher to notice that {late.name} is silent")
    stage.reach()  # the others have its place by now
    stage.resume(late)
    stage.release()
    back = stage.until(
        lambda picture: entry_of(picture, late.worker_id).get("state") not in ("lost", None),
        f"{late.name} to come back",
    )
    entry = entry_of(back, late.worker_id)
    stage.expect(
        (entry["state"], entry["attempts"]) == ("standby", 0),
        f"{late.name} came back as {entry['state']} with {entry['attempts']} attempts, "
        "not as a standby without any",
    )
    listed = {
        one["attempt"]
        for job in back["jobs"]
        for stream in job["streams"]
        for one in stream["attempts"]
    }
    stage.expect(not void & listed, f"attempts {sorted(void & listed)} of {late.name} are not void")
    stage.finish()


def _trainer(stage: Stage) -> None:
    stage.reach()
    stage.kill_trainer()
    stage.begin_again()
    stage.finish()
    starts = [one.start for one in stage.consumer.received if one.start]
    stage.expect(bool(starts), "the new trainer did not go on at what was committed")
    stage.told += [f"it went on after {start:,} committed elements" for start in starts]


def _cached(stage: Stage) -> None:
    """Acts for a test of the cache without faults."""
    stage.finish()
    _expect_cache(stage)


def _kill_workers(stage: Stage) -> None:
    """In the middle of putting, or of getting, all workers die; they are back after a while."""
    stage.reach()
    workers = list(stage.cluster.workers)
    stage.kill(*workers)
    stage.release()
    stage.wait(_DOWN_S)
    for worker in workers:
        stage.cluster.restart_worker(worker, wait=False)
    for worker in stage.cluster.workers:
        worker.wait_ready()
    stage.finish()
    _expect_cache(stage)


def _expect_cache(stage: Stage) -> None:
    """Every split was cached, with the very elements of a local run, and was read from there."""
    problems, segments = cache_problems(stage.caches, stage.scene.truth.elements)
    stage.problems += problems
    stage.expect(stage.cached >= FILES, f"only {stage.cached} attempts read the cache")
    stage.told.append(f"{segments} segments hold each row once; {stage.cached} attempts read them")


def _expect_nothing_again(stage: Stage) -> None:
    stage.expect(not stage.recomputed, f"{stage.recomputed} elements were made again")


#: The readings that orders are compared with; nothing is cached in either.
UNDISTURBED = FaultTest("undisturbed", "one worker and no faults", _nothing, strikes=0)
UNDISTURBED_CACHED = FaultTest(
    "undisturbed-cached", "one worker, no faults and no cache", _nothing, strikes=0, cache="off"
)

TESTS: tuple[FaultTest, ...] = (
    FaultTest("nofail", "no faults: three workers", _nothing, workers=3, strikes=0),
    FaultTest(
        "nofail-cache",
        "no faults: three workers write the cache in the first epoch, and read it in the others",
        _cached,
        workers=3,
        strikes=0,
        cache="on",
    ),
    FaultTest(
        "getfail",
        "kill -9 of both workers while they read the cache; they are back after 3 s",
        _kill_workers,
        workers=2,
        cache="on",
    ),
    FaultTest(
        "putfail",
        "kill -9 of all three workers while they write the cache; they are back after 3 s",
        _kill_workers,
        workers=3,
        checkpoints=True,
        struck=0,
        cache="on",
    ),
    FaultTest(
        "failover",
        "kill -9 of the only worker: a standby takes over",
        _failover,
        standbys=1,
        checkpoints=True,
    ),
    FaultTest(
        "recover",
        "kill -9 of the only worker: restarted, it goes on from its checkpoints",
        _recover,
        checkpoints=True,
    ),
    FaultTest(
        "killall",
        "kill -9 of dispatcher and three workers: journal and checkpoints bring all back",
        _killall,
        workers=3,
        checkpoints=True,
    ),
    FaultTest(
        "dispatcher",
        "kill -9 of the dispatcher, three times in one epoch, once with a torn last record",
        _dispatcher,
        strikes=_DISPATCHER_KILLS,
    ),
    FaultTest(
        "standby-dispatcher",
        "kill -9 of the dispatcher: the second one takes over",
        _standby_dispatcher,
        standby_dispatcher=True,
    ),
    FaultTest(
        "pause",
        "SIGSTOP of a worker until it counts as dead, then SIGCONT: it is refused",
        _pause,
        workers=2,
        standbys=1,
        strikes=2,
    ),
    FaultTest(
        "trainer",
        "kill -9 of the trainer: restarted, it goes on at the position it committed last",
        _trainer,
        commits=True,
    ),
)


def names_of(tests: Sequence[FaultTest] = TESTS) -> list[str]:
    """The names of the tests, in their order."""
    return [test.name for test in tests]
