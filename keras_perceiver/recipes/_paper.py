"""Settings that the paper's own recipes share: LAMB, and where the data are."""

from functools import partial

from keras_perceiver.config import Config
from keras_perceiver.models import Perceiver
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.training import Lamb

# Where TensorFlow Datasets keeps what it prepared, unless told otherwise.
DEFAULT_FOLDER = "~/tensorflow_datasets"


def lamb(learning_rate):
    """Returns the config of LAMB as in the released training code of Perceiver IO."""
    return Config(
        Lamb, learning_rate=learning_rate, weight_decay=0.1, global_clipnorm=10.0
    )


def preset(name):
    """Returns the config of the encoder of a preset."""
    preset = PRESETS[name]
    make = preset.modality
    if isinstance(make, partial):
        modality = Config(make.func, shape=make.args[0], **make.keywords)
    else:
        modality = make()
    return Config(Perceiver, modality=modality, **preset.encoder)
