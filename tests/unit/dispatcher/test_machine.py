"""G1, G7, G8 in the pure core: any history keeps the invariants, and its journal replays to it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.dispatcher import admission, event_records, failover, progress, scheduler
from penstock.dispatcher import events as ev
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.faults import worker_faults
from penstock.dispatcher.offers import Offers
from penstock.dispatcher.recover import replay
from penstock.dispatcher.reports import Progress
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import State
from penstock.dispatcher.validate import validate
from penstock.errors import JobFailedError, PenstockError, RefusedError
from penstock.proto import control_pb2 as pb
from penstock.proto.wire import PROTOCOL_VERSION
from penstock.recovery.extensions import Answer
from penstock.recovery.failover import Budgets, FailureKind
from penstock.recovery.strategy import FailoverStrategy

from .cluster import digest_of

SPLITS = 7
DATASET = "00112233"


def records_of(journal: Iterable[ev.Event]) -> list[tuple[int, bytes]]:
    return [(seq, event_records.encode(event)) for seq, event in enumerate(journal, 1)]


class DispatcherMachine(RuleBasedStateMachine):
    """Drives state, scheduler and request handling as the shell does, without a clock or I/O."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.journal: list[ev.Event] = []
        self.incarnations = 0
        self.produced: dict[str, set[int]] = {}
        self.offers = Offers()
        #: What each client holds: (job, client) -> epoch -> delivered splits.
        self.open: dict[tuple[str, str], dict[int, set[int]]] = {}
        self.finished: list[tuple[str, int]] = []
        self.highest_attempt = 0

    def commit(self, events: Iterable[ev.Event]) -> list[ev.Event]:
        done = list(events)
        for event in done:
            self.state.apply(event)
            self.journal.append(event)
            if isinstance(event, ev.AttemptAssigned):
                assert event.attempt > self.highest_attempt
                self.highest_attempt = event.attempt
            if isinstance(event, ev.EpochFinished):
                self.finished.append((event.job, event.epoch))
            validate(self.state, deal=True)
        return done

    def decide(self, strategy: FailoverStrategy = FailoverStrategy.NORMAL_FAILOVER) -> None:
        """Answers every open fault in the same way."""
        for number in list(self.state.failover.open):
            self.commit(failover.decide(self.state, number, Answer(strategy), Budgets()))
        assert not self.state.failover.open

    def schedule(self) -> None:
        for name in list(self.produced):
            worker = self.state.workers.get(name)
            self.produced[name] &= set(worker.attempts) if worker else set()
        for name in set(self.offers.by_worker) - set(self.state.workers):
            self.offers.forget(name)
        facts = Facts(produced=self.produced, offers=self.offers.by_worker)
        self.commit(scheduler.late_promotion(self.state))
        self.commit(scheduler.assignments(self.state, facts))
        assert not scheduler.assignments(self.state, facts)

    @initialize(slots=st.integers(1, 5), lanes=st.integers(1, 3))
    def begin(self, slots: int, lanes: int) -> None:
        info = pb.DatasetInfo(fingerprint=DATASET, num_splits=SPLITS, replayable=True)
        self.commit([ev.TermStarted(1)])
        self.commit(admission.register_dataset(self.state, info))
        self.register_worker(standby=False, slots=slots, port=1)
        self.open_job(name="a", lanes=lanes, takeover=True)
        self.open_an_epoch(self.clients()[0])

    @rule(
        standby=st.booleans(),
        slots=st.integers(1, 3),
        port=st.integers(1, 4),
        offered=st.lists(st.tuples(st.integers(0, 2), st.integers(0, SPLITS)), max_size=4),
    )
    def register_worker(
        self, standby: bool, slots: int, port: int, offered: Iterable[tuple[int, int]] = ()
    ) -> None:
        self.incarnations += 1
        request = pb.RegisterWorkerRequest(
            protocol_version=PROTOCOL_VERSION,
            incarnation=f"i{self.incarnations}",
            address=f"h:{port}",
            slots=slots,
            standby=standby,
        )
        self.commit(admission.register_worker(self.state, request))
        assert admission.register_worker(self.state, request) == []
        worker = admission.worker_of(self.state, request.incarnation)
        assert worker is not None
        seeds = [job.seed for job in self.state.jobs.values()]
        offers = [(DATASET, seed, *at) for seed in seeds for at in offered]
        wanted = self.offers.set(self.state, worker.worker, offers)
        assert self.offers.set(self.state, worker.worker, offers) == wanted
        for place in wanted:
            assert offers[place][3] < SPLITS
        self.schedule()

    @precondition(lambda self: self.state.lost)
    @rule(data=st.data())
    def a_lost_worker_registers_again(self, data: st.DataObject) -> None:
        lost = data.draw(st.sampled_from(list(self.state.lost.values())))
        request = pb.RegisterWorkerRequest(
            protocol_version=PROTOCOL_VERSION,
            incarnation=lost.incarnation,
            address=lost.address,
            slots=1,
        )
        remembered = list(self.state.lost.values())
        later = [*remembered[remembered.index(lost) + 1 :], *self.state.workers.values()]
        if any(other.address == lost.address for other in later):
            with pytest.raises(RefusedError, match="followed"):
                admission.register_worker(self.state, request)
            return
        self.commit(admission.register_worker(self.state, request))
        worker = admission.worker_of(self.state, lost.incarnation)
        assert worker is not None
        assert worker.worker == lost.worker
        assert worker.standby == (lost.standby or lost.replaced)
        self.schedule()

    @precondition(lambda self: self.state.workers)
    @rule(data=st.data())
    def lose_workers(self, data: st.DataObject) -> None:
        silent = data.draw(st.sets(st.sampled_from(list(self.state.workers)), max_size=2))
        heard_s = {name: 0.0 if name in silent else 10.0 for name in self.state.workers}
        self.commit(scheduler.lost_workers(self.state, Facts(heard_s), 10.0, 5.0))
        assert silent.isdisjoint(self.state.workers)
        self.schedule()

    @rule(name=st.sampled_from(["a", "b", ""]), lanes=st.integers(1, 3), takeover=st.booleans())
    def open_job(self, name: str, lanes: int, takeover: bool) -> None:
        if takeover:
            self.incarnations += 1
        request = pb.OpenJobRequest(
            protocol_version=PROTOCOL_VERSION,
            job_name=name,
            client=f"c{self.incarnations}",
            streams=[DATASET],
            lanes=lanes,
            block=1,
            attempts_max=2,
        )
        try:
            events = self.commit(admission.open_job(self.state, request, seed=lanes))
        except (RefusedError, JobFailedError):
            return
        job = admission.find_job(self.state, request)
        assert job is not None
        assert admission.open_job(self.state, request, seed=0) == []
        if events:
            self.open = {key: held for key, held in self.open.items() if key[0] != job.job}
            self.open[job.job, request.client] = {}
        self.schedule()

    def sync(
        self, key: tuple[str, str], *, problems: Iterable[pb.Problem] = (), failure: str = ""
    ) -> None:
        """One whole request of a client: everything that it has."""
        job = admission.owned_job(self.state, *key)
        held = self.open[key]
        request = pb.SyncClientRequest(
            job=key[0], client=key[1], term=self.state.term, problems=problems
        )
        request.failure = failure
        for epoch, done in held.items():
            entry = request.epochs.add(epoch=epoch)
            for split in sorted(done):
                entry.done.add(split=split, digest=digest_of(split))
            if len(done) == SPLITS:
                entry.finished = True
                entry.digest.count = sum(digest_of(split).count for split in done)
                entry.digest.total = sum(digest_of(split).total for split in done) % (1 << 64)
        self.commit(progress.client_events(self.state, job, request))
        assert [
            event
            for event in progress.client_events(self.state, job, request)
            if not isinstance(event, ev.JobFailed)
        ] == []
        self.open[key] = {epoch: done for epoch, done in held.items() if len(done) < SPLITS}
        self.schedule()

    @precondition(lambda self: any(job.former for job in self.state.jobs.values()))
    @rule(data=st.data())
    def a_replaced_client_asks_again(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([j for j in self.state.jobs.values() if j.former]))
        request = pb.OpenJobRequest(
            protocol_version=PROTOCOL_VERSION,
            job_name=job.name,
            client=data.draw(st.sampled_from(job.former)),
            streams=[DATASET],
            lanes=job.lanes,
            block=1,
            attempts_max=2,
        )
        with pytest.raises(RefusedError, match="taken over"):
            admission.open_job(self.state, request, seed=1)

    def clients(self) -> list[tuple[str, str]]:
        return [
            key
            for key in self.open
            if (job := self.state.jobs.get(key[0])) and job.attached and job.client == key[1]
        ]

    def open_an_epoch(self, key: tuple[str, str]) -> None:
        if len(self.open[key]) < 2 and not self.state.jobs[key[0]].failure:
            next_epoch = self.state.jobs[key[0]].streams[0].next_epoch
            self.open[key][max([next_epoch, *(epoch + 1 for epoch in self.open[key])])] = set()
        self.sync(key)

    @precondition(lambda self: self.clients())
    @rule(data=st.data())
    def client_opens_an_epoch(self, data: st.DataObject) -> None:
        self.open_an_epoch(data.draw(st.sampled_from(self.clients())))

    @precondition(lambda self: any(self.open[key] for key in self.clients()))
    @rule(data=st.data())
    def client_gives_an_epoch_up(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key in self.clients() if self.open[key]]))
        del self.open[key][data.draw(st.sampled_from(sorted(self.open[key])))]
        self.sync(key)

    @precondition(lambda self: self.state.attempts)
    @rule(at_once=st.integers(1, 4))
    def deliver(self, at_once: int) -> None:
        for attempt in list(self.state.attempts.values())[:at_once]:
            key = (attempt.job, self.state.jobs[attempt.job].client)
            self.open[key][attempt.epoch].add(attempt.split)
        for key in self.clients():
            self.sync(key)

    @precondition(lambda self: self.state.attempts)
    @rule()
    def deliver_everything_that_is_open(self) -> None:
        before = len(self.finished)
        # A job that failed keeps what it had open in the model, and delivers none of it.
        running = [key for key in self.clients() if not self.state.jobs[key[0]].failure]
        active = [key for key in running if self.open[key]]
        while self.state.attempts:
            self.deliver(at_once=3)
        for key in active:
            assert not self.open[key]
        assert len(self.finished) > before

    @precondition(lambda self: self.state.attempts)
    @rule(data=st.data(), strategy=st.sampled_from(FailoverStrategy))
    def fail_attempts(self, data: st.DataObject, strategy: FailoverStrategy) -> None:
        numbers = data.draw(st.lists(st.sampled_from(list(self.state.attempts)), max_size=3))
        failed = [pb.HeldAttempt(attempt=number, code="PIPELINE") for number in numbers]
        for worker in list(self.state.workers):
            self.commit(progress.worker_events(self.state, worker, failed))
            assert not progress.worker_events(self.state, worker, failed)
        self.decide(strategy)
        assert set(numbers).isdisjoint(self.state.attempts)
        self.schedule()

    @precondition(lambda self: self.state.workers)
    @rule(data=st.data(), strategy=st.sampled_from(FailoverStrategy))
    def a_worker_dies(self, data: st.DataObject, strategy: FailoverStrategy) -> None:
        name = data.draw(st.sampled_from(list(self.state.workers)))
        before = self.state.workers[name]
        faults = worker_faults(self.state, name, FailureKind.DEATH, "refused")
        promoted = scheduler.promotions(self.state, {name})
        self.commit([*faults, ev.WorkerLost(name, "refused"), *promoted])
        self.schedule()
        self.decide(strategy)
        _, made = list(self.state.failover.decided.values())[-1]
        retired = before.incarnation in self.state.failover.retired
        assert retired or made.strategy != "NODE_FAILOVER"
        assert made.strategy == strategy.value or "budget" in made.reason
        self.schedule()

    @precondition(lambda self: self.state.failover.retired)
    @rule()
    def a_person_readmits_who_is_there(self) -> None:
        for name, worker in self.state.workers.items():
            if worker.incarnation in self.state.failover.retired:
                self.commit(failover.readmission(self.state, name))
        self.schedule()

    @precondition(lambda self: self.state.attempts)
    @rule(data=st.data())
    def attempts_are_stuck(self, data: st.DataObject) -> None:
        stuck = data.draw(st.sets(st.sampled_from(list(self.state.attempts)), max_size=2))
        made = {
            number: Progress(attempt, since_s=0.0 if number in stuck else 100.0)
            for number, attempt in self.state.attempts.items()
        }
        heard_s = dict.fromkeys(self.state.workers, 100.0)
        facts = Facts(heard_s, self.produced, progress=made)
        self.commit(scheduler.stuck_attempts(self.state, facts, 100.0, 60.0))
        self.decide()
        produced = set().union(*self.produced.values()) if self.produced else set()
        assert (stuck - produced).isdisjoint(self.state.attempts)
        assert not scheduler.stuck_attempts(self.state, facts, 100.0, 60.0)
        self.schedule()

    @precondition(lambda self: self.state.attempts and not self.state.failover.open)
    @rule(data=st.data(), code=st.sampled_from(["GONE", "UNREACHABLE", "MISMATCH"]))
    def report_a_problem(self, data: st.DataObject, code: str) -> None:
        self.decide()  # what was open before is another story
        attempt = data.draw(st.sampled_from(list(self.state.attempts.values())))
        key = (attempt.job, self.state.jobs[attempt.job].client)
        self.sync(key, problems=[pb.Problem(attempt=attempt.attempt, code=code)])
        self.decide(FailoverStrategy.ABORTION_FAILOVER)
        assert (attempt.attempt in self.state.attempts) == (code == "UNREACHABLE")

    @precondition(lambda self: self.state.attempts)
    @rule(data=st.data())
    def produce(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(list(self.state.attempts.values())))
        self.produced.setdefault(attempt.worker, set()).add(attempt.attempt)
        self.schedule()

    @rule(number=st.integers(0, 50))
    def a_stale_message_changes_nothing(self, number: int) -> None:
        if number in self.state.attempts:
            return
        failed = [pb.HeldAttempt(attempt=number, code="PIPELINE")]
        for worker in self.state.workers:
            assert progress.worker_events(self.state, worker, failed) == []

    @precondition(lambda self: self.clients())
    @rule(data=st.data())
    def client_is_silent(self, data: st.DataObject) -> None:
        silent = data.draw(st.sampled_from(self.clients()))
        heard_s = {job: 0.0 if job == silent[0] else 10.0 for job in self.state.jobs}
        self.commit(scheduler.lost_clients(self.state, Facts(heard_s), 10.0, 5.0))
        assert silent not in self.clients()
        try:
            admission.owned_job(self.state, *silent)
        except PenstockError:
            pass
        else:
            assert self.state.jobs[silent[0]].failure
        self.schedule()

    @rule(snapshot_at=st.integers(0, 10_000))
    def restart(self, snapshot_at: int) -> None:
        """kill -9: the journal, or a snapshot of any moment and the rest, is all there is."""
        at = snapshot_at % (len(self.journal) + 1)
        records = records_of(self.journal)
        snapshot = to_snapshot(replay(None, records[:at]))
        state = replay(snapshot, records[at:])
        assert to_snapshot(state) == to_snapshot(self.state)
        self.state = state
        self.commit([ev.TermStarted(state.term + 1)])
        self.schedule()  # nothing that runs is started again
        assert not isinstance(self.journal[-1], ev.AttemptAssigned)

    @invariant()
    def every_lane_has_its_current_split_running(self) -> None:
        if any(failover.takes_work(self.state, worker) for worker in self.state.workers.values()):
            for job, epoch in self.state.open_epochs():
                book = self.state.book(job, epoch)
                for lane in range(book.num_lanes):
                    current = book.current(lane)
                    assert current is None or epoch.splits[current].attempt

    @invariant()
    def an_epoch_ends_once(self) -> None:
        assert len(set(self.finished)) == len(self.finished)

    def teardown(self) -> None:
        records = records_of(self.journal)
        state = State()
        for seq, record in records:  # every prefix is a valid state, and snapshots as one
            state.apply(event_records.decode(record))
            validate(state)
            if seq % 7 == 0:
                assert to_snapshot(from_snapshot(to_snapshot(state))) == to_snapshot(state)
        assert to_snapshot(state) == to_snapshot(self.state)


TestDispatcherMachine = DispatcherMachine.TestCase
TestDispatcherMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
