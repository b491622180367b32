"""The value range of pixels."""

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
