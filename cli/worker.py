"""`penstock worker`: runs pipelines, split by split, and serves their elements."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from typing import Annotated, Any, NoReturn

import typer

from ..errors import UsageError
from ..security.settings import Security
from ..timing import Timing
from .logs import configure
from .security import TlsCa, TlsCert, TlsKey, TokenFile

_WARN_AFTER_S = Timing().warn_after_s
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


_Dispatcher = Annotated[
    str,
    typer.Option(metavar="HOST:PORT[,HOST:PORT...]", help="The dispatcher, and its standbys."),
]
_Host = Annotated[
    str,
    typer.Option(help="Address to serve clients on; 0.0.0.0 for other machines' clients."),
]
_Port = Annotated[int, typer.Option(help="Port to serve clients on; 0 picks a free one.")]
_Advertise = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="Name or address that clients reach this machine by, if it is not that of --host.",
    ),
]
_Standby = Annotated[
    bool, typer.Option("--standby", help="Get no work until another worker fails.")
]
_Slots = Annotated[int, typer.Option(help="Splits to run at once ahead of need.")]
_MemoryLimit = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Memory for finished elements, such as 512MiB or 4GB."),
]
_Unix = Annotated[
    bool,
    typer.Option("--unix/--no-unix", help="Serve clients on this machine by a Unix socket, too."),
]
_CheckpointDir = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="Directory on a local disk for checkpoints, from which a restarted worker goes on;"
        " several workers may share it. Without it there are none.",
    ),
]
_CheckpointInterval = Annotated[
    str,
    typer.Option(
        metavar="SECONDS|auto|off",
        help="Work between two checkpoints of a split; auto: where they cost little beside it.",
    ),
]
_CacheDir = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="Directory for what pipelines cache (Put/Get): on a local disk, or one that several"
        " workers share. Without it this worker caches nothing.",
    ),
]
_CacheLimit = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Most that the cache may hold, such as 200GB; by default 80 % of the disk space that"
        " is free or the cache's own when the worker starts.",
    ),
]
_WarnAfter = Annotated[
    float, typer.Option(metavar="SECONDS", help="Log a wait that is longer than this.")
]
_TimeScale = Annotated[
    float, typer.Option(help="Multiplies every interval and deadline; below 1 for tests.")
]
_LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
_LogFormat = Annotated[str, typer.Option(help="human, or json: one object a line.")]
_Announce = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        envvar="PENSTOCK_ANNOUNCE",
        help="Once registered, write a JSON line with id, address and pid; - is standard output."
        " `penstock health` reads it.",
    ),
]
_StopOnStdinEof = Annotated[
    bool,
    typer.Option(
        "--stop-on-stdin-eof", help="Stop when standard input ends, as a supervisor's child."
    ),
]


_LastWords = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Where to say what is run. The next worker with that file takes on less if memory "
        "ended this one, and an element that kills one worker after the other is found.",
    ),
]
_LastExit = Annotated[
    int,
    typer.Option(
        metavar="CODE",
        envvar="PENSTOCK_LAST_EXIT",
        help="For supervisors: the exit code of the worker before this one; 137, 9 and -9 are "
        "taken for a death of memory.",
    ),
]

#: What is not simply an option of the worker.
_HANDLED_HERE = {"warn_after", "time_scale", "log_level", "log_format"}
_HANDLED_HERE |= {"tls_ca", "tls_cert", "tls_key", "token_file"}


def worker(
    dispatcher: _Dispatcher = "127.0.0.1:5050",
    host: _Host = "127.0.0.1",
    port: _Port = 0,
    advertise: _Advertise = "",
    standby: _Standby = False,
    slots: _Slots = 8,
    memory_limit: _MemoryLimit = "1GiB",
    unix: _Unix = True,
    checkpoint_dir: _CheckpointDir = "",
    checkpoint_interval: _CheckpointInterval = "auto",
    cache_dir: _CacheDir = "",
    cache_limit: _CacheLimit = "",
    warn_after: _WarnAfter = _WARN_AFTER_S,
    time_scale: _TimeScale = 1.0,
    log_level: _LogLevel = "info",
    log_format: _LogFormat = "human",
    last_words: _LastWords = "",
    last_exit: _LastExit = 0,
    announce: _Announce = "",
    stop_on_stdin_eof: _StopOnStdinEof = False,
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    token_file: TokenFile = "",
) -> None:
    """Runs pipelines, split by split, and serves their elements to trainers.

    Start as many as there is work for, on any machine that can read the data; each registers with
    the dispatcher and is given splits to produce. It may be killed, stopped or started at any
    time: its splits go to the others, and the trainer still gets every element exactly once.

        penstock worker --dispatcher head:5050 --host 0.0.0.0

    It needs the TensorFlow release of the trainer and the same paths to the files, and no GPU. A
    dispatcher that is away is waited for, and what runs goes on being served meanwhile. SIGTERM
    stops it cleanly. With --checkpoint-dir and a fixed --port, a worker that was killed goes on
    near where it was when it is started again.
    """
    given = dict(locals())
    try:
        configure(log_level, log_format)  # type: ignore[arg-type]
        timing = _timing(warn_after, time_scale)
    except ValueError as error:
        raise UsageError(str(error)) from None
    options = {name: value for name, value in given.items() if name not in _HANDLED_HERE}
    options["memory_limit"] = parse_size(memory_limit)
    options["cache_limit"] = parse_size(cache_limit) if cache_limit else 0
    options["security"] = Security(tls_ca, tls_cert, tls_key, token_file)
    _serve(timing=timing, **options)


def _serve(**options: Any) -> None:
    from ..worker.server import WorkerOptions, serve

    _leave(serve(WorkerOptions(**options)))


def _timing(warn_after_s: float, scale: float) -> Timing:
    """The intervals; a --warn-after that is not the default is meant as it was given."""
    if not 0 < warn_after_s < float("inf"):
        raise UsageError(f"--warn-after takes a number of seconds above 0, not {warn_after_s}")
    scaled = Timing().scaled(scale)
    if warn_after_s == _WARN_AFTER_S:
        return scaled
    return dataclasses.replace(scaled, warn_after_s=warn_after_s)


def _leave(code: int) -> NoReturn:
    """Ends the process without tearing the interpreter down: everything of ours is closed.

    A thread that is still inside TensorFlow cannot be interrupted, and a teardown under it could
    hang. Without one it costs a second of CPU, which on a busy machine is more than a supervisor's
    patience between SIGTERM and SIGKILL.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def parse_size(text: str) -> int:
    """Bytes in a size such as 512MiB, 4GB, 1g or 1048576.

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"{text!r} is not a size such as 512MiB, 4GB or 1048576")
    return int(float(match[1]) * _UNITS[match[2]])
