"""Diagnosis: from log lines to the root cause of a failure (DESIGN section 10, after Acme).

Theory of operation. Lines go through these steps, each a module of its own:

    lines -> scanner (what is routine is passed by) -> episodes (tracebacks, put together)
          -> filters -> rules -> findings -> verdict -> Diagnosis

`diagnose` does that in memory. Around it stand what needs files or the network, and is asked only
by the command line: past `incidents` (SQLite), what was learned and waits for a person's yes
(`learning`), Acme's rule files (`acme`). `result` has the `Diagnosis`.
"""

from .entry import diagnose
from .result import Category, Diagnosis

__all__ = ["Category", "Diagnosis", "diagnose"]
