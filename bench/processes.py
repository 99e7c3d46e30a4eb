"""What a process has used, as the system tells it."""

from __future__ import annotations

import os
from pathlib import Path


def process_cpu_s(pid: int) -> float | None:
    """CPU seconds, user and system, that a process has used; None where that is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # only Linux tells in this way
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_rss_bytes(pid: int) -> float | None:
    """Bytes of memory that a process has in use; None where that is not told."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
    except OSError:  # only Linux tells in this way
        return None
    return float(int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE"))
