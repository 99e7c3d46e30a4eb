"""Who does which work: the dispatcher journals what it decides, and no element passes through it.

Theory of operation. A pure core in a thin shell. `State` is what the journal's events add up to:
`apply` is its only mutator, so replaying the journal gives the same state, byte for byte. Modules
of pure functions look at the state and return events: `admission` (what a peer's request means, or
why it is refused), `scheduler` (who gets which attempt, who is lost), `lanes` (the order in which
an epoch's splits are wanted), `caching` (what is cached where), `faults` and `failover` (what has
failed, and what is done about it), `quarantine` and `memory` (elements that are left out, and that
kill workers). None of them has a clock, I/O, threads or randomness.

The shell: `engine` applies and appends events in one step of the event loop, lets the scheduler run
once a loop turn when something changed, and wakes exactly those peers whose view changed (`news`).
`commit` makes appended records durable, many with one fsync; no reply leaves before the records
that it rests on are durable, and a journal that fails ends the process. `liveness` tells from the
heartbeats who is silent. `deciding` puts faults to failover extensions. `service` translates gRPC,
`server` starts and stops it all.

The rules that everything here rests on:

1. Applied at once, shown when durable (docs/decisions.md, 3).
2. Attempt numbers only grow over the life of the journal, so a stale message names a number that
   is not current and changes nothing.
3. A delivered split is final; an epoch is over when each of its splits is, and the sums agree.
4. What a peer should have is a function of the state; replies hold all of it, never a difference.
"""
