"""What every data set of this package returns."""

from typing import NamedTuple

import tensorflow as tf


class Splits(NamedTuple):
    """Three batched `tf.data.Dataset`s of `(inputs, labels)`, none in another."""

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
