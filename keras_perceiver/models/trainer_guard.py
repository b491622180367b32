"""A guard that keeps the weights of a model when Keras' JAX trainer raises an error.

During `fit`, `evaluate` and `predict`, that trainer moves the values out of the variables
of the model and passes them from step to step. Keras restores them at the end, but not
after every error, and not for another thread. Only this module uses private names of
Keras' trainers and variables.
"""

import contextlib
import functools
import threading
from typing import Any

import keras


class _State:
    """Values that the trainer has moved out of the variables.

    Attributes:
        variables: Tuple of lists of `keras.Variable`.
        values: Tuple of lists of arrays, their values after the last step.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._is_training = False
        self.clear()

    def clear(self):
        self.variables = self.values = ()

    @contextlib.contextmanager
    def only_user(self, name):
        """Context in which only this thread may use the model, in the named method."""
        if not self._lock.acquire(blocking=False):
            if self._is_training:
                # Waiting could take forever, since `fit` may wait for that thread.
                raise RuntimeError(
                    "While `fit` runs, only one thread may use a model on JAX. Received: "
                    f"a call of `{name}` in another thread. Call it in a callback, or "
                    "after `fit`."
                )
            self._lock.acquire()
        was_training = self._is_training
        self._is_training = was_training or name == "fit"
        try:
            yield
        finally:
            self._is_training = was_training
            self._lock.release()


def _guarded(name):
    """Returns a method of `keras.Model` that restores the variables after an error."""

    @functools.wraps(getattr(keras.Model, name))
    def method(self, *args, **kwargs):
        with self._state.only_user(name):
            self._restore()  # a callback may call this method during `fit`
            try:
                return getattr(super(_JaxGuard, self), name)(*args, **kwargs)
            except BaseException:
                self._restore()
                raise
            finally:
                self._state.clear()

    return method


class _JaxGuard(keras.Model):
    """A model that keeps its weights on the JAX backend."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._state = _State()

    fit = _guarded("fit")
    evaluate = _guarded("evaluate")
    predict = _guarded("predict")
    train_on_batch = _guarded("train_on_batch")
    test_on_batch = _guarded("test_on_batch")
    predict_on_batch = _guarded("predict_on_batch")

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._recording_state(self.train_function)
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._recording_state(self.test_function)
        return self.test_function

    def make_predict_function(self, force=False):
        if self.predict_function is None or force:
            super().make_predict_function(force)
            self.predict_function = self._recording_state(self.predict_function)
        return self.predict_function

    def _recording_state(self, function):
        """Returns a step function that records the state after the step."""

        def step(state, iterator):
            try:
                outputs, values = function(state, iterator)
            except BaseException:
                # Restored here, since Keras reads the variables before it raises the
                # error.
                self._restore()
                raise
            self._state.values = values
            return outputs, values

        return step

    def _get_jax_state(
        self,
        trainable_variables=False,
        non_trainable_variables=False,
        optimizer_variables=False,
        metrics_variables=False,
        purge_model_variables=False,
    ):
        self._separate_buffers()
        values = super()._get_jax_state(
            trainable_variables=trainable_variables,
            non_trainable_variables=non_trainable_variables,
            optimizer_variables=optimizer_variables,
            metrics_variables=metrics_variables,
            purge_model_variables=purge_model_variables,
        )
        # The order of the state that the trainer passes from step to step.
        self._state.variables = (
            *([self.trainable_variables] if trainable_variables else []),
            *([self.non_trainable_variables] if non_trainable_variables else []),
            *([self.optimizer.variables] if optimizer_variables else []),
            *([self.metrics_variables] if metrics_variables else []),
        )
        self._state.values = values
        return values

    def _separate_buffers(self):
        """Copies averages of weights that share the buffer of a weight.

        `use_ema` of an optimizer assigns the averages to the weights at the end of `fit`.
        A step donates the buffers of its state, so that a shared buffer would be lost.
        """
        if getattr(self, "optimizer", None) is None:
            return
        buffers = {id(v._value) for v in self.variables if v._value is not None}
        for variable in self.optimizer.variables:
            if id(variable._value) in buffers:
                variable.assign(keras.ops.copy(variable._value))

    def _restore(self):
        """Assigns the state after the last step to the variables without a value."""
        state = self._state
        for variables, values in zip(state.variables, state.values, strict=True):
            for variable, value in zip(variables, values, strict=True):
                is_lost = variable._value is None or variable._value.is_deleted()
                if is_lost and not value.is_deleted():
                    variable.assign(value)
        # Keras' own state may be that of an earlier call.
        self._jax_state = None
        self._jax_state_synced = True


_BASE: Any = _JaxGuard if keras.backend.backend() == "jax" else keras.Model


class GuardedModel(_BASE):
    """A `keras.Model` that keeps its weights after any error in its training loops."""
