"""For Keras: `model.fit` whose failing steps are recovered in place.

Theory of operation. Keras' train function takes a batch from its iterator and trains on it, in one
graph; when that fails, the batch is gone. A callback puts a function of ours in its place, which
takes the batch first and then runs the model's own `train_step`, compiled as Keras would, in a step
of a session. What a half-done step may have touched (weights, optimizer, metrics, seeds) is read
before it and assigned again before a retry. TensorFlow shares the memory of what was read until it
is written to, so that costs one copy of the model a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ..errors import InSituError, UsageError
from .in_situ import InSituSession

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from ..recovery.policy import RecoveryPolicy
    from ..recovery.report import SessionReport


class _Given:
    """The iterator that Keras made for an epoch, the first time; then one of our own."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._iterator: Any = None
        if getattr(dataset, "penstock", None) is not None:
            self.penstock = dataset.penstock

    def give(self, iterator: Any) -> None:
        """Keras began with this one."""
        self._iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        given, self._iterator = self._iterator, None
        if given is not None:
            return iter(given)
        if self._dataset is None:
            raise InSituError("the batches cannot be fetched again: pass the dataset of fit, too")
        return iter(self._dataset)


class KerasInSitu(keras.callbacks.Callback):  # type: ignore[misc]
    """Made by `keras_in_situ`; `report()` says what happened."""

    def __init__(self, dataset: Any, more: dict[str, Any], *, snapshot: bool) -> None:
        super().__init__()
        self._given = _Given(dataset)
        self._more, self._snapshot = more, snapshot
        self._session: InSituSession | None = None
        self._original: Any = None
        self._iterator: Any = None

    def report(self) -> SessionReport:
        """What happened in the last `fit`.

        Raises:
            UsageError: there was none.
        """
        if self._session is None:
            raise UsageError("there is no report before fit")
        return self._session.report()

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        if keras.backend.backend() != "tensorflow":
            raise UsageError("keras_in_situ needs Keras' TensorFlow backend")
        if model.steps_per_execution != 1:
            raise UsageError("keras_in_situ needs compile(steps_per_execution=1)")
        if model.distribute_strategy.num_replicas_in_sync != 1:
            raise UsageError("keras_in_situ is for one replica in a process")
        more = dict(self._more)
        if more["incidents"]:
            more["settable"] = {"optimizer": model.optimizer, **(more["settable"] or {})}
        state = _State(model) if self._snapshot else None
        self._session = InSituSession(
            self._given,
            snapshot=state.read if state is not None else None,
            restore=state.assign if state is not None else None,
            **more,
        )
        self._original, self._iterator = model.train_function, None
        model.train_function = _Steps(self, self._session, state)

    def on_train_end(self, logs: Any = None) -> None:
        self.give_back()

    def give_back(self) -> None:
        """The model has its own train function again."""
        if isinstance(self.model.train_function, _Steps):
            self.model.train_function = self._original
        if self._session is not None:
            self._session.close()

    def see(self, iterator: Any) -> None:
        """Keras takes its next batch from this iterator; another one is another epoch's."""
        if iterator is not self._iterator:
            assert self._session is not None
            if self._iterator is not None:
                self._session.end_epoch()
            self._iterator = iterator
            self._given.give(iterator)


class _Steps:
    """In the place of the model's train function."""

    def __init__(self, callback: KerasInSitu, session: InSituSession, state: _State | None) -> None:
        self._callback, self._session, self._state = callback, session, state
        self._model = callback.model
        self._patches, self._train = session.patches, self._compiled()

    def _compiled(self) -> Any:
        """The model's step, compiled as Keras would."""
        step = self._model.train_step
        if self._model.run_eagerly:
            return step
        return tf.function(
            step,
            reduce_retracing=True,
            jit_compile=self._model.jit_compile,
            autograph=False,
        )

    def __call__(self, iterator: Any) -> Any:
        """One step; what Keras shows of it."""
        self._callback.see(iterator)
        try:
            return self._step()
        except StopIteration:
            raise
        except BaseException:
            # Keras does not tell callbacks that `fit` ends by an error.
            self._callback.give_back()
            raise

    def _step(self) -> Any:
        step = self._session.next_step()
        if step is None:
            raise StopIteration  # the end of the epoch, for Keras
        logs: Any = None
        for attempt in step.attempts():
            with attempt:
                if self._patches != self._session.patches:  # what was traced is the old code
                    self._patches, self._train = self._session.patches, self._compiled()
                logs = self._train(step.batch)
        if logs is None:  # it was skipped
            return self._model.get_metrics_result()
        if self._state is not None:
            self._state.settle()
        return logs


class _State:
    """All that a step of a model changes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._variables: list[Any] = []
        self._read: Any = None
        self._assign: Any = None

    def read(self) -> Any:
        """What it is now."""
        if self._read is not None:
            return self._read()
        self._variables = self._found()
        return [one.read_value() for one in self._variables]

    def assign(self, state: Any) -> None:
        """Makes it what it was."""
        if self._assign is not None:
            self._assign(state)
            return
        # What the first step itself has made are metrics, which were empty before it.
        self._model.reset_metrics()
        for one, value in zip(self._variables, state, strict=True):
            one.assign(value)

    def settle(self) -> None:
        """A step went well: now all variables are there, and reading them can be compiled."""
        if self._read is not None:
            return
        variables = self._variables = self._found()

        @tf.function  # type: ignore[untyped-decorator]
        def read() -> Any:
            return [one.read_value() for one in variables]

        @tf.function  # type: ignore[untyped-decorator]
        def assign(state: Any) -> None:
            for one, value in zip(variables, state, strict=True):
                one.assign(value)

        assign(read())  # traced now, and not in the middle of a recovery
        self._read, self._assign = read, assign

    def _found(self) -> list[Any]:
        model, optimizer = self._model, self._model.optimizer
        found = [*model.variables, *model.metrics_variables]
        if optimizer is not None:
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            found += optimizer.variables
        return [one.value for one in {id(one): one for one in found}.values()]


def keras_in_situ(
    dataset: Any = None,
    policy: RecoveryPolicy | None = None,
    *,
    snapshot: bool = True,
    quarantine: str | os.PathLike[str] | None = None,
    incidents: str | os.PathLike[str] | bool | None = None,
    settable: dict[str, Any] | None = None,
    allow_patch: bool = False,
) -> KerasInSitu:
    """A callback with which `model.fit` recovers failing steps in place.

        recovery = penstock.keras_in_situ(served, policy, quarantine="skipped")
        model.fit(served, epochs=3, callbacks=[recovery])
        print(recovery.report())

    Args:
        dataset: that of `fit`, to fetch from it again; None if that is not needed.
        policy: what is done about faults; there is no rewind under `fit`.
        snapshot: read the state of the model before each step, and set it before a retry; without
            that, a step may be half done when it runs again.
        quarantine: a directory for batches that are skipped; None keeps none.
        incidents: a directory in which an operator finds what waits for an answer; True for the
            default one, None if nobody is to be asked.
        settable: what an operator may set, by name; `optimizer` is always there.
        allow_patch: the operator may replace functions of the program (`penstock repair --patch`);
            the step is compiled anew then.

    Raises:
        UsageError: an argument is not accepted; those of the model are looked at by `fit`.
    """
    more = {
        "policy": policy,
        "quarantine": quarantine,
        "incidents": incidents,
        "settable": settable,
        "allow_patch": allow_patch,
    }
    return KerasInSitu(dataset, more, snapshot=snapshot)
