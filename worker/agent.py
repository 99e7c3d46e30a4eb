"""Talks to the dispatcher: registers, keeps a long poll going, and does what the answers say.

One thread with one call at a time. A call is held by the dispatcher until there is news for us.
News of our own (an attempt produced or failed) ends a held call at once; the next call, which
brings it, asks not to be held and is therefore never cut short, so that however fast news comes,
answers do arrive and news gather while one is on its way.

A dispatcher that does not answer is retried for ever: what runs goes on running and being served.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from ..errors import FollowedError
from ..failpoints import failpoint
from ..proto import control_pb2
from .link import Backoff, final_error
from .requests import Identity, assignment_of, held_message, registration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..errors import PenstockError
    from ..timing import Timing
    from .link import Link
    from .messages import Assignment, Held, Key

logger = logging.getLogger(__name__)

_LEAVE_DEADLINE_S = 1.0
#: Incarnations that a process may have, should another one be taken for a later one.
INCARNATIONS_MAX = 3


class Attempts(Protocol):
    """What the agent needs of the exchange."""

    def set_desired(self, assignments: Iterable[Assignment]) -> None:
        """Exactly these are to be held."""

    def drop_all(self) -> None:
        """None are to be held; their checkpoints are kept."""

    def held(self) -> list[Held]:
        """These are held."""


class Checkpoints(Protocol):
    """What the agent needs of the keeper."""

    def offered(self) -> list[tuple[Key, int]]:
        """Splits that need not be made from their beginning, and the elements not made again."""

    def retain(self, wanted: Iterable[Key], offered: Iterable[Key]) -> None:
        """Of what was offered, only these are of use."""


class Caching(Protocol):
    """What the agent needs of the cache."""

    def introduce(self, request: control_pb2.RegisterWorkerRequest) -> None:
        """Says which store there is, and all that it holds."""

    def tell(self, request: control_pb2.SyncWorkerRequest) -> object:
        """Says what the store has got and lost; returns what `told` needs."""

    def told(self, news: object) -> None:
        """The dispatcher has answered the request that brought this."""


class Probing(Protocol):
    """What the agent needs of the probes."""

    def set_wanted(self, assignments: Iterable[Assignment]) -> None:
        """Exactly these are wanted."""

    def results(self) -> list[control_pb2.ProbeResult]:
        """What is known of them."""


class _StaleReplyError(Exception):
    """A reply of a dispatcher that has been replaced."""


class Agent:
    """The thread that keeps this worker and the dispatcher in agreement.

    Args:
        link: to the dispatcher.
        identity: what to register as.
        attempts: is told what to hold, and asked what is held.
        timing: intervals and deadlines.
        on_change: called in the agent's thread when this worker is registered (again), or has
            been refused for good; see `worker` and `error`.
        checkpoints: what is offered to the dispatcher; None: nothing.
        cache: what the dispatcher is told of; None: there is none.
        probes: what makes splits for the dispatcher's own knowledge; None: none are made.

    Attributes:
        worker: the id that the dispatcher gave; empty before.
        error: why the dispatcher refuses this worker for good, if it does.
        term: the highest term seen.
    """

    def __init__(
        self,
        link: Link,
        identity: Identity,
        attempts: Attempts,
        timing: Timing,
        on_change: Callable[[], None],
        checkpoints: Checkpoints | None = None,
        cache: Caching | None = None,
        probes: Probing | None = None,
    ) -> None:
        self.worker = ""
        self.error: PenstockError | None = None
        self.term = 0
        self._link = link
        self._identity = identity
        self._attempts = attempts
        self._timing = timing
        self._on_change = on_change
        self._checkpoints = checkpoints
        self._cache = cache
        self._probes = probes
        self._registered = False
        self._incarnations = 1
        self._version = 0
        self._hold_ms = int(timing.heartbeat_s * 1000)
        self._backoff = Backoff(timing)
        self._changed = threading.Condition()
        self._news = False
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="penstock-agent", daemon=True)

    def start(self) -> None:
        """Begins to register."""
        self._thread.start()

    def report(self) -> None:
        """There is news for the dispatcher; never blocks for long."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def close(self, deadline_s: float) -> bool:
        """Ends the thread; whether it ended in time. The link must be closed afterwards."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        while not self._stopping and self.error is None:
            self._step()
        if self._registered:
            self._leave()

    def _leave(self) -> None:
        """Says good-bye, so that nobody has to wait for this worker's silence to be noticed."""
        request = control_pb2.SyncWorkerRequest(
            worker=self.worker,
            incarnation=self._identity.incarnation,
            term=self.term,
            leaving=True,
        )
        failpoint("worker.leave.before_send")
        try:
            self._link.stub().SyncWorker(request, timeout=_LEAVE_DEADLINE_S)
            failpoint("worker.leave.after_reply")
        except grpc.RpcError as error:
            logger.info("dispatcher %s was not told: %s", self._link.address, error.code().name)

    def _step(self) -> None:
        """One call, and what follows from it."""
        try:
            if self._registered:
                self._sync()
            else:
                self._register()
        except (grpc.RpcError, grpc.FutureCancelledError, _StaleReplyError) as error:
            self._recover(error)
        except Exception:
            # A bug must not leave a worker that serves but never agrees with anybody again.
            logger.exception("talking to dispatcher %s", self._link.address)
            self._pause("an internal error")

    def _register(self) -> None:
        me = self._identity
        offered = self._checkpoints.offered() if self._checkpoints is not None else []
        request = registration(me, offered)
        if self._cache is not None:
            self._cache.introduce(request)
        failpoint("worker.register.before_send")
        call = self._link.stub().RegisterWorker.future(request, timeout=self._link.call_deadline_s)
        reply = self._wait(call, cut_by_news=False)
        if reply is None:
            return
        failpoint("worker.register.after_reply")
        self._check_term(reply.term)
        self._identity = replace(me, killed=(), last_exit=0)  # counted once
        self.worker = reply.worker
        self._registered, self._version = True, 0
        self._retain(offered, reply.wanted)
        self._hold_ms = reply.heartbeat_ms or self._hold_ms
        self._answered()
        logger.info(
            "registered with %s as worker %s%s, term %d",
            self._link.address,
            reply.worker,
            " (standby)" if me.standby else "",
            reply.term,
        )
        self._on_change()

    def _retain(self, offered: list[tuple[Key, int]], wanted: Iterable[int]) -> None:
        if self._checkpoints is None or not offered:
            return
        places = set(wanted)
        keys = [key for key, _ in offered]
        self._checkpoints.retain([key for n, key in enumerate(keys) if n in places], keys)
        logger.info("of %d checkpointed splits %d may be asked for", len(keys), len(places))

    def _sync(self) -> None:
        with self._changed:  # before the request is built, so that no news falls between
            news, self._news = self._news, False
        hold_ms = 0 if news else self._hold_ms
        request = control_pb2.SyncWorkerRequest(
            worker=self.worker,
            incarnation=self._identity.incarnation,
            term=self.term,
            seen_version=self._version,
            hold_ms=hold_ms,
            held=map(held_message, self._attempts.held()),
            probed=self._probes.results() if self._probes is not None else (),
        )
        told = self._cache.tell(request) if self._cache is not None else None
        timeout_s = hold_ms / 1000 + self._link.call_deadline_s
        try:
            failpoint("worker.sync.before_send")
            call = self._link.stub().SyncWorker.future(request, timeout=timeout_s)
            reply = self._wait(call, cut_by_news=hold_ms > 0)
        except BaseException:
            self._news = self._news or news  # it did not arrive, as far as we know
            raise
        if reply is None:
            return
        failpoint("worker.sync.after_reply")
        self._check_term(reply.term)
        self._answered()
        if self._cache is not None:
            self._cache.told(told)
        self._apply(reply)

    def _apply(self, reply: control_pb2.SyncWorkerReply) -> None:
        self._version = reply.version
        if not reply.registered:
            logger.warning("dispatcher %s does not know this worker any more", self._link.address)
            self._registered = False
            self._attempts.drop_all()
            if self._probes is not None:
                self._probes.set_wanted(())
            return
        self._attempts.set_desired(map(assignment_of, reply.attempts))
        if self._probes is not None:
            self._probes.set_wanted(map(assignment_of, reply.probes))

    def _wait(self, call: Any, *, cut_by_news: bool) -> Any:
        """The call's reply; None if it was given up for news of ours, or to stop."""
        call.add_done_callback(self._wake)
        with self._changed:
            while not (call.done() or self._stopping or (cut_by_news and self._news)):
                self._changed.wait()
        if call.done():
            return call.result()
        call.cancel()
        return None

    def _wake(self, _call: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check_term(self, term: int) -> None:
        if term < self.term:
            raise _StaleReplyError(f"its term {term} is over, {self.term} was seen")
        if term > self.term and self.term:
            logger.info("dispatcher %s: term %d", self._link.address, term)
        self.term = term

    def _answered(self) -> None:
        lasted = self._backoff.reset()
        if lasted is not None:
            logger.info("dispatcher %s answers again after %.1f s", self._link.address, lasted)

    def _recover(self, error: Exception) -> None:
        """Prepares the next try, unless the dispatcher refuses to register this worker."""
        reason = str(error)
        if isinstance(error, grpc.RpcError):
            # One that is registered goes on whatever it is, and to the next dispatcher at once.
            refused = final_error(error) if self._registered else self._link.refusal(error)
            if isinstance(refused, FollowedError) and self._incarnations < INCARNATIONS_MAX:
                self._be_reborn(refused)
                return
            if refused is not None and not self._registered:
                self.error = refused
                self._on_change()
                return
            reason = f"{error.code().name}: {error.details()}"
        self._pause(reason)

    def _be_reborn(self, refused: FollowedError) -> None:
        """Prepares to register as the newest process at this address.

        Only one process can listen there, and that is this one: what came after us was a late
        request of the process before, and the dead do not ask again. If it was a live one, two
        workers have been given one address, and the bound tells them.
        """
        logger.warning("registering as a new incarnation: %s", refused)
        self._incarnations += 1
        self._identity = replace(self._identity, incarnation=secrets.token_hex(8))
        self._pause("taken for an older process")

    def _pause(self, reason: str) -> None:
        pause, lasted = self._backoff.failed()
        if lasted is not None:
            logger.warning(
                "dispatcher %s has not answered for %.0f s (%s); trying on",
                self._link.address,
                lasted,
                self._link.fault() or reason,
            )
        else:
            logger.debug("dispatcher %s: %s", self._link.address, reason)
        self._link.next()
        with self._changed:
            if not self._stopping:
                self._changed.wait_for(lambda: self._stopping, pause)
