"""`penstock health`: does a daemon do its work? For the health checks of containers and pods."""

from __future__ import annotations

import json as jsonlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import RefusedError, UsageError

Role = Literal["dispatcher", "standby", "worker"]

#: The addresses of a socket that listens on all of them, and where this machine reaches it.
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked.

    Attributes:
        role: what it is; a `standby` is a dispatcher that waits for another one's journal.
        address: `host:port` that it is reached by from here.
        pid: its process id on this machine, if it said so.
    """

    role: Role
    address: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What was found out.

    Attributes:
        healthy: whether it does its work.
        role: what was asked; None if nobody was there to ask.
        address: where.
        detail: what was seen, for people.
    """

    healthy: bool
    role: Role | None
    address: str
    detail: str


def health(
    announced: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            envvar="PENSTOCK_ANNOUNCE",
            help="Ask the daemon that announced itself there (its --announce), whatever it is.",
        ),
    ] = "",
    dispatcher: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Ask the dispatcher at this address.")
    ] = "",
    worker: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Ask the worker at this address.")
    ] = "",
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long the answer may take.")
    ] = 10.0,
    json: bool = typer.Option(False, "--json", help="Print what was found as one JSON object."),
) -> None:
    """Asks a daemon whether it does its work.

    A dispatcher is asked through the standard gRPC health service, a worker by the greeting that
    every trainer begins with: it must answer, and have been registered by a dispatcher. A
    dispatcher that stands by does not listen yet: its process must be there.

        penstock worker --announce /run/worker.json & penstock health --announced /run/worker.json

    An address that is given is asked in place of an announced one. Exits with 0 when the daemon
    is healthy, with 1 when it is not or cannot be reached, with 2 for a bad option.
    """
    if dispatcher and worker:
        raise UsageError("--dispatcher and --worker: one daemon is asked at a time")
    if not (dispatcher or worker or announced):
        raise UsageError(
            "whom to ask? Name --dispatcher HOST:PORT, --worker HOST:PORT, or the file of the"
            " daemon's --announce with --announced or PENSTOCK_ANNOUNCE"
        )
    found = _check(announced, dispatcher, worker, timeout)
    if json:
        typer.echo(jsonlib.dumps(asdict(found)))
    else:
        typer.echo(("healthy: " if found.healthy else "unhealthy: ") + found.detail)
    raise typer.Exit(0 if found.healthy else 1)


def _check(announced: str, dispatcher: str, worker: str, timeout_s: float) -> Health:
    if dispatcher:
        _split("--dispatcher", dispatcher)
        return ask(Target("dispatcher", dispatcher), timeout_s)
    if worker:
        _split("--worker", worker)
        return ask(Target("worker", worker), timeout_s)
    try:
        target = read_announcement(Path(announced))
    except FileNotFoundError:
        detail = f"no daemon has announced itself in {announced} yet"
        return Health(False, None, "", detail)
    except (OSError, ValueError) as error:
        return Health(False, None, "", f"cannot use the announcement {announced}: {error}")
    return ask(target, timeout_s)


def read_announcement(path: Path) -> Target:
    """Reads what a daemon wrote for its `--announce`.

    A worker may be known to trainers by a name that leads here from their machines only, so it is
    asked where it listens.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an announcement.
    """
    said = jsonlib.loads(path.read_text(encoding="utf-8"))
    if not isinstance(said, dict):
        raise ValueError("it holds no JSON object")
    address, pid = said.get("listen", said.get("address")), said.get("pid")
    if not isinstance(address, str) or not isinstance(pid, int):
        raise ValueError("it has no address or no pid")
    host, port = _split("its address", address)
    role: Role = "worker" if "worker" in said else "standby" if "standby" in said else "dispatcher"
    return Target(role, _join(_LOOPBACKS.get(host, host), port), pid)


def ask(target: Target, timeout_s: float) -> Health:
    """Asks one daemon.

    Args:
        target: whom.
        timeout_s: how long the answer may take, in seconds.
    """
    ask_one = {"dispatcher": _ask_dispatcher, "worker": _ask_worker, "standby": _look_for_standby}
    healthy, detail = ask_one[target.role](target, timeout_s)
    return Health(healthy, target.role, target.address, detail)


def _ask_dispatcher(target: Target, timeout_s: float) -> tuple[bool, str]:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from ..security.access import Access
    from ..security.channels import open_channel
    from ..security.faults import find_fault
    from ..security.settings import Security

    access = Access.load(Security.from_environment())
    # A proxy of the environment is for the way out, not for the daemon beside us.
    with open_channel(target.address, access, (("grpc.enable_http_proxy", 0),)) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            fault = find_fault(target.address, access)
            what = fault or f"{error.code().name}: {error.details()}"
            return False, f"the dispatcher at {target.address} does not answer ({what})"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return serving, f"the dispatcher at {target.address} says {status}"


def _ask_worker(target: Target, timeout_s: float) -> tuple[bool, str]:
    import asyncio

    from ..dispatcher.probe import greeting
    from ..security.access import Access
    from ..security.settings import Security

    access = Access.load(Security.from_environment())
    host, port = _split("the address", target.address)
    where = f"the worker at {target.address}"
    try:
        worker = asyncio.run(asyncio.wait_for(greeting(host, port, "health", access), timeout_s))
    except asyncio.TimeoutError:
        return False, f"{where} did not answer within {timeout_s:g} s"
    except (OSError, EOFError, RefusedError) as error:
        return False, f"{where} does not answer: {error}"
    if not worker:
        return False, f"{where} has not been registered by a dispatcher yet"
    return True, f"{where} serves as {worker}"


def _look_for_standby(target: Target, timeout_s: float) -> tuple[bool, str]:
    del timeout_s  # nobody is waited for
    who = f"the standby dispatcher of {target.address} (process {target.pid})"
    try:
        os.kill(target.pid, 0)
    except ProcessLookupError:
        return False, f"{who} has ended"
    except PermissionError:
        pass  # it is there, and another user's
    return True, f"{who} waits for the journal"


def _split(what: str, address: str) -> tuple[str, int]:
    """Host, without brackets, and port.

    Raises:
        UsageError: it is not HOST:PORT; names `what`.
    """
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (port.isdecimal() and port.isascii() and 0 < int(port) < 1 << 16):
        raise UsageError(f"{what} takes HOST:PORT, not {address!r}")
    if not host or (":" in bare and bare == host):
        raise UsageError(f"{what} takes HOST:PORT, [HOST]:PORT for IPv6, not {address!r}")
    return bare, int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
