"""Texts that differ in values only: numbers, addresses, paths and ids are masked."""

from __future__ import annotations

import hashlib
import re

_MASKS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?"), "<time>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<ip>"),
    (re.compile(r"(?<![\w/.])/(?:[\w.+@=-]+/)*[\w.+@=-]+"), "<path>"),
    (re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]{6,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"(?<![A-Za-z\d])[-+]?\d+(?:[.:,]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE), "<n>"),
    (re.compile(r"(?<=[A-Za-z_-])\d+"), "<n>"),
)


def mask(text: str) -> str:
    """The line with what varies in it named by kind only."""
    for pattern, name in _MASKS:
        text = pattern.sub(name, text)
    return text


def fingerprint(text: str) -> str:
    """16 hexadecimal digits that lines of the same masked text have in common."""
    return hashlib.sha256(mask(text).encode()).hexdigest()[:16]
