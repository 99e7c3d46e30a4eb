"""Test doubles that users of penstock's parts need too.

They are shipped with the package because whoever embeds the journal in another program, or writes
a worker of their own, wants to test it the same way that we do. Each double keeps the contract of
the real thing, and is itself tested against it. Nothing here is imported by the rest of penstock,
but for the benchmarks.

`disk` is a disk in memory that forgets what was not synced, and enumerates what a crash may leave.
`certificates` is an authority that issues certificates for TLS on this machine.
"""
