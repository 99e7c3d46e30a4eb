"""Diagnosis: from log lines to the root cause of a failure (DESIGN section 10, after Acme).

`result` has the `Diagnosis` that strategies and people are given; `diagnose` makes one of lines.
"""

from .entry import diagnose
from .result import Category, Diagnosis

__all__ = ["Category", "Diagnosis", "diagnose"]
