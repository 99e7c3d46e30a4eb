"""Users' failover classes: found by name, strictly, and asked within a deadline.

Theory of operation. `load_extension` finds `module::Class` or says exactly what is wrong with it: a
policy that is silently not there is worse than none. An `Asker` puts failures to one extension, one
after the other, in a thread of its own, which also looks for the root cause first. The thread is a
daemon: user code that never returns keeps nobody from ending. Who asks is called back from that
thread and keeps the deadline himself.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import queue
import re
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from .failover import DiagnosingFailover, FailoverExtension, FailureKind
from .strategy import FailoverStrategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from .diagnosis.result import Diagnosis
    from .failover import FailureInfo

#: What the default extension is called in status and journal.
DEFAULT_NAME = "penstock"
NAME_CHARS_MAX = 256
_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)::([A-Za-z_]\w*)", re.ASCII)
_REMEMBERED_MAX = 64
_EXCERPT_CHARS_MAX = 500
logger = logging.getLogger("penstock.failover")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be done about a failure.

    Attributes:
        strategy: what was answered, or the default if nothing valid was.
        source: who answered: the extension's name, or `DEFAULT_NAME`.
        problem: what was wrong with the extension; "" if nothing was.
        diagnosis: the root cause; None if it was not looked for.
    """

    strategy: FailoverStrategy
    source: str = DEFAULT_NAME
    problem: str = ""
    diagnosis: Diagnosis | None = None


def find_extension(name: str, argument: str) -> type[FailoverExtension]:
    """The class of that name; no object of it is made.

    Args:
        name: `my.module::MyClass`, looked up from the current directory too.
        argument: what the name was given as, for errors: `--failover-extension`.

    Raises:
        UsageError: there is no such class, or it is no failover extension; the text says why.
    """
    match = _NAME.fullmatch(name) if len(name) <= NAME_CHARS_MAX else None
    if match is None:
        raise UsageError(
            f"{argument} must be my.module::MyClass, the name of a subclass of"
            f" penstock.FailoverExtension, not {name[:NAME_CHARS_MAX]!r}"
        )
    module_name, class_name = match.groups()
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise UsageError(
            f"{argument}: {module_name!r} cannot be imported: {_told(error)}"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise UsageError(f"{argument}: the module {module_name!r} has no class {class_name!r}")
    if not isinstance(found, type) or not issubclass(found, FailoverExtension):
        raise UsageError(f"{argument}: {name} must be a subclass of penstock.FailoverExtension")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"{argument}: {name} must define {', '.join(missing)}")
    return found


def load_extension(name: str, argument: str) -> FailoverExtension:
    """An object of the class of that name; see `find_extension`.

    Raises:
        UsageError: there is none, or its constructor raises or wants arguments.
    """
    found = find_extension(name, argument)
    try:
        return found()
    except (Exception, SystemExit) as error:  # whatever the user's constructor raises
        raise UsageError(
            f"{argument}: {name}() must take no arguments and not raise: {_told(error)}"
        ) from error


def default_answer(info: FailureInfo, problem: str = "") -> Answer:
    """What is done where no extension gives a valid answer."""
    strategy = DiagnosingFailover().get_user_failover_strategy(info)
    return Answer(strategy, problem=problem, diagnosis=info.diagnosis)


def answer_of(extension: FailoverExtension, name: str, info: FailureInfo) -> Answer:
    """Asks an extension; what is wrong with its answer is said, and the default taken."""
    try:
        strategy: object = extension.get_user_failover_strategy(info)
    except BaseException as error:  # SystemExit of a user's class must not end the thread either
        return default_answer(info, f"{name} raised {_told(error)}")
    if not isinstance(strategy, FailoverStrategy):
        return default_answer(
            info, f"{name} must return a penstock.FailoverStrategy, not {strategy!r:.100}"
        )
    return Answer(strategy, name, diagnosis=info.diagnosis)


class Diagnoser:
    """Finds root causes, once for failures that look the same; several threads may ask."""

    def __init__(self) -> None:
        self._known: dict[str, Diagnosis] = {}
        self._lock = threading.Lock()

    def __call__(self, info: FailureInfo) -> Diagnosis | None:
        """The root cause of a failure; None for kinds that tell of none."""
        if info.kind is not FailureKind.EXCEPTION:
            return None
        found = self._known.get(info.fingerprint)
        if found is None:
            # Not at the head: what it loads takes a part of a second, which a start need not wait.
            from .diagnosis.entry import diagnose

            found = diagnose(info.log or info.exceptions)
            with self._lock:
                self._known[info.fingerprint] = found
                while len(self._known) > _REMEMBERED_MAX:
                    del self._known[next(iter(self._known))]
        return found


class Asker:
    """Puts failures to one extension, one after the other, in a thread of its own.

    Args:
        extension: who is asked.
        name: what it is called.
        diagnose: finds the root cause of a failure before the extension is asked.
    """

    def __init__(
        self,
        extension: FailoverExtension,
        name: str,
        diagnose: Callable[[FailureInfo], Diagnosis | None],
    ) -> None:
        self.name = name
        self._extension = extension
        self._diagnose = diagnose
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, info: FailureInfo, done: Callable[[Answer], None]) -> Callable[[], None]:
        """Asks; `done` is called with the answer, in the asker's thread.

        Returns:
            What says that nobody waits for the answer any more.
        """
        question = _Question(info, done)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="failover", daemon=True)
            self._thread.start()
        self._questions.put(question)
        return question.given_up.set

    def close(self) -> None:
        """Ends the thread after what it is at; does not wait for it."""
        self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            if not question.given_up.is_set():
                question.done(self._answer(question.info))

    def _answer(self, info: FailureInfo) -> Answer:
        try:
            info = dataclasses.replace(info, diagnosis=self._diagnose(info))
        except Exception:
            logger.exception("the root cause of fault %d was not looked for", info.fault)
        return answer_of(self._extension, self.name, info)


@dataclass(frozen=True, slots=True)
class _Question:
    info: FailureInfo
    done: Callable[[Answer], None]
    given_up: threading.Event = dataclasses.field(default_factory=threading.Event)


class Askers:
    """The extension of the dispatcher, and those of jobs. Belongs to one thread.

    Args:
        name: `module::Class` for jobs that name none; "" for `DiagnosingFailover`.
        deadline_s: how long an answer may take, seconds.

    Raises:
        UsageError: the extension cannot be loaded; see `load_extension`.
    """

    def __init__(self, name: str = "", deadline_s: float = 10.0) -> None:
        self.deadline_s = deadline_s
        self._diagnose = Diagnoser()
        own = load_extension(name, "--failover-extension") if name else DiagnosingFailover()
        self.name = name or DEFAULT_NAME
        self._askers = {"": Asker(own, self.name, self._diagnose)}

    def has(self, name: str) -> bool:
        """Whether the extension of that name is loaded."""
        return name in self._askers

    def add(self, name: str, extension: FailoverExtension) -> None:
        """From now on the extension of that name can be asked."""
        if name not in self._askers:
            self._askers[name] = Asker(extension, name, self._diagnose)

    def submit(
        self, name: str, info: FailureInfo, done: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """Asks the extension of that name, "" for the dispatcher's; see `Asker.submit`."""
        return self._askers[name].submit(info, done)

    def close(self) -> None:
        """Ends the threads."""
        for asker in self._askers.values():
            asker.close()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_EXCERPT_CHARS_MAX]
