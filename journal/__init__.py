"""The durable record log: what the dispatcher has acknowledged is in here, on the disk (G7).

Theory of operation. Records get sequence numbers 1, 2, 3, … and are appended to *segments*, files
named by their first number. `Log.append` only buffers; `Log.sync` writes everything buffered and
makes it durable with one fsync, however many appenders wait for it. A full segment is *sealed*:
its successor is created first, then the seal is written, so that a sealed segment without a
successor proves that a file is missing. Every new file is written under a temporary name, fsynced
and renamed, so only the end of the newest segment can ever be half written. A *snapshot* stands
for all records up to its number; what it replaces is deleted after it is durable. `Log.open`
locks the directory, reads the newest valid snapshot and the records after it, cuts a torn tail
(and says so), and refuses damage anywhere else. After a failed write or fsync the log only raises.

`format` has the bytes, `scan` tells a torn tail from damage, `recovery` checks the files against
each other, `lease` says who may write and why a writer that was replaced does no harm, `standby`
waits for that, `log` writes, `survey` looks without touching, `disk` is all the I/O.
"""

from __future__ import annotations

from .disk import Disk, File, RealDisk
from .format import PAYLOAD_BYTES_MAX
from .lease import Lease
from .log import SEGMENT_BYTES, Log
from .recovery import Records, Recovered
from .scan import DamageError
from .standby import Standby, hold
from .survey import Entry, Survey, dump, verify

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "SEGMENT_BYTES",
    "DamageError",
    "Disk",
    "Entry",
    "File",
    "Lease",
    "Log",
    "RealDisk",
    "Records",
    "Recovered",
    "Standby",
    "Survey",
    "dump",
    "hold",
    "verify",
]
