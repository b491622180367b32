"""Preprocessor of videos as arrays of frames."""

from __future__ import annotations

import io

import keras
import numpy as np

from keras_perceiver.modalities.preprocessors.arrays import load_array
from keras_perceiver.modalities.preprocessors.base import Preprocessor
from keras_perceiver.modalities.preprocessors.file_rules import FileRule
from keras_perceiver.modalities.preprocessors.pixels import (
    PIXEL_RANGE,
    checked_range,
    checked_shape,
    scale_pixels,
)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class VideoPreprocessor(Preprocessor):
    """Reads videos as arrays of frames and scales their values.

    It reads `.npy` with uint8 arrays of shape `(frames, height, width, channels)`.

    Reference:
        The [NPY
        format](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

    Args:
        shape: Tuple `(frames, height, width, channels)`. An array of another shape is an
            error.
        value_range: Pair of floats, the values that 0 and 255 are scaled to.

    Returns:
        `read` returns the video as a float32 array of shape `shape`.

    Raises:
        ValueError: if `shape` is not four positive integers, if `value_range` is not in
            order, or, in `read`, if a file is invalid.

    Example:

    >>> preprocessor = VideoPreprocessor((2, 8, 8, 3))
    >>> suffix, content = preprocessor.random_file(np.random.default_rng(0))
    >>> preprocessor.read_content(content, suffix).shape
    (2, 8, 8, 3)
    """

    input_name = "video"
    suffixes = (".npy",)
    file_kind = "a NumPy array of numbers"

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        value_range: tuple[float, float] = PIXEL_RANGE,
    ) -> None:
        self.shape = checked_shape(shape, ("frames", "height", "width", "channels"))
        self.value_range = checked_range(value_range)

    def decode(self, content, suffix=""):
        return load_array(content, self._check_array)

    def _check_array(self, shape, dtype):
        FileRule(
            f"Videos must be uint8 arrays of shape {self.shape}.",
            "{} of shape {}",
            "Convert the file, or set `shape`",
        ).check(shape == self.shape and dtype == "uint8", dtype, shape)

    def convert(self, array):
        import tensorflow as tf

        with tf.device("CPU"):
            return scale_pixels(tf.cast(array, "float32"), self.value_range)

    def random_file(self, rng, max_length=None):
        content = io.BytesIO()
        np.save(content, rng.integers(0, 256, self.shape).astype("uint8"))
        return ".npy", content.getvalue()
