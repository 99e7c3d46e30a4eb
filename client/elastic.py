"""`penstock.elastic`: consumers that come, go and die while the others live on.

A process that wants to be one of a job's consumers `join`s: it gets a rank once all who are alive
have agreed. Those who read already hear of it with the dispatcher's next answer, half a second
later at most; as `member`s they then commit what they hold, meet the others at the dispatcher, and
go on as another consumer, in the same process, with hooks of the trainer's before and after. A
consumer that died is waited for, or its lanes go to the others.

    rank, world, generation = penstock.elastic.join("head:5050", "train")
    reader = penstock.Reader(dataset, "head:5050", job_name="train", seed=1,
                             consumer=(rank, world, generation), restore="committed")
    with penstock.elastic.member(reader, before_resize=save, after_resize=rebuild) as member:
        for element in member:
            train(element)
"""

from __future__ import annotations

import logging
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ResizedError, UsageError
from ..security.access import Access
from ..security.settings import Security
from ..timing import Timing
from .control import Control, parse_service
from .session import COMMITTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..proto import control_pb2
    from ..proto.position import Position
    from .reader import Reader

logger = logging.getLogger(__name__)

WAIT, REDISTRIBUTE = "wait", "redistribute"


class Membership(NamedTuple):
    """Which consumer a process is: what `Reader(consumer=…)` takes."""

    rank: int
    world: int
    generation: int


def join(
    service: object,
    job_name: str,
    *,
    at_least: int = 1,
    timeout_s: float | None = None,
    timing: Timing | None = None,
    security: Security | None = None,
) -> Membership:
    """Becomes one of a job's consumers; waits until those who read already have agreed.

    Args:
        service: `host:port` of the dispatcher, several separated by commas, or a `LocalCluster`.
        job_name: of the job that consumers share.
        at_least: wait for so many consumers: at a training's start, how many there will be.
        timeout_s: how long to wait, in seconds; None for as long as it takes.
        timing: intervals and deadlines.
        security: certificates and token; by default the cluster's own, or as the environment says.

    Returns:
        The rank, the number of consumers, and the generation of their group.

    Raises:
        UsageError: an argument is not accepted.
        UnavailableError: there was no seat for `timeout_s`; the message says who is waited for.
    """
    if not isinstance(job_name, str) or not job_name:
        raise UsageError(f"job_name must be a string that is not empty, not {job_name!r:.80}")
    if isinstance(at_least, bool) or not isinstance(at_least, int) or at_least < 1:
        raise UsageError(f"at_least must be a whole number from 1, not {at_least!r:.80}")
    from ..proto import control_pb2

    access = Access.load(Security.of(security, service))
    control = Control(parse_service(service), timing or Timing(), access)
    try:
        request = control_pb2.JoinGroupRequest(
            group=job_name, member=secrets.token_hex(8), at_least=at_least
        )
        return _membership(control.join(request, timeout_s))
    finally:
        control.close()


class Member:
    """A consumer that lives through resizes; made by `member`.

    An iteration ends with its epoch. `reader.epoch` says which that is, since after a resize the
    rest of an earlier one may come first.

    Attributes:
        reader: what it reads with.
        taken: elements that were handed out since the reader was made or restored.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        source: Callable[[], Iterable[Any]] | None,
        before_resize: Callable[[Member], object] | None,
        after_resize: Callable[[Member], object] | None,
        on_consumer_death: str,
        agree: Callable[[bool], bool] | None,
    ) -> None:
        self.reader = reader
        self.taken = 0
        self._source = source or (lambda: reader)
        self._before = before_resize or Member.commit
        self._after = after_resize
        self._redistributes = on_consumer_death == REDISTRIBUTE
        self._agree = agree or bool
        # After a resize nothing may be left here of an epoch that others still read.
        reader.passes_over = False

    @property
    def membership(self) -> Membership:
        """Which consumer this is now; connects if that is needed to know it."""
        consumer = self.reader.job.consumer
        assert consumer is not None
        return Membership(*consumer.row())

    @property
    def pending(self) -> bool:
        """Whether somebody waits to join, or is gone and not waited for."""
        engine = self.reader.session.start()
        return engine.joining > 0 or (self._redistributes and bool(engine.gone))

    def __iter__(self) -> Iterator[Any]:
        """An epoch, or the rest of one, as `Reader`; resizes come between two elements."""
        resized = True
        while resized:
            resized = False
            self._be_seated()
            for element in self._source():
                self.taken += 1
                yield element
                # The trainer wants the next one, so it is done with this one.
                if self._agree(self.pending):
                    resized = True
                    break
            if resized:
                epoch = self.reader.epoch
                self.resize()
                # Where all of it was known to be taken, the next epoch is not this iteration's.
                resized = epoch is None or self.reader.job.next_epoch[0] <= epoch

    def commit(self) -> Position:
        """Commits what was handed out: call it when a checkpoint holds that."""
        return self.reader.commit(self.taken)

    def leave(self) -> None:
        """Leaves for good, in the middle of whatever: the others share its lanes.

        As before a resize, `before_resize` commits what this process holds.
        """
        self._before(self)
        self.reader.session.leave()

    def resize(self) -> Membership:
        """Meets the others, and goes on as whichever consumer this is then.

        `before_resize` is to commit what this process holds: what is not committed comes again, to
        whoever owns its lane then.

        Returns:
            Which consumer this is now.
        """
        self._before(self)
        self._meet()
        self._be_seated()
        if self._after is not None:
            self._after(self)
        return self.membership

    def _meet(self) -> None:
        found = _membership(self.reader.session.join(secrets.token_hex(8)))
        logger.info("consumer %d of %d, generation %d", *found)
        self.reader.restore(COMMITTED, consumer=found)
        self.taken = 0

    def _be_seated(self) -> None:
        """Opens the job; if others have resized again meanwhile, it meets them first."""
        while True:
            try:
                self.reader.session.start()
                return
            except ResizedError as error:
                logger.info("joining again: %s", error)
            self._meet()


@contextmanager
def member(
    reader: Reader,
    *,
    source: Callable[[], Iterable[Any]] | None = None,
    before_resize: Callable[[Member], object] | None = None,
    after_resize: Callable[[Member], object] | None = None,
    on_consumer_death: str = WAIT,
    agree: Callable[[bool], bool] | None = None,
) -> Iterator[Member]:
    """Lets a consumer live through resizes, and closes its reader at the end.

    A body that raises is a consumer's death, one that ends is done.

    Args:
        reader: one of several consumers: `Reader(consumer=…)`.
        source: gives an epoch; by default the reader itself. For a `tf.data.Dataset` that was
            distributed with `consumer=`, `lambda: dataset`; elements of it are counted then.
        before_resize: called with the member before it leaves its seat: saves the model, and then
            calls `member.commit()`. By default only that.
        after_resize: called with the member that is another consumer now.
        on_consumer_death: "wait" for one that is gone to come back, or "redistribute" its lanes.
        agree: called after each element with whether this process wants to resize; returns whether
            all do. For trainings that step together, which have to leave at the same step: an
            all-reduce (maximum). By default each decides by itself.

    Raises:
        UsageError: the reader is not one of several consumers, or an argument is not accepted.
    """
    if on_consumer_death not in (WAIT, REDISTRIBUTE):
        raise UsageError(
            f'on_consumer_death must be "{WAIT}" or "{REDISTRIBUTE}", not {on_consumer_death!r:.80}'
        )
    if reader.consumer is None:
        raise UsageError("an elastic member needs a Reader(consumer=(rank, world))")
    made = Member(
        reader,
        source=source,
        before_resize=before_resize,
        after_resize=after_resize,
        on_consumer_death=on_consumer_death,
        agree=agree,
    )
    with reader:
        try:
            yield made
        except BaseException:
            # A training that raises has died, whatever its process does then: it is not done.
            if on_consumer_death == REDISTRIBUTE:
                reader.session.give_up()
            raise


@contextmanager
def shared(
    dataset: Any,
    service: object,
    *,
    job_name: str,
    before_resize: Callable[[Member], object] | None = None,
    after_resize: Callable[[Member], object] | None = None,
    timing: Timing | None = None,
    security: Security | None = None,
    **options: Any,
) -> Iterator[Member]:
    """Reads a job together with whoever else does: no ranks, each element to one of them.

    The lanes are dealt anew whenever a process comes, leaves or dies; those of one that died go to
    the others, at what it committed. So commit now and then: `member.commit()`.

    Args:
        dataset: see `Reader`.
        service: `host:port` of the dispatcher, several separated by commas, or a `LocalCluster`.
        job_name: of the job, the same in all processes.
        before_resize: see `member`.
        after_resize: see `member`.
        timing: intervals and deadlines.
        security: certificates and token; by default the cluster's own, or as the environment says.
        options: what else `Reader` takes, the same in all processes.

    Raises:
        UsageError: an argument is not accepted.
    """
    taken = {"consumer", "restore"} & set(options)
    if taken:
        raise UsageError(f"{', '.join(sorted(taken))}: processes that share a job agree on that")
    from .reader import Reader

    seat = join(service, job_name, timing=timing, security=security)
    reader = Reader(
        dataset,
        service,
        job_name=job_name,
        consumer=seat,
        restore=COMMITTED,
        timing=timing,
        security=security,
        **options,
    )
    with member(
        reader,
        before_resize=before_resize,
        after_resize=after_resize,
        on_consumer_death=REDISTRIBUTE,
    ) as one:
        yield one


def _membership(reply: control_pb2.JoinGroupReply) -> Membership:
    return Membership(reply.rank, reply.world, reply.generation)
