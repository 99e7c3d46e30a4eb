"""`penstock journal`: looks into a dispatcher's journal, without changing it."""

from __future__ import annotations

import dataclasses
import itertools
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import typer

from ..errors import PenstockError

if TYPE_CHECKING:
    from ..journal import Entry, Survey

#: A payload longer than this is shown by its size only.
_DECODED_BYTES_MAX = 1 << 20
_DEPTH_MAX = 32
_TEXT_CHARS_MAX = 200
_BINARY_BYTES_SHOWN = 16

app = typer.Typer(
    no_args_is_help=True,
    help="""Looks into a dispatcher's journal. Takes no lock and changes nothing, so it may be used
    while the dispatcher runs.

    Exit codes: 0 the journal is whole, 6 it is damaged or there is none.""",
)

_DIRECTORY = typer.Argument(
    metavar="DIR", help="The dispatcher's journal directory.", exists=True, file_okay=False
)


@app.command()
def verify(
    directory: Path = _DIRECTORY,
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Reads the whole journal and checks everything that a restart would rely on.

    A record that was not finished when the machine stopped is no damage: it was never
    acknowledged, and the next start cuts it off.
    """
    from ..journal import verify as verify_journal

    try:
        survey = verify_journal(directory)
    except PenstockError as error:
        if json:
            typer.echo(jsonlib.dumps({"ok": False, **_described(error)}))
            raise typer.Exit(error.exit_code) from None
        raise _exit(error) from None
    if json:
        fields = dataclasses.asdict(survey)
        typer.echo(jsonlib.dumps({"ok": True, **fields}, default=str))
    else:
        _print_survey(survey)


@app.command()
def dump(
    directory: Path = _DIRECTORY,
    json: bool = typer.Option(False, "--json", help="Print one JSON object a line."),
    limit: int = typer.Option(0, "--limit", min=0, help="Stop after this many entries; 0: never."),
) -> None:
    """Prints the newest snapshot and every record after it.

    Of a damaged journal it prints what stands before the damage, then says where that is.
    """
    from ..journal import dump as dump_entries

    try:
        for entry in itertools.islice(dump_entries(directory), limit or None):
            typer.echo(_as_json(entry) if json else _as_text(entry))
    except PenstockError as error:
        raise _exit(error) from None


def _exit(error: PenstockError) -> typer.Exit:
    typer.echo(f"penstock: {error}", err=True)
    return typer.Exit(error.exit_code)


def _described(error: PenstockError) -> dict[str, Any]:
    from ..journal import DamageError

    if isinstance(error, DamageError):
        return {
            "error": str(error),
            "file": str(error.path),
            "offset": error.offset,
            "reason": error.reason,
        }
    return {"error": str(error)}


def _print_survey(survey: Survey) -> None:
    if survey.snapshot_seq or survey.snapshot_bytes:
        typer.echo(f"snapshot of record {survey.snapshot_seq}: {survey.snapshot_bytes} bytes")
    else:
        typer.echo("no snapshot")
    typer.echo(
        f"{survey.records} records after it, up to {survey.last_seq}: "
        f"{survey.bytes} bytes in {survey.segments} segments"
    )
    for path in survey.damaged_snapshots:
        typer.echo(f"warning: snapshot {path} is damaged; the records that it replaced are there")
    for name in survey.unknown:
        typer.echo(f"warning: {name} is not a file of the journal")
    if survey.torn_bytes:
        typer.echo(
            f"note: {survey.torn_bytes} bytes of an unfinished record at the end; it was never "
            f"acknowledged, and the next start cuts it off"
        )
    typer.echo("the journal is whole")


def _as_text(entry: Entry) -> str:
    decoded, value = _decoded(entry.payload)
    shown = jsonlib.dumps(value, ensure_ascii=False) if decoded else "(not msgpack)"
    if len(shown) > _TEXT_CHARS_MAX:
        shown = shown[:_TEXT_CHARS_MAX] + " …"
    return f"{entry.kind:8} {entry.seq:>10} {len(entry.payload):>9} B  {shown}"


def _as_json(entry: Entry) -> str:
    decoded, value = _decoded(entry.payload)
    line = {"kind": entry.kind, "seq": entry.seq, "bytes": len(entry.payload)}
    return jsonlib.dumps({**line, "payload": value} if decoded else line)


def _decoded(payload: bytes) -> tuple[bool, Any]:
    """(True, JSON-able value) of a payload that is one msgpack value; (False, None) if it is not.

    The msgpack library bounds every announced length by that of the payload.
    """
    if len(payload) > _DECODED_BYTES_MAX:
        return True, f"({len(payload)} bytes, too long to show)"
    try:
        return True, _plain(msgpack.unpackb(payload, strict_map_key=False), _DEPTH_MAX)
    except (ValueError, TypeError, msgpack.UnpackException):
        return False, None


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        return "(nested too deeply to show)"
    if isinstance(value, dict):
        return {str(_plain(k, 1)): _plain(item, depth - 1) for k, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, bytes):
        more = "…" if len(value) > _BINARY_BYTES_SHOWN else ""
        return f"({len(value)} bytes: {value[:_BINARY_BYTES_SHOWN].hex()}{more})"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return repr(value)
