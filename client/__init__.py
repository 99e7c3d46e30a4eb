"""The trainer's side: from placements and chunks to one sequence of elements, each exactly once.

Theory of operation. A `Session` is one consumption of one job. It owns a control thread, which
long-polls the dispatcher (`control`), and a connection with one thread for every worker that
holds something for it (`stream`). Both turn what they hear into events for the *core* of the
epoch concerned (`lanes`, `splits`), under the session's lock; the core answers with instructions
(fetch, credit, release, done, problem, fail), which the session carries out after the lock is
released. Only the core decides what is delivered next, what is stale, and when an epoch has ended;
it has no clock, no I/O and no threads, so the simulation runs the very same code.

The rules that everything here rests on:

1. The core's memory is the truth about delivery: per split, the index wanted next, and the hashes
   of all elements before it. Data that was received stays valid whatever happens to its worker.
2. Views from the dispatcher are whole and only grow in (term, version): the newest one wins.
3. An attempt number below the newest one seen for its split is stale and changes nothing.
4. An end of epoch is a proof: every split's END agreed with what was received here, everything
   was handed over, and the dispatcher has acknowledged it. No error is ever turned into an end.
5. No thread waits without saying, after `warn_after_s`, what for.

`reader` (numpy, no TensorFlow) and `dataset` (tf.data) put elements into the trainer's form;
`ledger` records what was delivered and `audit` checks such a record; `embedded` is a cluster on
this machine. TensorFlow is imported in `dataset` and `groundtruth` only, when they are used.
"""
