"""The functional fault tests: a fault each, on a real cluster, judged against plain tf.data.

Theory of operation. `catalog` names the tests: what cluster each needs, and a function that does
the fault and says what must be true afterwards. `run` writes the data, computes the ground truth
with plain tf.data, reads the epochs once undisturbed for their order, and plays the tests one by
one, each on a `stage`: a fresh cluster of daemon processes and a training process (`trainer`, kept
by `consumer`). The trainer stops at given numbers of elements until it is told to go on, so a fault
hits at a moment that is counted in elements, and never after the end of the epoch. `moments`,
`checkpoints` (but for the reading of files) and `result` are pure.

Not to be confused with tests/faults, which kills a process at every failpoint of the code.
"""
