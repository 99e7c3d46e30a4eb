"""The soak: random faults on a real cluster, and every epoch checked against a plain local run.

Theory of operation. `chaos` makes the whole schedule from a seed: what happens when, to whom. `run`
starts a cluster and trainers, each a process of its own, and has `faults` carry the schedule out.
A trainer (`trainer`, kept by `trainers`) reads the pipelines of `data` and writes down the hash of
each element as it comes; `verdicts` compares that with plain tf.data and with every other reading
of the same (pipeline, seed, epoch). `chaos` and `verdicts` are pure.
"""
