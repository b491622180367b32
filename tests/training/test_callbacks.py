import csv
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_perceiver.training import TrackingOptimizer, flat_cosine
from keras_perceiver.training.callbacks import (
    BestEffort,
    EarlyStop,
    WriteHistory,
    first_epoch_after_decay,
)

schedules = keras.optimizers.schedules


@pytest.mark.parametrize(
    ("schedule", "epoch"),
    [
        (None, 0),
        (schedules.PiecewiseConstantDecay([70, 90], [4e-3, 4e-4, 4e-5]), 8),
        (schedules.PiecewiseConstantDecay([70], [1.0, 0.5]), 0),  # not to a tenth
        (flat_cosine(1.0, 100), 9),
        (schedules.CosineDecay(0.0, 90, warmup_target=1.0, warmup_steps=10), 9),
        (schedules.PiecewiseConstantDecay([95], [1.0, 0.01]), 10),  # not within the run
    ],
)
@pytest.mark.one_backend
def test_first_epoch_after_decay(schedule, epoch):
    assert first_epoch_after_decay(schedule, epochs=10, steps_per_epoch=10) == epoch


def _stop(scores, rates, patience, momentum=None):
    """Returns the callback after it has stopped, and the number of epochs."""
    learning_rate = rates if isinstance(rates, float) else rates()
    inner = keras.optimizers.SGD(learning_rate)
    optimizer = TrackingOptimizer(inner, momentum)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    early_stop = EarlyStop(optimizer, "val_accuracy", patience, len(scores), 1)
    early_stop.set_model(SimpleNamespace(stop_training=False))
    for epoch, score in enumerate(scores):
        weight.assign([float(epoch)])
        early_stop.on_epoch_end(epoch, {"val_accuracy": score})
        assert early_stop.model.stop_training == early_stop.is_over
        if early_stop.is_over:
            break
    return early_stop, epoch + 1


@pytest.mark.one_backend
def test_early_stop_waits_for_better_scores():
    early_stop, num_epochs = _stop([0.1, 0.3, 0.3, 0.2, 0.9], 0.1, patience=2)
    assert (num_epochs, early_stop.best_epoch, early_stop.best) == (4, 1, 0.3)
    np.testing.assert_array_equal(early_stop.weights, [[1.0]])
    early_stop, num_epochs = _stop([0.1, 0.3, 0.3, 0.2, 0.9], 0.1, patience=3)
    assert (num_epochs, early_stop.best_epoch) == (5, 4)


@pytest.mark.one_backend
def test_early_stop_waits_for_the_learning_rate():
    def rates():
        return schedules.PiecewiseConstantDecay([2], [1.0, 0.1])

    # The rate is low from epoch 3, which is the best one, and two more follow.
    early_stop, num_epochs = _stop([0.9, *[0.1] * 9], rates, patience=2)
    assert (num_epochs, early_stop.best_epoch) == (6, 3)
    np.testing.assert_array_equal(early_stop.weights, [[3.0]])
    again = EarlyStop(early_stop.optimizer, "val_accuracy", 2, 10, 1)
    again.restore(early_stop.state(), early_stop.weights)
    assert again.state() == early_stop.state()
    assert again.is_over
    with pytest.raises(ValueError, match="`patience` must be a positive integer"):
        _stop([0.1], rates, patience=0)


@pytest.mark.one_backend
def test_early_stop_keeps_the_averages():
    early_stop, _ = _stop([0.1, 0.9], 0.1, patience=5, momentum=0.9)
    np.testing.assert_array_equal(early_stop.weights, early_stop.optimizer.averages())
    np.testing.assert_array_equal(early_stop.weights, [[0.0]])  # there was no update


@pytest.mark.one_backend
def test_history_has_one_row_per_epoch(tmp_path):
    path = tmp_path / "history.csv"
    for num_epochs in (1, 3):
        history = {"loss": [2.0, 1.0, 0.5][:num_epochs], "accuracy": [0.1] * num_epochs}
        WriteHistory(path, history).on_epoch_end(num_epochs - 1)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == [2.0, 1.0, 0.5]


class _FullDisk(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)
        raise RuntimeError("No space left on device.")

    def on_train_end(self, logs=None):
        self.seen.append("end")


@pytest.mark.one_backend
def test_run_continues_if_logs_cannot_be_written():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    callback = _FullDisk()
    match = "runs/1/logs is no longer written: No space left on device. The run cont"
    with pytest.warns(UserWarning, match=match) as warned:
        history = model.fit(
            np.ones((4, 3)),
            np.ones((4, 1)),
            epochs=3,
            verbose=0,
            callbacks=[BestEffort(callback, "runs/1/logs")],
        )
    assert len(history.epoch) == 3
    assert callback.seen == ["begin", 0]
    assert len([w for w in warned if "no longer written" in str(w.message)]) == 1
