"""`RankArbiter`: the dispatcher rules what all ranks of a training do about a failed step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import UnavailableError, UsageError
from ..proto import control_pb2
from ..recovery.arbitration import Ruling
from ..recovery.policy import Action
from ..security.access import Access
from ..security.settings import Security
from ..timing import Timing
from .control import Control, parse_service
from .restoring import checked_consumed

if TYPE_CHECKING:
    from types import TracebackType

_NAME_CHARS_MAX = 128
_VOTE_S_MAX = 600.0
_HOLD_S = 2.0


class RankArbiter:
    """Asks the dispatcher what all ranks do about the fault of a step.

    Use it as a context manager, or call `close`.

    Args:
        service: `host:port` of the dispatcher, several separated by commas, or a `LocalCluster`.
        group: names this run of the training, the same for all its ranks, and new each time that
            it is started: what was ruled stands for ever.
        rank: number of this one.
        ranks: how many there are.
        vote_s: from the first rank's proposal until it is ruled, if not all have voted by then.
        timeout_s: how long a ruling is waited for, the dispatcher's restarts included.
        timing: intervals and deadlines.
        security: certificates and token; by default the cluster's own, or as the environment says.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        service: Any,
        group: str,
        *,
        rank: int,
        ranks: int,
        vote_s: float = 5.0,
        timeout_s: float = 120.0,
        timing: Timing | None = None,
        security: Security | None = None,
    ) -> None:
        if not isinstance(group, str) or not 0 < len(group) <= _NAME_CHARS_MAX:
            raise UsageError(
                f"group must be a string of 1 to {_NAME_CHARS_MAX} characters, not {group!r:.80}"
            )
        self._ranks = checked_consumed("ranks", ranks, 1)
        self.rank = checked_consumed("rank", rank)
        if self.rank >= self._ranks:
            raise UsageError(f"rank must be less than ranks, {ranks}, not {rank}")
        for name, value in (("vote_s", vote_s), ("timeout_s", timeout_s)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise UsageError(f"{name} must be a number greater than 0, not {value!r:.80}")
        if vote_s > _VOTE_S_MAX:
            raise UsageError(f"vote_s must be at most {_VOTE_S_MAX:g}, not {vote_s!r:.80}")
        self._group, self._vote_s, self._timeout_s = group, vote_s, timeout_s
        access = Access.load(Security.of(security, service))
        self._control = Control(parse_service(service), timing or Timing(), access)

    def rule(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        """What is done about the fault of a step, given what this rank would do.

        Raises:
            UnavailableError: there was no ruling in time.
        """
        return self._found(self._ask(step, round, fingerprint, action, self._timeout_s), step)

    def answer(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        """Says for all ranks what the operator answered; only the rank that asks does.

        Raises:
            UnavailableError: there was no ruling in time.
        """
        made = self._ask(step, round, fingerprint, action, self._timeout_s, alone=True)
        return self._found(made, step)

    def await_answer(self, step: int, round: int, timeout_s: float) -> Ruling | None:
        """What the operator answered to the rank that asks; None if nothing came in time."""
        return self._ask(step, round, "", None, timeout_s + self._timeout_s)

    def close(self) -> None:
        """Ends every wait. Closing twice is fine."""
        self._control.close()

    def __enter__(self) -> RankArbiter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self,
        step: int,
        round: int,
        fingerprint: str,
        action: Action | None,
        timeout_s: float,
        *,
        alone: bool = False,
    ) -> Ruling | None:
        request = control_pb2.RuleStepRequest(
            group=self._group,
            rank=self.rank,
            ranks=self._ranks,
            step=step,
            round=round,
            action="" if action is None else action.value,
            fingerprint=fingerprint,
            alone=alone,
            vote_ms=int(self._vote_s * 1000),
            hold_ms=int(_HOLD_S * 1000),
        )
        deadline_s = time.monotonic() + timeout_s
        while True:
            reply = self._control.rule_step(request)
            if reply.action:
                return Ruling(Action(reply.action), reply.rank, reply.fingerprint)
            if time.monotonic() >= deadline_s:
                return None

    def _found(self, made: Ruling | None, step: int) -> Ruling:
        if made is None:
            raise UnavailableError(
                f"nothing was ruled about step {step} of {self._group} in {self._timeout_s:g} s"
            )
        return made
