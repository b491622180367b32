"""Data sets as `tf.data` pipelines. The only package that imports TensorFlow."""

from keras_perceiver.data.digits import digits
from keras_perceiver.data.splits import Splits

__all__ = ["Splits", "digits"]
