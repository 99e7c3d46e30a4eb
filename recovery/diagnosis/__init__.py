"""Diagnosis: from log lines to the root cause of a failure (DESIGN section 10, after Acme).

Theory of operation. Lines go through these steps, each a module of its own:

    lines -> scanner (what is routine is passed by) -> episodes (tracebacks, put together)
          -> filters -> rules -> findings -> verdict -> Diagnosis

`diagnose` does that in memory, and `screen` makes it quick. Around it stand what needs files, time
or the network, and is asked only by the command line:

    logs that are still written     follow (files) -> watch (what is told, and when)
    what happened before            incidents (SQLite)
    what was learned                learning -> pending (waits for a person's yes)
    a language model, if configured prompt -> model (HTTP) -> answer: a suggestion, never a verdict
    Acme's rule files               acme

`result` has the `Diagnosis`.
"""

from .entry import diagnose
from .result import Category, Diagnosis

__all__ = ["Category", "Diagnosis", "diagnose"]
