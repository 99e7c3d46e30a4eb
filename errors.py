"""Every exception that penstock raises on purpose, and the exit code the command line gives it.

Each class is one *kind* of failure that a user can act on; the message says what happened, to
what, and what to do. The command line turns a `PenstockError` into its one-line message and the
class's `exit_code`; a traceback on the terminal is therefore always a bug in penstock.

Codes: 2 bad usage, 3 cannot reach or bind, 4 the pipeline cannot be shipped or failed,
5 the data is not what it should be, 6 the journal cannot be trusted, 7 refused, 75 (the system's
"try again") the process is to be started again. Leaf module: imports nothing of penstock, so that
every package may use it.
"""

from __future__ import annotations

from typing import ClassVar


class PenstockError(Exception):
    """Base of all penstock errors; catch it to catch them all."""

    exit_code: ClassVar[int] = 1


class UsageError(PenstockError, ValueError):
    """An argument, option or setting has a value that penstock does not accept."""

    exit_code = 2


class PositionError(UsageError):
    """A position is damaged, or is one of something else than what is to be read."""


class UnavailableError(PenstockError, ConnectionError):
    """A dispatcher or worker could not be reached within its deadline."""

    exit_code = 3


class AddressInUseError(UnavailableError):
    """The address that a daemon was told to listen on is taken."""


class NotShippableError(PenstockError):
    """The dataset holds something that cannot run in another process (py_function, a generator)."""

    exit_code = 4


class JobFailedError(PenstockError):
    """The job was failed as a whole; the message holds the dispatcher's reason."""

    exit_code = 4


class SpecMismatchError(PenstockError):
    """The element spec of a dataset is not the one that was registered or asked for."""

    exit_code = 5


class ReplayMismatchError(PenstockError):
    """A replayed split differs from what was delivered before (G4)."""

    exit_code = 5


class VerificationError(PenstockError):
    """Elements, counts or digests do not agree: lost, repeated or altered data (G4, G5)."""

    exit_code = 5


class ChunkError(PenstockError):
    """A chunk's bytes do not describe elements of the announced spec."""

    exit_code = 5


class JournalError(PenstockError):
    """The journal could not be written or read."""

    exit_code = 6


class JournalCorruptError(JournalError):
    """The journal is damaged before its tail: recovering would lose acknowledged records (G7)."""


class JournalLockedError(JournalError):
    """Another process holds the journal directory."""


class RefusedError(PenstockError):
    """The other side refused: stale term or attempt, wrong token, unknown id (G8, G10)."""

    exit_code = 7


class AuthenticationError(RefusedError):
    """A token or certificate is missing, wrong or not trusted, or only one side has TLS (G10)."""


class FollowedError(RefusedError):
    """Another process has registered at this worker's address after this one."""


class SeatTakenError(RefusedError):
    """Another consumer of the group has this rank, and is alive."""


class ResizedError(RefusedError):
    """The group of consumers was resized: this one belongs to a former generation of it."""


class ProtocolError(RefusedError):
    """Bytes on a stream are not a frame of this protocol, or of a version we speak."""


class NotFoundError(RefusedError):
    """A dataset, job or worker of that id does not exist."""


class InSituError(PenstockError):
    """A training cannot go on in place: what it needs for that is gone or fails itself."""

    exit_code = 4


class RestartNeededError(InSituError):
    """The training can go on, but not in this process: start it again at its last commit.

    A program that catches it ends with its `exit_code`, for the launcher to see.
    """

    exit_code = 75


_CHAIN_MAX = 16
_CHAIN_CHARS_MAX = 500
_TRACEBACK = "Traceback (most recent call last):"


def exception_chain(error: BaseException) -> tuple[str, ...]:
    """An exception and what it came from, each `Type: message`, the outermost first.

    What TensorFlow tells of an exception in a Python function is text, with the tracebacks of the
    whole chain in it: that chain follows. At most 16 entries of 500 characters, in one line each.
    """
    out: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(out) < _CHAIN_MAX:
        seen.add(id(at))
        try:
            message = str(at)
        except Exception as second:  # a user's __str__ may do anything
            message = f"<its message cannot be shown: {type(second).__name__}>"
        head, *tracebacks = message.split(_TRACEBACK)
        out.append(f"{type(at).__name__}: {head}")
        for text in reversed(tracebacks):
            raised = next((line for line in text.splitlines() if line and line[0].isalpha()), "")
            out += [raised] if raised else []
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return tuple(_in_one_line(text) for text in out[:_CHAIN_MAX])


def _in_one_line(text: str) -> str:
    line = " ".join(text.encode(errors="replace").decode().split()).rstrip(":")
    return line if len(line) <= _CHAIN_CHARS_MAX else f"{line[: _CHAIN_CHARS_MAX - 2]} …"
