"""What the paper's own recipes share: LAMB, and a learning rate that falls in steps."""

import keras

from keras_perceiver.training import Lamb

# Where TensorFlow Datasets keeps what it prepared, if it is not told otherwise.
DEFAULT_FOLDER = "~/tensorflow_datasets"


def lamb(learning_rate, falls_at=()):
    """Returns what makes LAMB as in the released training code of Perceiver IO.

    Args:
        learning_rate: Float.
        falls_at: Sequence of floats in (0, 1), parts of the training after which the
            learning rate falls to a tenth.
    """

    def make(num_steps):
        schedule = learning_rate
        if falls_at:
            schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
                [round(part * num_steps) for part in falls_at],
                [learning_rate * 0.1**i for i in range(len(falls_at) + 1)],
            )
        return Lamb(schedule, weight_decay=0.1, global_clipnorm=10.0)

    return make
