"""Small recipes, and helpers for their runs."""

import contextlib
import resource
from functools import partial

import keras
import numpy as np

from keras_perceiver import (
    ByteArray,
    Image,
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
    recipes,
)
from keras_perceiver.config import Config
from keras_perceiver.data import digits
from keras_perceiver.training import Recipe, Run


def few_digits(batch_size, seed, steps_per_epoch=None, use_augmentation=False):
    """Returns the digits with an eighth of the training data, or fewer batches."""
    splits = digits(batch_size, seed, use_augmentation=use_augmentation)
    num_steps = steps_per_epoch or 160 // batch_size
    return splits._replace(
        train=splits.train.take(num_steps),
        epoch=lambda number, num_done=0: (
            splits.epoch(number).take(num_steps).skip(num_done)
        ),
    )


def little_recipe(**changes):
    """Returns the digits recipe with one block, on a few digits."""
    full = recipes.get("digits")
    settings = {
        "data": few_digits,
        "task": PerceiverClassifier,
        "model": full.model.replace({"num_blocks": 1, "num_self_attends_per_block": 1}),
        "optimizer": full.optimizer,
        "schedule": full.schedule,
        "epochs": 2,
        "batch_size": 32,
        "label_smoothing": 0.2,
    }
    return Recipe("digits", **{**settings, **changes})


def recipe_with_all_state(steps_per_epoch=5):
    """Returns a recipe with all kinds of randomness and state.

    These are shuffling, augmentation, dropout, accumulated gradients, averaged weights
    and best weights.
    """
    model = recipes.get("digits").model.replace(
        {
            "num_latents": 8,
            "latent_dim": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "modality": ByteArray(Image((8, 8, 1), num_bands=4), element_dropout=0.2),
            "cross_attend.dropout": 0.2,
            "self_attend.num_heads": 2,
            "self_attend.dropout": 0.2,
        }
    )
    cosine = keras.optimizers.schedules.CosineDecay
    return little_recipe(
        data=partial(
            few_digits, steps_per_epoch=steps_per_epoch, use_augmentation=True
        ),
        model=model,
        optimizer=Config(
            keras.optimizers.AdamW,
            learning_rate=Config(cosine, initial_learning_rate=1e-2, decay_steps=7),
        ),
        schedule=None,
        epochs=3,
        accumulation_steps=2,
        ema_momentum=0.5,
        patience=3,
    )


class _Eager:
    """A task that is not compiled, since a few steps are faster without."""

    def compile(self, *arguments, **options):
        super().compile(*arguments, **options, run_eagerly=True)


@keras.saving.register_keras_serializable(package="tests")
class EagerClassifier(_Eager, PerceiverClassifier):
    pass


@keras.saving.register_keras_serializable(package="tests")
class EagerMultiLabelClassifier(_Eager, PerceiverMultiLabelClassifier):
    pass


def finished(recipe, folder, callbacks=(), **options):
    """Returns a run after all its stages except the export, which has its own tests."""
    run = Run(recipe, folder, f"{folder}-exports", **options)
    run.prepare()
    run.fit(callbacks)
    run.score()
    run.save()
    return run


class BeforeStep(keras.callbacks.Callback):
    """Calls a function before one training step, counted from 0 over all epochs."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function
        self._num_steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self._num_steps == self.step:
            self.function()
        self._num_steps += 1


def crash():
    raise RuntimeError("crashed")


def check_equal(found, expected):
    """Asserts that lists of arrays are equal, on torch up to rounding."""
    for x, y in zip(found, expected, strict=True):
        if keras.backend.backend() == "torch":
            np.testing.assert_allclose(x, y, atol=1e-6)
        else:
            np.testing.assert_array_equal(x, y)


def sgd(learning_rate, **options):
    """Returns the config of stochastic gradient descent."""
    return Config(keras.optimizers.SGD, learning_rate=learning_rate, **options)


@contextlib.contextmanager
def limited(num_bytes):
    """Context in which files cannot be larger, similar to a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
