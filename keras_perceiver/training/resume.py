"""Checkpoint and resume: the state of a run is saved periodically and at signals."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import keras

from keras_perceiver._files import WriteError
from keras_perceiver.training.checkpoints import Checkpoints
from keras_perceiver.training.provenance import warn_of_differences

if TYPE_CHECKING:
    from keras_perceiver._typing import PathLike

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Keys that identify objects instead of settings, since Keras numbers names.
_NO_SETTINGS = {"name", "module", "registered_name", "build_config", "shared_object_id"}


class TrainingInterruptedError(Exception):
    """Raised after a signal, once the state is saved.

    Attributes:
        signal: `signal.Signals`.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class NonFiniteLossError(ValueError):
    """Raised when the loss is NaN or infinite. Such a state is not saved."""


class SaveState(keras.callbacks.Callback):
    """Saves the whole state of a run, so that another process can continue it.

    The state consists of weights, seeds, the variables of optimizer and metrics, the
    number of steps, which is the position in the data, and the history so far.

    Args:
        checkpoints: `Checkpoints`.
        configuration: Dict of JSON values that must be equal when the run is resumed.
        save_every: Integer, training steps between checkpoints.
        steps_per_epoch: Integer.
        provenance: Dict, see `provenance`. A resumed run warns about differences.
        early_stop: `EarlyStop`, whose best weights are saved too, or `None`.
    """

    def __init__(
        self,
        checkpoints,
        configuration,
        save_every,
        steps_per_epoch,
        provenance,
        early_stop=None,
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.configuration = configuration
        self.provenance = provenance
        self.save_every = save_every
        self.steps_per_epoch = steps_per_epoch
        self.early_stop = early_stop
        self.step = self._saved_step = 0
        self.history = {}
        self.seconds_before = 0.0
        self._start = time.perf_counter()
        self._signal = None
        self._metrics = None

    @property
    def seconds(self):
        """Seconds of training so far, including those of earlier processes."""
        return self.seconds_before + time.perf_counter() - self._start

    def restore(self, model, examples):
        """Restores the latest checkpoint into a compiled model, if there is one.

        Args:
            model: Compiled `keras.Model`.
            examples: `tf.data.Dataset` of a batch, for the metrics to create their
                variables.

        Raises:
            ValueError: if the checkpoint has another configuration.
        """
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return
        info = checkpoint.info
        _check_configuration(info["configuration"], self.configuration)
        warn_of_differences(info["provenance"], self.provenance)
        model.optimizer.build(model.trainable_variables)
        model.evaluate(examples, verbose=0)
        variables = _variables(model)
        arrays = checkpoint.arrays[: len(variables)]
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        if self.early_stop is not None:
            best = checkpoint.arrays[len(variables) :]
            self.early_stop.restore(info["early_stop"], best)
        self.step = self._saved_step = checkpoint.step
        if self.step % self.steps_per_epoch:  # epochs start with reset metrics
            num_metrics = len(model.metrics_variables)
            self._metrics = arrays[len(variables) - num_metrics :]
        self.history = info["history"]
        self.seconds_before = info["seconds"]

    @property
    def is_over(self):
        """Boolean, whether the run has stopped early."""
        return self.early_stop is not None and self.early_stop.is_over

    @contextlib.contextmanager
    def signals(self):
        """Context in which SIGTERM and SIGINT save the state before they take effect."""

        def remember(number, _):
            if self._signal:  # a second signal does not wait
                raise KeyboardInterrupt
            self._signal = signal.Signals(number)

        # Only the main thread of Python handles signals.
        is_main = threading.current_thread() is threading.main_thread()
        previous = {s: signal.signal(s, remember) for s in _SIGNALS if is_main}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def on_epoch_begin(self, epoch, logs=None):
        if self._metrics is not None:  # resumed within an epoch
            variables = self.model.metrics_variables
            for variable, array in zip(variables, self._metrics, strict=True):
                variable.assign(array)
            self._metrics = None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not math.isfinite(logs["loss"]):
            self._refuse(logs["loss"])
        if self.step % self.steps_per_epoch:  # the last step is saved with the history
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        self._save_if_due()

    def _save_if_due(self):
        if self.step % self.save_every == 0 or self._signal:
            self._save()
        if self._signal:
            raise TrainingInterruptedError(
                f"Received {self._signal.name}. The state after step {self.step} is in "
                f"{self.checkpoints.folder}. Resume to continue.",
                self._signal,
            )

    def on_train_end(self, logs=None):
        """Saves the state at the end of training, since later stages may fail."""
        if self.step == self._saved_step:
            return
        try:
            self._save()
        except WriteError as error:  # the model is smaller and may still fit
            warnings.warn(f"{error} The run continues.", stacklevel=2)

    def _save(self):
        arrays = [_array(variable) for variable in _variables(self.model)]
        info = {
            "configuration": self.configuration,
            "provenance": self.provenance,
            "history": self.history,
            "seconds": self.seconds,
        }
        if self.early_stop is not None:
            info["early_stop"] = self.early_stop.state()
            arrays += self.early_stop.weights
        self.checkpoints.save(self.step, arrays, info)
        self._saved_step = self.step

    def _refuse(self, loss):
        paths = self.checkpoints.paths()
        last = (
            f"The last good state is {paths[0]}" if paths else "No state was saved yet"
        )
        raise NonFiniteLossError(
            f"The loss must stay finite. Received: loss={loss} at step {self.step}. "
            f"{last}. Likely causes: too high a learning rate (halve it, or warm up for "
            "longer), no clipping of gradients, NaN in the data, or float16 without a "
            "scaled loss (use mixed_bfloat16)."
        )


def _array(variable):
    # Converted to a tensor first, for which tf.distribute sums over the replicas.
    return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable))


def _variables(model):
    """Returns all variables of a compiled and built model, metrics last."""
    metrics = model.metrics_variables
    metric_ids = {id(variable) for variable in metrics}
    others = (*model.variables, *model.optimizer.variables)
    return [v for v in others if id(v) not in metric_ids] + metrics


def saved_overrides(folder: PathLike) -> dict[str, Any]:
    """Returns the overrides of the recipe of a run from its folder of checkpoints.

    The result is empty if there is no checkpoint.
    """
    checkpoint = Checkpoints(folder).load()
    return checkpoint.info["configuration"]["overrides"] if checkpoint else {}


def settings(name, keras_object):
    """Returns the settings of a Keras object as a flat dict of JSON values.

    Args:
        name: String that all keys begin with.
        keras_object: Model, optimizer or loss.
    """
    config = keras.saving.serialize_keras_object(keras_object)
    return _flat(json.loads(json.dumps(config)), name)


def _flat(value, path):
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: value}
    flat = {}
    for key, part in items:
        if key not in _NO_SETTINGS:
            flat |= _flat(part, f"{path}.{key}")
    return flat


def _check_configuration(saved, configuration):
    configuration = json.loads(json.dumps(configuration))  # tuples become lists
    missing = "nothing"
    differing = [
        f"{name}: {saved.get(name, missing)!r} in the checkpoint, "
        f"{configuration.get(name, missing)!r} now"
        for name in sorted(saved.keys() | configuration.keys())
        if saved.get(name, missing) != configuration.get(name, missing)
    ]
    if differing:
        raise ValueError(
            "A run must be resumed with the configuration that it was started with. "
            f"Received: {'; '.join(differing)}. Revert the changes, or start another run."
        )
