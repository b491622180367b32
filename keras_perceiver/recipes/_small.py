"""What the recipes for small data share: one Perceiver, one optimizer."""

import keras

from keras_perceiver.models import Perceiver, PerceiverClassifier
from keras_perceiver.recipes import _mock
from keras_perceiver.training import Recipe, warm_cosine


def optimizer(peak_learning_rate):
    """Returns what makes AdamW with a short warm-up and a cosine to zero."""

    def make(num_steps):
        schedule = warm_cosine(peak_learning_rate, num_steps)
        return keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=1.0)

    return make


def small_classifier(modality, **settings):
    """Returns what makes a small classifier of so many classes.

    Args:
        modality: Callable without arguments that makes the modality layer, or the dict
            of them.
        **settings: Arguments of `Perceiver` that replace those below.
    """
    settings = {
        "num_latents": 32,
        "latent_dim": 96,
        "num_blocks": 2,
        "num_self_attends_per_block": 2,
        "num_cross_attend_heads": 1,
        "num_self_attend_heads": 4,
        "dropout": 0.2,
        "element_dropout": 0.2,
        **settings,
    }
    return lambda num_classes: PerceiverClassifier(
        Perceiver(modality(), **settings), num_classes
    )


def series(stem):
    """Returns the name of the series that a file is taken to be of, as a `group`.

    Ten that follow each other in number, such as `0120` to `0129`: notes of one
    instrument, drawings by one hand. All or none of them are for validation.
    """
    return stem[:-1] or stem


def folder_recipe(
    name, data, files, modality, epochs, batch_size=32, write_mock=None, **settings
):
    """Returns a recipe of a small Perceiver on folders of labelled files.

    Args:
        name: String, the name of the recipe's module.
        data: Callable `(batch_size, seed, folder)` that returns `Splits`.
        files: Callable without arguments that returns the reader of the files, or the
            dict of readers.
        modality: Callable without arguments that makes the modality layer.
        epochs: Integer, passes over the training data.
        batch_size: Integer, examples per training step.
        write_mock: Callable `(folder)` that writes random files for `data`. Defaults to
            two classes of files for `files`.
        **settings: Arguments of `Perceiver`, see `small_classifier`.
    """

    def write(folder):
        _mock.write_files(folder, files())

    return Recipe(
        name=name,
        data=data,
        model=small_classifier(modality, **settings),
        optimizer=optimizer(2e-3),
        epochs=epochs,
        batch_size=batch_size,
        label_smoothing=0.1,
        reads_folder=True,
        smoke=_mock.from_folder(data, write_mock or write),
        files=files,
    )
