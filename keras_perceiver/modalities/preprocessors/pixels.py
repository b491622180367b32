"""Shapes and value ranges of pixel arrays."""

import math

from keras_perceiver._checks import as_shape, check_positive

# Zero mean, and about the scale of position features.
PIXEL_RANGE = (-1.0, 1.0)

# Those of the channels of ImageNet's images in 0 to 1, as everybody has them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)


def scale_pixels(pixels, value_range=PIXEL_RANGE):
    """Scales float pixels from 0..255 to a value range.

    Args:
        pixels: NumPy array or TensorFlow tensor of floats.
        value_range: Pair of floats, the values that 0 and 255 are scaled to.
    """
    low, high = value_range
    return pixels / (255.0 / (high - low)) + low


def unscale_pixels(pixels, value_range=PIXEL_RANGE):
    """Scales float pixels from a value range to 0..255, the inverse of `scale_pixels`."""
    low, high = value_range
    return (pixels - low) * (255.0 / (high - low))


def checked_shape(shape, names):
    """Returns a shape as a tuple. Raises `ValueError` unless all sizes are fixed."""
    shape = as_shape(shape)
    if len(shape) != len(names):
        raise ValueError(
            f"`shape` must be ({', '.join(names)}). Received: shape={shape}. "
            f"Pass {len(names)} sizes."
        )
    check_positive(**dict(zip(names, shape, strict=True)))
    return shape


def checked_range(value_range):
    """Returns a value range as a pair of floats. Raises `ValueError` if it is invalid."""
    low, high = map(float, value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers in order. Received: "
            f"value_range={value_range}. Pass the minimum and the maximum."
        )
    return low, high
