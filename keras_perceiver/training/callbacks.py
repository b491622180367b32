"""What happens between epochs: measures, averaged weights, an early end."""

import csv
import time

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.training.schedules import schedule_of


class Measures(keras.callbacks.Callback):
    """Adds to what is logged of an epoch how it went.

    `learning_rate` at the end of the epoch, `gradient_norm` (see
    `TrackingOptimizer.mean_gradient_norm`) and `examples_per_second` of training alone.
    It comes before the callbacks that write logs down.

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
    """Has the validation use the averaged weights.

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


class EarlyStop(keras.callbacks.Callback):
    """Stops a run that no longer gets better, and knows its best weights.

    The first fall of the learning rate helps more than many epochs before it. So the
    patience begins where the learning rate has come down to a tenth of its peak, and at
    the first epoch where it never does. Of equal scores, the later epoch's counts no
    improvement.

    Args:
        optimizer: `TrackingOptimizer`, whose averaged weights are kept where it has any.
        score: String, the name of what is logged and should grow.
        patience: Integer, epochs without an improvement.
        epochs: Integer, epochs of the whole run.
        steps_per_epoch: Integer.
    """

    def __init__(self, optimizer, score, patience, epochs, steps_per_epoch):
        super().__init__()
        check_positive(patience=patience)
        self.optimizer = optimizer
        self.score = score
        self.patience = patience
        self.first_epoch = first_epoch_after_decay(
            schedule_of(optimizer.inner_optimizer), epochs, steps_per_epoch
        )
        self.best = None
        self.best_epoch = None
        self.is_over = False
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        if self.best is None or logs[self.score] > self.best:
            self.best, self.best_epoch = float(logs[self.score]), epoch
            self.weights = self.optimizer.averages()
        waited = epoch - max(self.best_epoch, self.first_epoch - 1)
        if waited >= self.patience:
            self.is_over = True
            self.model.stop_training = True

    def state(self):
        """Returns what JSON can hold of the state; `weights` are the rest."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "is_over": self.is_over,
        }

    def restore(self, state, weights):
        """Takes what `state` returned, and the weights, back."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.is_over, self.weights = state["is_over"], weights


def first_epoch_after_decay(schedule, epochs, steps_per_epoch):
    """Returns the first epoch that begins with a tenth of the highest learning rate.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`, or `None` for a
            learning rate that stays.
        epochs: Integer.
        steps_per_epoch: Integer.

    Returns:
        Integer up to `epochs`; 0 if the learning rate never comes down so far.
    """
    if schedule is None:
        return 0
    steps = np.arange(epochs + 1) * steps_per_epoch
    rates = [float(keras.ops.convert_to_numpy(schedule(int(step)))) for step in steps]
    peak = int(np.argmax(rates))
    # The rates are float32: a tenth is one only about.
    low = np.flatnonzero(np.array(rates[peak:]) <= 0.1001 * rates[peak])
    return peak + int(low[0]) if len(low) else 0


def write_history(history, path):
    """Writes what was logged of every epoch as CSV, one row an epoch.

    Keras' `CSVLogger` appends to a file, in which the epochs after the last checkpoint
    would then come twice when a run is resumed.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        for epoch, values in enumerate(zip(*history.values(), strict=True)):
            writer.writerow([epoch + 1, *values])
