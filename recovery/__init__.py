"""Recovery: what is done about a failure, on the side of the service and on that of the trainer.

Theory of operation. A failure becomes a record, the record is diagnosed, the diagnosis suggests a
strategy, the strategy is carried out, and its outcome is journaled:

    failure -> record -> diagnosis -> strategy -> action -> journaled outcome

`strategy` names the four strategies (DESIGN section 10). `diagnosis` turns logs into a root cause.
`failover` has the record and the default answer, `extensions` finds and asks users' classes.
This package decides and describes; the dispatcher and the client, which import it, act. It imports
neither of them, nor TensorFlow.
"""
