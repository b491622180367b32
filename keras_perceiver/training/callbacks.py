"""Callbacks: logged measurements, averaged weights, early stopping."""

import csv
import functools
import importlib
import time
import warnings

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver._files import WriteError, replace_file
from keras_perceiver.training.schedules import schedule_of


class Measures(keras.callbacks.Callback):
    """Adds measurements to the logs of an epoch.

    These are `learning_rate` at the end of the epoch, `gradient_norm` (see
    `TrackingOptimizer.mean_gradient_norm`) and `examples_per_second` of training alone.
    It must come before the callbacks that write logs.

    Args:
        optimizer: `TrackingOptimizer`.
        batch_size: Integer, examples per step.
    """

    def __init__(self, optimizer, batch_size):
        super().__init__()
        self.optimizer = optimizer
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self._num_steps = 0
        self._start, self._end = time.perf_counter(), None

    def on_train_batch_end(self, batch, logs=None):
        self._num_steps += 1

    def on_test_begin(self, logs=None):
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = (self._end or time.perf_counter()) - self._start
        rate = keras.ops.convert_to_numpy(self.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)
        logs["gradient_norm"] = self.optimizer.mean_gradient_norm()
        logs["examples_per_second"] = self._num_steps * self.batch_size / seconds


class ValidateAverage(keras.callbacks.Callback):
    """Uses the averaged weights for validation.

    Args:
        optimizer: `TrackingOptimizer`.
    """

    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer

    def on_test_begin(self, logs=None):
        self.optimizer.swap()

    def on_test_end(self, logs=None):
        self.optimizer.swap()


class EarlyStop(keras.callbacks.EarlyStopping):
    """Keras' early stopping, starting after the decay of the learning rate.

    The first decay of the learning rate helps more than many epochs before it, so epochs
    count once the learning rate is a tenth of its peak, or from the first epoch if it
    never is. Unlike Keras' callback it can be resumed, and it keeps the averaged weights
    if the optimizer has any.

    Args:
        optimizer: `TrackingOptimizer`.
        score: String, the name of the logged metric, where larger is better.
        patience: Integer, epochs without an improvement.
        epochs: Integer, epochs of the whole run.
        steps_per_epoch: Integer.

    Attributes:
        weights: List of NumPy arrays, the weights of the best epoch, empty before an
            epoch counts.
    """

    _STATE = ("best", "best_epoch", "wait", "stopped_epoch")

    def __init__(self, optimizer, score, patience, epochs, steps_per_epoch):
        check_positive(patience=patience)
        first_epoch = first_epoch_after_decay(
            schedule_of(optimizer.inner_optimizers[-1]), epochs, steps_per_epoch
        )
        super().__init__(
            score, patience=patience, mode="max", start_from_epoch=first_epoch
        )
        self.optimizer = optimizer
        self.weights = []
        super().on_train_begin()

    @property
    def is_over(self):
        """Boolean, whether the patience has been exceeded."""
        return self.stopped_epoch > 0

    def on_train_begin(self, logs=None):
        """Keeps the state: a run that is resumed calls `fit` several times."""

    def on_epoch_end(self, epoch, logs=None):
        before = self.best
        super().on_epoch_end(epoch, logs)
        if self.best != before:
            self.best = float(self.best)
            self.weights = self.optimizer.averages()

    def state(self):
        """Returns the state without `weights`, as a dict of JSON values."""
        return {name: getattr(self, name) for name in self._STATE}

    def restore(self, state, weights):
        """Sets the state, as `state` returned it, and the weights."""
        for name in self._STATE:
            setattr(self, name, state[name])
        self.weights = weights


def first_epoch_after_decay(schedule, epochs, steps_per_epoch):
    """Returns the first epoch that starts with a tenth of the peak learning rate.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`, or `None` for a
            constant learning rate.
        epochs: Integer.
        steps_per_epoch: Integer.

    Returns:
        Integer up to `epochs`, 0 if the learning rate does not decay that far.
    """
    if schedule is None:
        return 0
    steps = np.arange(epochs + 1) * steps_per_epoch
    rates = [float(keras.ops.convert_to_numpy(schedule(int(step)))) for step in steps]
    peak = int(np.argmax(rates))
    # The rates are float32, so a tenth is approximate.
    low = np.flatnonzero(np.array(rates[peak:]) <= 0.1001 * rates[peak])
    return peak + int(low[0]) if len(low) else 0


class WriteHistory(keras.callbacks.Callback):
    """Writes a history as CSV after every epoch, one row per epoch.

    Keras' `CSVLogger` appends to a file, which would contain the epochs after the last
    checkpoint twice when a run is resumed.

    Args:
        path: Path of the file, which is written atomically.
        history: Dict of lists, one value per epoch, such as `SaveState.history`.
    """

    def __init__(self, path, history):
        super().__init__()
        self.path = path
        self.history_of_run = history

    def on_epoch_end(self, epoch, logs=None):
        try:
            write_history(self.path, self.history_of_run)
        except WriteError as error:  # the next epoch writes it again
            warnings.warn(f"{error} The run continues.", stacklevel=2)


def write_history(path, history):
    """Writes a history as CSV, one row per epoch."""

    def write(path):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *history])
            for epoch, values in enumerate(zip(*history.values(), strict=True)):
                writer.writerow([epoch + 1, *values])

    replace_file(path, write)


class BestEffort(keras.callbacks.Callback):
    """Calls a callback until it fails. Then it warns, and the run continues without it.

    Args:
        callback: `keras.callbacks.Callback` that only writes logs.
        path: Path of the logs, for the warning.
    """

    def __init__(self, callback, path):
        super().__init__()
        self.callback, self.path = callback, path

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.callback.set_params(params)

    def _call(self, hook, *arguments, **options):
        if self.callback is None:
            return
        try:
            getattr(self.callback, hook)(*arguments, **options)
        except Exception as error:  # TensorFlow has several for a full disk
            self.callback = None
            warnings.warn(
                f"{self.path} is no longer written: {error} The run continues.",
                stacklevel=2,
            )

    on_train_begin = functools.partialmethod(_call, "on_train_begin")
    on_train_end = functools.partialmethod(_call, "on_train_end")
    on_epoch_begin = functools.partialmethod(_call, "on_epoch_begin")
    on_epoch_end = functools.partialmethod(_call, "on_epoch_end")
    on_test_begin = functools.partialmethod(_call, "on_test_begin")
    on_test_end = functools.partialmethod(_call, "on_test_end")
    on_train_batch_begin = functools.partialmethod(_call, "on_train_batch_begin")
    on_train_batch_end = functools.partialmethod(_call, "on_train_batch_end")
    on_test_batch_begin = functools.partialmethod(_call, "on_test_batch_begin")
    on_test_batch_end = functools.partialmethod(_call, "on_test_batch_end")


def tensor_board(folder):
    """Returns a list with the callback that writes logs for TensorBoard.

    If TensorBoard is not installed, it prints a message and returns an empty list.
    """
    if not is_installed("tensorboard", f"{folder} is not written"):
        return []
    return [BestEffort(keras.callbacks.TensorBoard(folder, write_graph=False), folder)]


def is_installed(package, consequence):
    """Returns whether a package can be imported; prints the consequence if not."""
    try:
        importlib.import_module(package)
    except ImportError:
        print(f"{package} is not installed: {consequence}.")
        return False
    return True
