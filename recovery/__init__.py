"""Recovery: what is done about a failure, on the side of the service and on that of the trainer.

Theory of operation. A failure becomes a record, the record is diagnosed, the diagnosis suggests a
strategy, the strategy is carried out, and its outcome is journaled:

    failure -> record -> diagnosis -> strategy -> action -> journaled outcome

`strategy` names the four strategies (DESIGN section 10). `diagnosis` turns logs into a root cause.
`failover` has the record and the default answer, `extensions` finds and asks users' classes.
In-situ recovery, of a training step in its living process, is `policy` (what the user wants),
`decisions` (the pure core), `guard` (the shell around it), and what carries decisions out:
`session` for loops, `in_situ` for functions. Where a person is asked, `waiting` makes an incident
(`incidents`, `reports`) and listens (`operator_socket`) for what `penstock repair` says. This
package decides and describes; the dispatcher and the client, which import it, act. It imports
neither of them, nor TensorFlow.
"""
