"""A language model that is asked about failures of logs that are followed, beside the following.

What is told is told at once; the suggestion comes when there is one. Only the first failure of its
look is asked about, one at a time and not more often than each `EVERY_S`: a storm of failures is no
storm of questions.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from ..errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..recovery.diagnosis.answer import Suggestion
    from ..recovery.diagnosis.incidents import Incident
    from ..recovery.diagnosis.model import Model
    from ..recovery.diagnosis.rules import Rule
    from ..recovery.diagnosis.watch import Told

#: A question follows the one before it after so many seconds at the earliest.
EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A model, and where rules are sure enough not to ask it."""

    model: Model
    below: float

    def wants(self, confidence: float) -> bool:
        """Whether it is asked about what the rules are that sure of."""
        return confidence < self.below or self.below == 1


class Adviser:
    """Asks in a thread of its own.

    Args:
        asked: whom, and when.
        rules: that are known.
        show: is given each suggestion, in that thread.
        every_s: the least time between two questions, in seconds.

    Attributes:
        left_out: failures that were not asked about because they came too fast.
    """

    def __init__(
        self,
        asked: Asked,
        rules: tuple[Rule, ...],
        show: Callable[[Told, Suggestion], None],
        every_s: float = EVERY_S,
    ) -> None:
        self.left_out = 0
        self._asked = asked
        self._rules = rules
        self._show = show
        self._every_s = every_s
        self._last_s = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def consider(self, told: Told, past: list[Incident]) -> None:
        """Asks about a failure, unless rules are sure of it or the last question is too near."""
        if told.times != 1 or not self._asked.wants(told.diagnosis.confidence):
            return
        busy = self._thread is not None and self._thread.is_alive()
        if busy or time.monotonic() < self._last_s + self._every_s:
            self.left_out += 1
            return
        self._last_s = time.monotonic()
        self._thread = threading.Thread(target=self._ask, args=(told, past), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for the answer that is under way, within the model's deadline, and asks no more."""
        if self._thread is not None:
            self._thread.join(self._asked.model.deadline_s)
        self._stop.set()

    def give_up(self) -> None:
        """Ends the question that is under way, from any thread."""
        self._stop.set()

    def _ask(self, told: Told, past: list[Incident]) -> None:
        from ..recovery.diagnosis.model import ask
        from ..recovery.diagnosis.prompt import question_of

        model = self._asked.model
        question = question_of(
            told.diagnosis,
            notes=told.notes,
            tail=told.tail,
            similar=past,
            reasons=(rule.reason for rule in self._rules),
            secrets=(model.key,),
        )
        if not question.lines:
            return
        try:
            suggestion = ask(model, question, stop=self._stop)
        except PenstockError as error:
            typer.echo(f"warning: no suggestion: {error}", err=True)
            return
        self._show(told, suggestion)
