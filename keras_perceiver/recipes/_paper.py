"""Settings that the recipes of the paper share: LAMB, and the data folder."""

from keras_perceiver.config import Config
from keras_perceiver.training import Lamb

# The default folder of TensorFlow Datasets.
DEFAULT_FOLDER = "~/tensorflow_datasets"


def lamb(learning_rate):
    """Returns the config of LAMB as in the released training code of Perceiver IO."""
    return Config(
        Lamb, learning_rate=learning_rate, weight_decay=0.1, global_clipnorm=10.0
    )
