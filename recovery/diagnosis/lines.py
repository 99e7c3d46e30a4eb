"""What a line of a log is made of: its text, a tag of who wrote it, its time, its level."""

from __future__ import annotations

import re

from .trial import LINE_CHARS_MAX

_TAIL_CHARS = 256
ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ISO = re.compile(r"(?<!\d)(\d{4}[-/]\d\d[-/]\d\d)[T ,](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?")
_GLOG = re.compile(r"(?<![A-Za-z])[IWEF](\d{4}) (\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")
_SYSLOG = re.compile(
    r"^(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d{1,2}) (\d\d:\d\d:\d\d)"
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
#: Times and the like within a prefix: what differs between two lines of the same writer.
_VOLATILE = re.compile(r"\d[\d:.,/T-]{4,}\d")
#: Who logs so means that he goes on. NCCL calls its errors warnings; so do not believe that one.
_SOFT = re.compile(
    r"(?<!NCCL )(?<![=.\w])(?-i:INFO)(?=[\]|: \t-])|(?<![A-Za-z])(?-i:I)\d{4} \d\d:|"
    r": (?-i:I) tensorflow/|"
    r"(?<!NCCL )\bWARN(?:ING)?\b|(?<![A-Za-z])W\d{4} \d\d:|\[W\d{3,}|"
    r"\b(?:retry(?:ing)?(?: in| after|\.\.\.| \(?\d| attempt)|will (?:retry|be retried)|"
    r"falling back|reconnecting|ignor(?:ed|ing)|skipping|recovered)\b|\"level\": ?\"(?:warn|info)",
    re.IGNORECASE,
)
_SECOND_FRACTION = 9


def cut(raw: bytes) -> str:
    """The text of a line, at most `LINE_CHARS_MAX` long: its beginning and its end.

    Colours and other control characters are taken out; bytes that are not UTF-8 are replaced.
    """
    if len(raw) > 4 * LINE_CHARS_MAX:  # so that no huge line is decoded
        raw = raw[: 3 * LINE_CHARS_MAX] + raw[-LINE_CHARS_MAX:]
    if b"\x1b" in raw:
        raw = ANSI.sub(b"", raw)
    text = raw.decode("utf-8", "replace").rstrip()
    if not text.isprintable():
        text = _UNPRINTABLE.sub("", text)
    if len(text) > LINE_CHARS_MAX:
        text = text[: LINE_CHARS_MAX - _TAIL_CHARS - 1] + "…" + text[-_TAIL_CHARS:]
    return text


def when(text: str) -> str | None:
    """A text that sorts as the line's time does, without the year; None if it shows no time.

    Years are left out since kernels and glog do not write them: one failure's lines are near.
    """
    if match := _ISO.search(text):
        day, clock, fraction = match[1][5:].replace("/", "-"), match[2], match[3]
    elif match := _GLOG.search(text):
        day, clock, fraction = f"{match[1][:2]}-{match[1][2:]}", match[2], match[3]
    elif match := _SYSLOG.match(text):
        month = _MONTHS.index(match[1]) // 3 + 1
        day, clock, fraction = f"{month:02}-{int(match[2]):02}", match[3], None
    else:
        return None
    return f"{day} {clock}.{(fraction or '').ljust(_SECOND_FRACTION, '0')}"


def is_soft(text: str) -> bool:
    """Whether the line says that its writer goes on: news, a warning, a retry."""
    return _SOFT.search(text) is not None


def tag_of(prefix: str) -> str:
    """What tells two writers apart in what stands before a message: a rank, a process, no time."""
    return _VOLATILE.sub("", prefix)
