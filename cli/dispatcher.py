"""`penstock dispatcher`: deals the work, and journals what it decides."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..security.settings import Security
from ..timing import Timing
from .logs import LEVELS, configure
from .security import TlsCa, TlsCert, TlsKey, TokenFile

_DEFAULTS = Timing()
_Journal = Annotated[
    str,
    typer.Option(
        metavar="DIR|none",
        help="Where everything that was decided is kept. A dispatcher started again on the same "
        "directory goes on where the last one ended; 'none' keeps it in memory only.",
    ),
]
_WorkerTimeout = Annotated[
    float,
    typer.Option(help="Seconds of silence after which a worker's work is given to others."),
]
_ClientTimeout = Annotated[
    float, typer.Option(help="The same for a trainer; what it has open is given up.")
]
_ProgressTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="An attempt that makes nothing for so long, though its worker is alive and has room, "
        "is stuck and made elsewhere; 0 never says so.",
    ),
]
_WarnAfter = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="A wait that lasts longer is named in log and status."),
]
_Standby = Annotated[
    bool,
    typer.Option(
        "--standby",
        help="While another dispatcher has the journal, wait, and take over when it dies or stops "
        "renewing its lease. Give workers and trainers both addresses: HOST:PORT,HOST:PORT.",
    ),
]
_Lease = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="A dispatcher that does not renew its hold of the journal for so long may be "
        "replaced by a standby. The same for both.",
    ),
]
_LogFormat = Annotated[
    str,
    typer.Option(metavar="human|json", help="Log lines for people, or one JSON object a line."),
]
_Announce = Annotated[
    str,
    typer.Option(
        metavar="FILE|-",
        envvar="PENSTOCK_ANNOUNCE",
        help='When serving, write one line {"address": "HOST:PORT", "pid": N} there, for '
        "supervisors; '-' is standard output. A standby that waits writes one with "
        '"standby": true first. `penstock health` reads it.',
    ),
]
_StopOnStdinEof = Annotated[
    bool,
    typer.Option("--stop-on-stdin-eof", help="Stop when standard input ends, with the supervisor."),
]
_FailoverExtension = Annotated[
    str,
    typer.Option(
        metavar="MODULE::CLASS",
        help="A subclass of penstock.FailoverExtension that says what is done about each failure, "
        "looked up from the current directory too (docs/failover.md).",
    ),
]
_FailoverDeadline = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="How long it may take to answer before the default is taken."
    ),
]
_AlertUrlFile = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="A file with the URL of a webhook, which is told of decisions that need a person; "
        "they are in the log as ALERT anyway.",
    ),
]
_SnapshotRecords = Annotated[
    int,
    typer.Option(
        min=1,
        hidden=True,  # for tests: what happens once in hours is to happen in seconds
        help="Journal records after which a snapshot is taken.",
    ),
]


def dispatcher(
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 serves everybody."),
    port: int = typer.Option(5050, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    journal: _Journal = "./penstock-journal",
    standby: _Standby = False,
    lease: _Lease = _DEFAULTS.lease_s,
    worker_timeout: _WorkerTimeout = _DEFAULTS.worker_timeout_s,
    client_timeout: _ClientTimeout = _DEFAULTS.client_timeout_s,
    progress_timeout: _ProgressTimeout = _DEFAULTS.progress_timeout_s,
    warn_after: _WarnAfter = _DEFAULTS.warn_after_s,
    time_scale: float = typer.Option(
        1.0, help="Multiplies every interval and deadline that is not given here."
    ),
    log_level: str = typer.Option("info", help=f"Least severe level shown: {', '.join(LEVELS)}."),
    log_format: _LogFormat = "human",
    announce: _Announce = "",
    stop_on_stdin_eof: _StopOnStdinEof = False,
    snapshot_records: _SnapshotRecords = 20_000,
    failover_extension: _FailoverExtension = "",
    failover_deadline: _FailoverDeadline = 10.0,
    alert_url_file: _AlertUrlFile = "",
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    token_file: TokenFile = "",
) -> None:
    """Runs the dispatcher: one for a cluster.

    Workers and trainers are given its HOST:PORT. It deals the splits of every dataset to the
    workers, notices who died, and has their work done again. No data passes through it, so it
    needs little; what it needs is a disk that keeps what it fsyncs, for --journal.

    It may be killed at any moment and started again: data keeps flowing, nothing that runs is
    restarted. With --standby a second one, on the same journal directory and another port, takes
    over by itself. SIGTERM and Ctrl-C end it cleanly: exit code 0. Else 2 is a bad option, 3 a
    taken address, 6 a journal that is damaged, locked, taken over, or cannot be written.
    """
    _check(log_level, log_format, failover_deadline)
    given = {
        "worker_timeout_s": worker_timeout,
        "client_timeout_s": client_timeout,
        "progress_timeout_s": progress_timeout,
        "warn_after_s": warn_after,
        "lease_s": lease,
    }
    configure(log_level, "json" if log_format == "json" else "human")
    _serve(
        host=host,
        port=port,
        journal=None if journal == "none" else Path(journal),
        standby=standby,
        timing=_timing(given, time_scale),
        announce=announce or None,
        stop_on_stdin_eof=stop_on_stdin_eof,
        snapshot_records=snapshot_records,
        failover_extension=failover_extension,
        failover_deadline_s=failover_deadline,
        alerts=_alerts(alert_url_file),
        security=Security(tls_ca, tls_cert, tls_key, token_file),
    )


def _alerts(path: str) -> Any:
    if not path:
        return None
    from ..recovery.alerts import Alerts, url_in  # not at the head: few use it

    return Alerts(url_in(path, "--alert-url-file"))


def _serve(**options: Any) -> None:
    # Not at the head: gRPC takes longer to load than the other commands take to run.
    import asyncio

    from ..dispatcher.server import DispatcherOptions, serve

    asyncio.run(serve(DispatcherOptions(**options)))


def _check(log_level: str, log_format: str, failover_deadline: float) -> None:
    if not 0 < failover_deadline < float("inf"):
        raise UsageError(f"--failover-deadline must be a number above 0, not {failover_deadline}")
    if log_level.lower() not in LEVELS:
        raise UsageError(f"--log-level must be one of {', '.join(LEVELS)}, not {log_level!r}")
    if log_format not in ("human", "json"):
        raise UsageError(f"--log-format must be human or json, not {log_format!r}")


def _timing(given: dict[str, float], scale: float) -> Timing:
    """The intervals; one that is not the default is meant as it was given."""
    for name, value in (*given.items(), ("time_scale_s", scale)):
        flag = "--" + name.removesuffix("_s").replace("_", "-")
        if name == "progress_timeout_s":
            if not 0 <= value < float("inf"):
                raise UsageError(f"{flag} must be a number above 0, or 0 for never, not {value}")
        elif not 0 < value < float("inf"):
            raise UsageError(f"{flag} must be a number above 0, not {value}")
    defaults = {name: getattr(Timing(), name) for name in given}
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    return dataclasses.replace(Timing().scaled(scale), **changed)
