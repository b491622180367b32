"""Compiling a task, and training it from any step by Keras' own `fit`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from keras_perceiver.models import Task


def smooths_labels(task: Task | type[Task]) -> bool:
    """Returns whether the default loss of a task, or class of tasks, smooths labels.

    Args:
        task: Task, or its class.
    """
    return "label_smoothing" in inspect.signature(task.default_loss).parameters


def compile_task(
    model: Task, optimizer: keras.Optimizer, label_smoothing: float = 0.0
) -> None:
    """Compiles a task with its default loss and metrics.

    Args:
        model: Task.
        optimizer: `keras.optimizers.Optimizer`.
        label_smoothing: Float in `[0, 1)`, for tasks whose default loss supports it.

    Raises:
        ValueError: if the default loss does not smooth labels.
    """
    if label_smoothing and not smooths_labels(model):
        raise ValueError(
            "`label_smoothing` is for tasks whose default loss smooths labels. Received: "
            f"label_smoothing={label_smoothing} and a {type(model).__name__}. Set it to 0."
        )
    options = {"label_smoothing": label_smoothing} if label_smoothing else {}
    model.compile(
        optimizer,
        model.default_loss(**options),
        # Weighted, since examples that pad a batch have a weight of 0.
        weighted_metrics=model.default_metrics(),
    )


def fit(model, splits, state, callbacks, epochs, verbose="auto"):
    """Trains a model from the step of a state to the last epoch.

    Args:
        model: Compiled `keras.Model`.
        splits: `Splits`.
        state: `SaveState`.
        callbacks: List of `keras.callbacks.Callback`, the state among them.
        epochs: Integer, epochs of the whole run.
        verbose: See `keras.Model.fit`.
    """
    steps_per_epoch = state.steps_per_epoch

    def fit_epochs(first, last, num_done=0):
        model.fit(
            # One iterator for all epochs, since starting one takes longer than a small
            # epoch.
            splits.epochs(first, last, num_done),
            steps_per_epoch=steps_per_epoch - num_done,
            validation_data=splits.validation,
            initial_epoch=first,
            epochs=last,
            callbacks=callbacks,
            shuffle=False,  # epochs are shuffled already
            verbose=verbose,
        )

    epoch, num_done = divmod(state.step, steps_per_epoch)
    with state.signals():
        if num_done:  # the rest of an epoch
            fit_epochs(epoch, epoch + 1, num_done)
            epoch += 1
        if epoch < epochs and not state.is_over:
            fit_epochs(epoch, epochs)
