"""JSON documents of rules and filters: read with limits, checked field by field, written whole."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from ...errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX = 8 << 20


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it cannot be read, is longer than `FILE_BYTES_MAX`, or is not JSON.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path} has more than {FILE_BYTES_MAX} bytes")
    return parse_json(content, str(path))


def parse_json(content: bytes | str, name: str) -> Any:
    """The value that a JSON text stands for; raises UsageError, with `name`, if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}") from None


def entries(document: Any, *, schema: str, field: str, version: int, name: str) -> list[Any]:
    """The list `field` of a document `{"schema": …, "version": …, field: […]}`.

    Raises:
        UsageError: it is another kind of document, or of a version that is not known.
    """
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise UsageError(f'{name} must be an object whose "schema" is "{schema}"')
    if document.get("version") != version:
        raise UsageError(
            f"{name} is of version {document.get('version')!r:.20}; this penstock knows {version}"
        )
    found = document.get(field)
    if not isinstance(found, list):
        raise UsageError(f'{name} must have a list "{field}"')
    return found


def write_json(path: Path, document: Any) -> None:
    """Replaces a file by a new one that is whole and on the disk, or leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def text_of(fields: dict[str, Any], key: str, name: str, *, chars_max: int = 1000) -> str:
    """The text `key` of an entry, which must not be empty."""
    value = fields.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= chars_max:
        raise UsageError(f"{name}: {key} must be a text of 1 to {chars_max} characters")
    return value


def choice_of(fields: dict[str, Any], key: str, name: str, values: tuple[str, ...]) -> str:
    """The text `key` of an entry, one of `values`, of which the first is meant if it is missing."""
    value = fields.get(key, values[0])
    if value not in values:
        raise UsageError(f"{name}: {key} must be {', '.join(values)}, not {value!r:.40}")
    return str(value)


def texts_of(fields: dict[str, Any], key: str, name: str, *, at_most: int = 50) -> tuple[str, ...]:
    """The list of texts `key` of an entry; empty if it is missing."""
    value = fields.get(key, [])
    if (
        not isinstance(value, list)
        or len(value) > at_most
        or not all(isinstance(one, str) and len(one) <= 10_000 for one in value)
    ):
        raise UsageError(f"{name}: {key} must be a list of at most {at_most} texts")
    return tuple(value)
