"""The shapes and value ranges of arrays of pixels."""

import math

from keras_perceiver._checks import check_positive

# Zero mean, about the scale of position features.
PIXEL_RANGE = (-1.0, 1.0)


def scale_pixels(pixels, value_range=PIXEL_RANGE):
    """Scales float pixels from 0..255 to a value range.

    Args:
        pixels: NumPy array or TensorFlow tensor of floats.
        value_range: Pair of floats, the values that 0 and 255 become.
    """
    low, high = value_range
    return pixels / (255.0 / (high - low)) + low


def unscale_pixels(pixels, value_range=PIXEL_RANGE):
    """Scales float pixels from a value range to 0..255, the inverse of `scale_pixels`."""
    low, high = value_range
    return (pixels - low) * (255.0 / (high - low))


def checked_shape(shape, names):
    """Returns a shape of fixed sizes as a tuple; raises `ValueError` for another."""
    shape = tuple(shape)
    if len(shape) != len(names):
        raise ValueError(
            f"`shape` must be ({', '.join(names)}). Received: shape={shape}. "
            f"Give {len(names)} sizes."
        )
    check_positive(**dict(zip(names, shape, strict=True)))
    return shape


def checked_range(value_range):
    """Returns a value range as a pair of floats; raises `ValueError` for another."""
    low, high = map(float, value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers in order. Received: "
            f"value_range={value_range}. Give the least and the greatest value."
        )
    return low, high
