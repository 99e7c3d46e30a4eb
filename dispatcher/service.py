"""The control service: gRPC in, `admission` and `progress` decide, the engine does, views go out.

Every reply, a refusal too, leaves only after everything that it rests on is durable.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from ..errors import PenstockError
from ..failpoints import failpoint
from ..proto import control_pb2, control_pb2_grpc
from . import (
    admission,
    arbitration,
    caching,
    consumers,
    failover,
    memory,
    positions,
    probing,
    progress,
    quarantine,
)
from .arrivals import Arrivals
from .gathering import Gathering
from .graphs import Graphs
from .liveness import HOLD, heartbeat_s, worker_hold_s
from .refusals import answering, ask_again, refuse, supersede
from .status import picture
from .views import Placements, gap_s, worker_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .datasets import BlobStore
    from .engine import Engine
    from .records import Job

_PART_BYTES = 1 << 20


class ControlService(control_pb2_grpc.ControlServicer):
    """Serves the control plane.

    Args:
        engine: decides and journals.
        blobs: keeps the graphs.
    """

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self.engine = engine
        self._graphs = Graphs(engine, blobs)
        # The newest request of each client, by (job, client), where clients number them.
        self._sequences: dict[str, tuple[str, int]] = {}
        self._arrivals = Arrivals()
        self._groups = Gathering(engine, self._arrivals)
        self._placements = Placements()
        self._votes = arbitration.Votes()

    def broke_off(self, request: Any) -> None:
        """The peer of a call has ended it, or itself."""
        if isinstance(request, control_pb2.SyncClientRequest):
            self._arrivals.broke_off(request.job, time.monotonic())

    # Datasets.

    @answering
    async def PutDataset(self, requests: Any, context: Any) -> control_pb2.PutDatasetReply:
        """Stores a graph: the file first, then the journal's word for it."""
        return await self._graphs.receive(requests)

    async def GetDataset(
        self, request: control_pb2.GetDatasetRequest, context: Any
    ) -> AsyncIterator[control_pb2.GetDatasetReply]:
        """Sends a graph in parts; an empty one is one empty part."""
        try:
            await self._graphs.describe(request.fingerprint)
            graph = await self._graphs.get(request.fingerprint)
        except PenstockError as error:
            await refuse(context, error)
        await self.engine.durable()
        for at in range(0, max(1, len(graph)), _PART_BYTES):
            failpoint("dispatcher.get_dataset.before_send")
            yield control_pb2.GetDatasetReply(part=graph[at : at + _PART_BYTES])

    @answering
    async def DescribeDataset(
        self, request: control_pb2.GetDatasetRequest, context: Any
    ) -> control_pb2.DatasetInfo:
        """Tells what is known of a dataset."""
        return await self._graphs.describe(request.fingerprint)

    # Clients.

    @answering
    async def AnnounceClient(
        self, request: control_pb2.AnnounceClientRequest, context: Any
    ) -> control_pb2.AnnounceClientReply:
        """Numbers a client; a number that is never used means nothing."""
        failpoint("dispatcher.announce_client.before_reply")
        return control_pb2.AnnounceClientReply(
            term=self.engine.state.term, arrival=self._arrivals.number()
        )

    @answering
    async def OpenJob(
        self, request: control_pb2.OpenJobRequest, context: Any
    ) -> control_pb2.OpenJobReply:
        """Creates or joins a job."""
        engine, state = self.engine, self.engine.state
        admission.check_version(request.protocol_version, "client")
        await engine.deciding.prepare(request.failover_extension)
        if not self._arrivals.is_known(state.term, request):
            await ask_again(context)
        asked = request
        request = self._groups.as_job(asked)
        self._arrivals.check(admission.find_job(state, request), request)
        failpoint("dispatcher.open_job.before_commit")
        engine.commit(admission.open_job(state, request, secrets.randbits(63)))
        job = admission.find_job(state, request)
        assert job is not None, "it was just opened"
        engine.commit(caching.job_events(job, request.cache))
        engine.commit(failover.job_events(job, request.failover_extension))
        engine.commit(quarantine.job_events(job, request))
        group = state.groups.get(asked.job_name)
        if group is not None:
            engine.commit(consumers.seat_events(state, job, asked))
        self._arrivals.opened(job, request.arrival, state.jobs)
        engine.hear(job.job)
        await engine.durable()
        failpoint("dispatcher.open_job.before_reply")
        return control_pb2.OpenJobReply(
            term=engine.state.term,
            job=job.job,
            seed=job.seed,
            next_epoch=[stream.next_epoch for stream in job.streams],
            lanes=job.lanes,
            block=job.block,
            generation=group.generation if group is not None else 0,
            group_position=group.position if group is not None else "",
            position=job.position if group is not None else "",
        )

    @answering
    async def SyncClient(
        self, request: control_pb2.SyncClientRequest, context: Any
    ) -> control_pb2.SyncClientReply:
        """Takes what a client has; answers with what it should know, once there is news."""
        engine = self.engine
        admission.check_term(engine.state, request.term, engine.first_term)
        job = admission.owned_job(engine.state, request.job, request.client, engine.endings)
        if self._is_overtaken(job, request):
            await supersede(context)
        engine.hear(job.job)
        self._arrivals.came_back(job.job)
        engine.deciding.stepped(job.job, request)
        failpoint("dispatcher.sync_client.before_commit")
        engine.commit(progress.client_events(engine.state, job, request, engine.reports.vain))
        engine.report_unreachable(
            job.job,
            {
                problem.attempt: problem.detail
                for problem in request.problems
                if problem.code == progress.UNREACHABLE
            },
        )
        await engine.settled()
        if request.term == engine.state.term:
            hold_s = min(request.hold_ms / 1000, HOLD * engine.timing.client_timeout_s)
            await engine.news.hold(job.job, request.seen_version, hold_s)
        await engine.news.pace(job.job, gap_s(job))
        await engine.settled()
        job = admission.owned_job(engine.state, request.job, request.client, engine.endings)
        version = engine.news.version(job.job)
        notices = engine.notices.of(job.job) + quarantine.notice(job)
        reply = self._placements.client_view(engine.state, job, version, notices)
        self._groups.tell(job, reply)
        await engine.durable()
        failpoint("dispatcher.sync_client.before_reply")
        return reply

    def _is_overtaken(self, job: Job, request: control_pb2.SyncClientRequest) -> bool:
        """Whether a later request of this client was seen already: this one was under way."""
        client, newest = self._sequences.get(job.job, ("", 0))
        if client == request.client and 0 < request.sequence < newest:
            return True
        self._sequences[job.job] = (request.client, request.sequence)
        if len(self._sequences) > 2 * len(self.engine.state.jobs) + 64:
            jobs = self.engine.state.jobs
            self._sequences = {at: seen for at, seen in self._sequences.items() if at in jobs}
        return False

    @answering
    async def CommitPosition(
        self, request: control_pb2.CommitPositionRequest, context: Any
    ) -> control_pb2.CommitPositionReply:
        """Keeps the position that a trainer holds safe."""
        engine = self.engine
        admission.check_term(engine.state, request.term, engine.first_term)
        job = admission.owned_job(engine.state, request.job, request.client, engine.endings)
        engine.hear(job.job)
        consumers.check_commit(engine.state, job, request.position)
        failpoint("dispatcher.commit_position.before_commit")
        engine.commit(positions.commit_events(job, request))
        await engine.durable()
        failpoint("dispatcher.commit_position.before_reply")
        return control_pb2.CommitPositionReply(term=engine.state.term)

    @answering
    async def GetPosition(
        self, request: control_pb2.GetPositionRequest, context: Any
    ) -> control_pb2.GetPositionReply:
        """Tells the position of a named job that was committed last."""
        jobs = self.engine.state.jobs.values()
        texts = [job.position for job in jobs if job.name and job.name == request.job_name]
        return control_pb2.GetPositionReply(
            term=self.engine.state.term, position=texts[0] if texts else ""
        )

    @answering
    async def RuleStep(
        self, request: control_pb2.RuleStepRequest, context: Any
    ) -> control_pb2.RuleStepReply:
        """Rules what all ranks do about a failed step."""
        return await arbitration.rule(self.engine, self._votes, request)

    @answering
    async def JoinGroup(
        self, request: control_pb2.JoinGroupRequest, context: Any
    ) -> control_pb2.JoinGroupReply:
        """Seats a process in a group, once all who are there have asked for a seat."""
        return self._groups.join(request)

    @answering
    async def CloseClient(
        self, request: control_pb2.CloseClientRequest, context: Any
    ) -> control_pb2.CloseClientReply:
        """Lets a client go; one that is gone, or was replaced, is gone."""
        engine = self.engine
        job = engine.state.jobs.get(request.job)
        if job is not None and job.client == request.client and job.attached:
            engine.deciding.stepped(job.job, request)
            failpoint("dispatcher.close_client.before_commit")
            engine.commit(admission.close_events(job, request))
            await engine.durable()
            failpoint("dispatcher.close_client.before_reply")
        return control_pb2.CloseClientReply(term=engine.state.term)

    # Workers.

    @answering
    async def RegisterWorker(
        self, request: control_pb2.RegisterWorkerRequest, context: Any
    ) -> control_pb2.RegisterWorkerReply:
        """Introduces a worker."""
        engine = self.engine
        failpoint("dispatcher.register_worker.before_commit")
        registered = admission.register_worker(engine.state, request)
        engine.commit(registered)
        worker = admission.worker_of(engine.state, request.incarnation)
        assert worker is not None, "it was just registered"
        if registered:
            engine.commit(memory.register_events(engine.state, worker, request))
        engine.commit(caching.register_events(engine.state, worker, request))
        engine.hear(worker.worker)
        # In the same step: the scheduler, which runs next, deals by the offers.
        wanted = engine.offer(
            worker.worker,
            [
                (point.dataset, point.seed, point.epoch, point.split)
                for point in request.checkpoints
            ],
        )
        await engine.durable()
        failpoint("dispatcher.register_worker.before_reply")
        return control_pb2.RegisterWorkerReply(
            wanted=wanted,
            term=engine.state.term,
            worker=worker.worker,
            heartbeat_ms=max(1, int(1000 * heartbeat_s(engine.timing))),
        )

    @answering
    async def SyncWorker(
        self, request: control_pb2.SyncWorkerRequest, context: Any
    ) -> control_pb2.SyncWorkerReply:
        """Takes what a worker holds; answers with what it should hold, once there is news."""
        engine = self.engine
        admission.check_term(engine.state, request.term)
        if not self._is_registered(request):
            return control_pb2.SyncWorkerReply(term=engine.state.term)
        name = request.worker
        if request.leaving:
            engine.commit(admission.worker_leaves(engine.state, name))
            return control_pb2.SyncWorkerReply(term=engine.state.term)
        engine.hear(name)
        failed = [held for held in request.held if held.state == control_pb2.HeldAttempt.FAILED]
        failpoint("dispatcher.sync_worker.before_commit")
        engine.commit(progress.worker_events(engine.state, name, failed))
        engine.commit(probing.worker_events(engine.state, name, request.probed))
        engine.commit(caching.sync_events(engine.state, engine.state.workers[name], request))
        engine.commit(engine.measures.take(engine.state, request.measures))
        engine.report(name, request.held)
        engine.reports.read(name, request.read)
        await engine.settled()
        if request.term == engine.state.term:
            hold_s = worker_hold_s(engine.timing, request.hold_ms, len(engine.state.workers))
            await engine.news.hold(name, request.seen_version, hold_s)
            await engine.settled()
        if not self._is_registered(request):
            return control_pb2.SyncWorkerReply(term=engine.state.term)
        worker = engine.state.workers[name]
        engine.telling.told(name)
        reply = worker_view(engine.state, worker, engine.news.version(name))
        await engine.durable()
        failpoint("dispatcher.sync_worker.before_reply")
        return reply

    def _is_registered(self, request: control_pb2.SyncWorkerRequest) -> bool:
        worker = self.engine.state.workers.get(request.worker)
        return worker is not None and worker.incarnation == request.incarnation

    # Everybody.

    @answering
    async def ReadmitWorker(
        self, request: control_pb2.ReadmitWorkerRequest, context: Any
    ) -> control_pb2.ReadmitWorkerReply:
        """Lets a retired worker work again."""
        engine = self.engine
        engine.commit(failover.readmission(engine.state, request.worker))
        return control_pb2.ReadmitWorkerReply(term=engine.state.term)

    @answering
    async def RetryElement(
        self, request: control_pb2.RetryElementRequest, context: Any
    ) -> control_pb2.RetryElementReply:
        """Has an element made that was left out, should its split be made again."""
        engine = self.engine
        engine.commit(quarantine.retry_events(engine.state, request))
        return control_pb2.RetryElementReply(term=engine.state.term)

    async def GetStatus(
        self, request: control_pb2.GetStatusRequest, context: Any
    ) -> control_pb2.GetStatusReply:
        """Tells everything; waits for nothing, so that a stuck disk can be seen."""
        status = picture(self.engine)
        status["waiting"] += self._groups.waiting()
        return control_pb2.GetStatusReply(json=json.dumps(status))
