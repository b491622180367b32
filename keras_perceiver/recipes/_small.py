"""Settings that the recipes for small data share: encoder, optimizer, schedule."""

import keras

from keras_perceiver.config import Config
from keras_perceiver.modalities import ByteArray
from keras_perceiver.models import PerceiverClassifier
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.recipes import _mock
from keras_perceiver.training import Recipe, warm_cosine

# A short warm-up, then cosine decay to zero.
SCHEDULE = Config(warm_cosine)


def adamw(learning_rate):
    """Returns the config of AdamW with a peak learning rate."""
    return Config(
        keras.optimizers.AdamW,
        learning_rate=learning_rate,
        weight_decay=0.1,
        clipnorm=1.0,
    )


def small_encoder(
    modality, dropout=0.2, element_dropout=0.2, modality_dropout=0.0, **settings
):
    """Returns the config of the preset `small`.

    Args:
        modality: `Config` of the modality layer, or dict of these.
        dropout: Float, of all cross-attends and self-attends.
        element_dropout: Float, see `ByteArray`.
        modality_dropout: Float, see `ByteArray`.
        **settings: Arguments of `Perceiver` that replace those of the preset.
    """
    byte_array = Config(
        ByteArray,
        modality=modality,
        modality_dropout=modality_dropout,
        element_dropout=element_dropout,
    )
    return PRESETS["small"].encoder.replace(
        {
            "modality": byte_array,
            "cross_attend.dropout": dropout,
            "self_attend.dropout": dropout,
            **settings,
        }
    )


def series(stem):
    """Returns the series that a file is assumed to belong to, for `group`.

    Ten consecutive numbers, such as `0120` to `0129`, are likely to be notes of the same
    instrument, or drawings by the same artist. A series is not split between training
    and validation.
    """
    return stem[:-1] or stem


def folder_recipe(
    name,
    data,
    preprocessor,
    modality,
    epochs,
    batch_size=32,
    write_mock=None,
    **settings,
):
    """Returns a recipe of a small classifier on folders of labeled files.

    Args:
        name: String, the name of the recipe's module.
        data: `Config` of a function `(batch_size, seed, folder, preprocessor)` that
            returns `Splits`.
        preprocessor: `Config` of the preprocessor of the files, or of a dict of these.
        modality: `Config` of the modality layer, or dict of these.
        epochs: Integer, passes over the training data.
        batch_size: Integer, examples per training step.
        write_mock: Callable `(folder)` that writes random files for `data`. Defaults to
            two classes of files for `preprocessor`.
        **settings: Arguments of `Perceiver`, see `small_encoder`.
    """

    def write(folder):
        _mock.write_files(folder, preprocessor())

    return Recipe(
        name=name,
        data=data,
        task=PerceiverClassifier,
        model=small_encoder(modality, **settings),
        optimizer=adamw(2e-3),
        schedule=SCHEDULE,
        epochs=epochs,
        batch_size=batch_size,
        label_smoothing=0.1,
        preprocessor=preprocessor,
        write_mock=write_mock or write,
    )
