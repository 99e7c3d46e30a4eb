"""Values as one line of text that is printed, stored and parsed: `KIND.VERSION.LENGTH.DATA.CHECK`.

DATA is LENGTH characters of base64 (of zlib, of msgpack), CHECK the xxh3-64 of all that precedes;
so a text that was cut, changed or mixed up with another kind is told apart, and nothing is read
that was not wholly written. It is safe in a URL and in a file's name. Lengths are checked before
anything is unpacked.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import msgpack
import xxhash

from ..errors import PositionError

#: A text is at most this long: it has to fit where one writes down a number.
TEXT_CHARS_MAX = 4096
_CONTENT_BYTES_MAX = 1 << 20


def seal(kind: str, version: int, content: object) -> str:
    """The text of plain values (numbers, strings, booleans, None and lists of them)."""
    data = base64.urlsafe_b64encode(zlib.compress(msgpack.packb(content), 9)).decode().rstrip("=")
    text = f"{kind}.{version}.{len(data)}.{data}"
    return f"{text}.{_check(text)}"


def unseal(kind: str, version: int, text: str) -> Any:
    """The inverse of `seal`.

    Raises:
        PositionError: it is damaged, or of another kind or version; the message says what is wrong.
    """
    parts = text[: 4 * TEXT_CHARS_MAX].split(".")
    if parts[0] != kind or len(parts) < 3:
        raise PositionError(f"this is not a position: it begins with {text[:20]!r}")
    if parts[1] != str(version):
        raise PositionError(
            f"the position is of version {parts[1][:20]!r}; this penstock knows {version}"
        )
    if len(text) > TEXT_CHARS_MAX:
        raise PositionError(f"the position is longer than {TEXT_CHARS_MAX} characters")
    if not parts[2].isascii() or not parts[2].isdigit():
        raise PositionError(f"the position is damaged: its length is {parts[2][:20]!r}")
    if len(parts) != 5 or len(parts[3]) != int(parts[2]) or len(parts[4]) != 16:
        have = len(parts[3]) if len(parts) > 3 else 0
        raise PositionError(
            f"the position is cut or has grown: {have} characters of {parts[2]}, and a check of"
            f" {len(parts[4]) if len(parts) > 4 else 0} of 16"
        )
    if _check(text.rpartition(".")[0]) != parts[4]:
        raise PositionError("the position is damaged: its check does not fit what it says")
    return _content(parts[3])


def _content(data: str) -> Any:
    try:
        packed = base64.b64decode(data + "=" * (-len(data) % 4), b"-_", validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, _CONTENT_BYTES_MAX)
        if not unpacker.eof or unpacker.unused_data:
            raise PositionError(f"the position holds more than {_CONTENT_BYTES_MAX} bytes")
        return msgpack.unpackb(content)
    except (binascii.Error, zlib.error, ValueError, msgpack.UnpackException) as error:
        if isinstance(error, PositionError):
            raise
        raise PositionError(f"the position is damaged: {error}") from None


def _check(text: str) -> str:
    return f"{xxhash.xxh3_64_intdigest(text.encode()):016x}"


def as_list(value: Any, name: str, length: int | None = None) -> list[Any]:
    """A list, of that length if one is given.

    Raises:
        PositionError: it is none.
    """
    if type(value) is not list or (length is not None and len(value) != length):
        raise PositionError(f"the position is damaged: {name} is not what it should be")
    return value


def as_number(value: Any, name: str, least: int = 0) -> int:
    """An unsigned number of 64 bits.

    Raises:
        PositionError: it is none, or less than `least`.
    """
    if type(value) is not int or not least <= value < 1 << 64:
        raise PositionError(f"the position is damaged: {name} is {value!r:.40}")
    return value


def as_kind(value: Any, kind: type[Any], name: str) -> Any:
    """A value of that very type; strings have at most 128 characters.

    Raises:
        PositionError: it is something else.
    """
    if type(value) is not kind or (kind is str and len(value) > 128):
        raise PositionError(f"the position is damaged: {name} is {value!r:.40}")
    return value
