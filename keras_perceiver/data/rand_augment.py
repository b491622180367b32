"""RandAugment: a few random operations per image, all of one magnitude."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver._typing import Augmentation
from keras_perceiver.modalities.preprocessors.pixels import (
    PIXEL_RANGE,
    scale_pixels,
    unscale_pixels,
)

# The operations below reach their maximum strength at this magnitude.
_MAX_MAGNITUDE = 10.0
_GRAY = 128.0
# Pixels at the magnitude 10, on crops of ImageNet.
_TRANSLATION = 100.0
_CUTOUT = 40.0


def rand_augment(
    num_ops: int = 4,
    magnitude: float = 5,
    value_range: tuple[float, float] = PIXEL_RANGE,
) -> Augmentation:
    """Applies `num_ops` of 16 operations to each image, drawn with replacement.

    The operations are AutoContrast, Equalize, Invert, Posterize, Solarize, SolarizeAdd,
    Color, Contrast, Brightness, Sharpness, Rotate, shear and translate along either
    axis, and Cutout. Areas that move in from outside the image are gray. At magnitude
    5, the four enhancements from Color to Sharpness have no effect: their factor ranges
    from 0.1 to 1.9.

    Reference:
        [Cubuk et al., 2019](https://arxiv.org/abs/1909.13719). The operations and their
        strengths are those of DeepMind's training of the Perceiver, which uses
        `num_ops=4` and `magnitude=5`.

    Args:
        num_ops: Integer, number of operations per image.
        magnitude: Float from 0 to 10, strength of the operations.
        value_range: Pair of floats, the values of the images that correspond to 0 and
            255.

    Returns:
        Callable that takes color images of shape `(batch, height, width, 3)`, or a
        single image, and a key. Operations are drawn per image, and the results have
        256 levels.

    Raises:
        ValueError: if a number is out of range.
    """
    # `keras.layers.RandAugment` draws the operations once per batch from its own state,
    # computes all of them, and has other strengths.
    check_positive(num_ops=num_ops)
    if not 0 <= magnitude <= _MAX_MAGNITUDE:
        raise ValueError(
            "`magnitude` must be in 0 to 10. Received: "
            f"magnitude={magnitude}. Set it to 5 for the paper's strength."
        )
    ops = _ops(magnitude / _MAX_MAGNITUDE)

    # Traced once instead of wherever it is used, since there are many operations.
    @tf.function
    def change_one(image, key):
        choices = tf.random.stateless_uniform(
            [num_ops], [key, 0], 0, len(ops), dtype="int32"
        )
        draws = tf.random.stateless_uniform([num_ops, 3], [key, 1])

        def step(image, drawn):
            choice, u = drawn
            image = tf.switch_case(choice, [lambda op=op: op(image, u) for op in ops])
            return tf.clip_by_value(tf.floor(image), 0.0, 255.0)

        image = tf.round(unscale_pixels(image, value_range))
        image = tf.foldl(step, (choices, draws), initializer=image)
        return scale_pixels(image, value_range)

    def change(images, key):
        if len(images.shape) == 3:
            return tf.ensure_shape(change_one(images, key), images.shape)
        keys = tf.random.stateless_uniform(
            [tf.shape(images)[0]], [key, 0], None, None, "int64"
        )
        changed = tf.map_fn(
            lambda pair: change_one(*pair),
            (images, keys),
            fn_output_signature=tf.TensorSpec(images.shape[1:], "float32"),
        )
        return tf.ensure_shape(changed, images.shape)

    return change


def _ops(strength):
    """Returns the operations, callables of a float image in 0..255 and 3 random numbers.

    Args:
        strength: Float from 0 to 1.
    """
    factor = 1.8 * strength + 0.1
    shear = 0.3 * strength
    translation = _TRANSLATION * strength
    angle = np.deg2rad(30) * strength
    # Keeps four of eight bits at strength 1, and none at 0, as DeepMind's code does.
    levels = 2.0 ** (8 - int(4 * strength))

    def sign(u):
        return tf.where(u[0] < 0.5, -1.0, 1.0)

    return (
        lambda x, u: _autocontrast(x),
        lambda x, u: _equalize(x),
        lambda x, u: 255 - x,
        lambda x, u: tf.floor(x / levels) * levels,
        lambda x, u: tf.where(x < int(256 * strength), x, 255 - x),
        lambda x, u: tf.where(x < 128, x + int(110 * strength), x),
        lambda x, u: _blend(tf.image.rgb_to_grayscale(x), x, factor),
        lambda x, u: _blend(tf.reduce_mean(tf.image.rgb_to_grayscale(x)), x, factor),
        lambda x, u: x * factor,
        lambda x, u: _blend(_smooth(x), x, factor),
        lambda x, u: _rotate(x, sign(u) * angle),
        lambda x, u: _affine(x, [1.0, sign(u) * shear, 0.0, 0.0, 1.0, 0.0]),
        lambda x, u: _affine(x, [1.0, 0.0, 0.0, sign(u) * shear, 1.0, 0.0]),
        lambda x, u: _affine(x, [1.0, 0.0, sign(u) * translation, 0.0, 1.0, 0.0]),
        lambda x, u: _affine(x, [1.0, 0.0, 0.0, 0.0, 1.0, sign(u) * translation]),
        lambda x, u: _cutout(x, int(_CUTOUT * strength), u),
    )


def _blend(degenerate, image, factor):
    return degenerate + factor * (image - degenerate)


def _autocontrast(image):
    lowest = tf.reduce_min(image, axis=(0, 1))
    highest = tf.reduce_max(image, axis=(0, 1))
    stretched = tf.math.divide_no_nan((image - lowest) * 255, highest - lowest)
    return tf.where(highest > lowest, stretched, image)


def _equalize(image):
    """Equalizes the histogram of each channel."""
    pixels = tf.reshape(tf.cast(image, "int32"), (-1, image.shape[-1]))  # (H W, C)
    channels = []
    for channel in tf.unstack(pixels, axis=1):
        counts = tf.math.bincount(channel, minlength=256, maxlength=256)
        # The highest level that occurs does not count, as in Pillow.
        step = (tf.size(channel) - counts[tf.reduce_max(channel)]) // 255
        below = tf.cumsum(counts, exclusive=True)
        table = tf.where(
            step > 0, (below + step // 2) // tf.maximum(step, 1), tf.range(256)
        )
        channels.append(tf.gather(tf.minimum(table, 255), channel))
    return tf.reshape(tf.cast(tf.stack(channels, 1), "float32"), tf.shape(image))


def _smooth(image):
    """Blurs the image with Pillow's kernel, except for its border."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], "float32") / 13
    kernel = tf.constant(np.repeat(kernel[..., None, None], 3, axis=2))
    inside = tf.nn.depthwise_conv2d(image[None], kernel, [1, 1, 1, 1], "VALID")[0]
    is_inside = tf.pad(tf.ones_like(inside, "bool"), [[1, 1], [1, 1], [0, 0]])
    return tf.where(is_inside, tf.pad(inside, [[1, 1], [1, 1], [0, 0]]), image)


def _rotate(image, angle):
    height, width = (tf.cast(n, "float32") for n in tf.unstack(tf.shape(image)[:2]))
    x, y = (width - 1) / 2, (height - 1) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _affine(
        image,
        [cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos],
    )


def _affine(image, numbers):
    """Sets pixel (x, y) to the one nearest to (a x + b y + c, d x + e y + f)."""
    transform = tf.stack([tf.cast(n, "float32") for n in (*numbers, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        interpolation="NEAREST",
        fill_mode="CONSTANT",
        fill_value=_GRAY,
    )
    return tf.ensure_shape(moved[0], image.shape)


def _cutout(image, reach, u):
    """Masks a square around a random point with gray, `reach` pixels to each side."""
    height, width = tf.unstack(tf.shape(image)[:2])
    row = tf.cast(u[1] * tf.cast(height, "float32"), "int32")
    column = tf.cast(u[2] * tf.cast(width, "float32"), "int32")
    rows, columns = tf.range(height)[:, None], tf.range(width)
    is_hidden = (rows >= row - reach) & (rows < row + reach)
    is_hidden &= (columns >= column - reach) & (columns < column + reach)
    return tf.where(is_hidden[..., None], _GRAY, image)
