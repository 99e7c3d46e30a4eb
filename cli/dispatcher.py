"""`penstock dispatcher`: deals the work, and journals what it decides."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import typer

from ..errors import UsageError
from ..timing import Timing
from .logs import LEVELS, configure


def dispatcher(
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 serves everybody."),
    port: int = typer.Option(5050, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    journal: str = typer.Option(
        "./penstock-journal",
        metavar="DIR|none",
        help="Where everything that was decided is kept. A dispatcher started again on the same "
        "directory goes on where the last one ended; 'none' keeps it in memory only.",
    ),
    worker_timeout: float = typer.Option(
        Timing().worker_timeout_s,
        help="Seconds of silence after which a worker's work is given to others.",
    ),
    client_timeout: float = typer.Option(
        Timing().client_timeout_s, help="The same for a trainer; what it has open is given up."
    ),
    time_scale: float = typer.Option(
        1.0, help="Multiplies every interval and deadline that is not given here."
    ),
    log_level: str = typer.Option("info", help=f"Least severe level shown: {', '.join(LEVELS)}."),
    log_format: str = typer.Option(
        "human", metavar="human|json", help="Log lines for people, or one JSON object a line."
    ),
    announce: str = typer.Option(
        "",
        metavar="FILE|-",
        help='When serving, write one line {"address": "HOST:PORT", "pid": N} there, for '
        "supervisors; '-' is standard output.",
    ),
    stop_on_stdin_eof: bool = typer.Option(
        False, "--stop-on-stdin-eof", help="Stop when standard input ends, with the supervisor."
    ),
) -> None:
    """Runs the dispatcher: one for a cluster.

    Workers and trainers are given its HOST:PORT. It deals the splits of every dataset to the
    workers, notices who died, and has their work done again. No data passes through it, so it
    needs little; what it needs is a disk that keeps what it fsyncs, for --journal.

    It may be killed at any moment and started again: data keeps flowing meanwhile, and nothing
    that runs is restarted. SIGTERM and Ctrl-C end it cleanly.

    Exits with 0 when stopped, 2 for a bad option, 3 when the address is taken, 6 when the journal
    is locked by another dispatcher, damaged, or cannot be written.
    """
    _check(log_level, log_format)
    timing = _timing(worker_timeout, client_timeout, time_scale)
    configure(log_level, "json" if log_format == "json" else "human")
    # Not at the head: gRPC takes longer to load than the other commands take to run.
    from ..dispatcher.server import DispatcherOptions, serve

    options = DispatcherOptions(
        host=host,
        port=port,
        journal=None if journal == "none" else Path(journal),
        timing=timing,
        announce=announce or None,
        stop_on_stdin_eof=stop_on_stdin_eof,
    )
    asyncio.run(serve(options))


def _check(log_level: str, log_format: str) -> None:
    if log_level.lower() not in LEVELS:
        raise UsageError(f"--log-level must be one of {', '.join(LEVELS)}, not {log_level!r}")
    if log_format not in ("human", "json"):
        raise UsageError(f"--log-format must be human or json, not {log_format!r}")


def _timing(worker_timeout_s: float, client_timeout_s: float, scale: float) -> Timing:
    """The intervals; a timeout that is not the default is meant as it was given."""
    for name, value in (
        ("--worker-timeout", worker_timeout_s),
        ("--client-timeout", client_timeout_s),
        ("--time-scale", scale),
    ):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} must be a number above 0, not {value}")
    scaled = Timing().scaled(scale)
    given = {"worker_timeout_s": worker_timeout_s, "client_timeout_s": client_timeout_s}
    defaults = {name: getattr(Timing(), name) for name in given}
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    return dataclasses.replace(scaled, **changed)
