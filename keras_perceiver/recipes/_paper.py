"""Settings that the paper's own recipes share: LAMB, and where the data are."""

from keras_perceiver.config import Config
from keras_perceiver.training import Lamb

# Where TensorFlow Datasets keeps what it prepared, unless told otherwise.
DEFAULT_FOLDER = "~/tensorflow_datasets"


def lamb(learning_rate):
    """Returns the config of LAMB as in the released training code of Perceiver IO."""
    return Config(
        Lamb, learning_rate=learning_rate, weight_decay=0.1, global_clipnorm=10.0
    )
