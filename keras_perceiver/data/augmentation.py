"""Random augmentation of batches that preserves their labels.

Each function returns a callable `(inputs, key)` for `folder_splits`. It takes float32
inputs and an int64 scalar that differs from batch to batch. The same key gives the same
augmentation. If a callable requires a range of values, its attribute `value_range` is
that range, to which `folder_splits` scales the raw inputs, and back.
"""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import tensorflow as tf

from keras_perceiver._typing import Augmentation
from keras_perceiver.modalities.preprocessors.pixels import PIXEL_RANGE
from keras_perceiver.modalities.preprocessors.point_cloud import scale_to_unit_cube


class KeySeeds(keras.random.SeedGenerator):
    """Generates seeds from a key."""

    # The parent's `__init__` is not called: it would create a variable, whose state
    # would depend on how many batches were prefetched.
    def __init__(self, key):
        self.key = tf.cast(key, "int64")
        self.num_drawn = 0

    def next(self, ordered=True):
        self.num_drawn += 1
        return tf.stack([self.key, self.num_drawn])


def apply_random_layers(layers, images, key):
    """Applies Keras' random image layers, with random numbers derived from a key.

    Args:
        layers: Sequence of Keras' random image layers, applied in this order.
        images: Float32 tensor of shape `(batch, height, width, channels)`.
        key: Int64 scalar.
    """
    seeds = KeySeeds(key)
    for layer in layers:
        with with_tensorflow(layer):
            drawn = layer.get_random_transformation(images, training=True, seed=seeds)
            images = layer.transform_images(images, drawn, training=True)
    return images


@contextlib.contextmanager
def with_tensorflow(layer):
    """Context in which a random layer of Keras uses TensorFlow on any backend.

    A layer that is called within tf.data does so by itself, but then draws from its own
    state.
    """
    layer.backend.set_backend("tensorflow")
    try:
        yield
    finally:
        layer.backend.reset()


def image_augmentation(
    shift: float = 0.1,
    zoom: float = 0.15,
    rotation: float = 0.05,
    contrast: float = 0.3,
    brightness: float = 0.2,
    noise: float = 0.05,
    use_flip: bool = True,
    interpolation: str = "bilinear",
    value_range: tuple[float, float] = PIXEL_RANGE,
) -> Augmentation:
    """Shifts, zooms, rotates and flips images, and changes brightness and contrast.

    A value of 0 or `False` disables a transform.

    Args:
        shift: Float, maximum shift as a fraction of height and width.
        zoom: Float, maximum change in size as a fraction.
        rotation: Float, maximum angle as a fraction of a full turn.
        contrast: Float, maximum change in each channel's range as a fraction.
        brightness: Float, maximum change in each channel's level.
        noise: Float, maximum standard deviation of the noise added to every channel.
            The level of each image is 0 to 80 decibels below it.
        use_flip: Boolean, whether half of the images are flipped horizontally.
        interpolation: String, `"bilinear"`, which blurs, or `"nearest"`, which keeps
            the lines and colors of drawings and shifts by whole pixels.
        value_range: Pair of floats, the values of black and white, see
            `ImagePreprocessor`. The other arguments are relative to a range of -1 to 1.

    Returns:
        Callable of images of shape `(batch, height, width, channels)` and a key.
    """
    # Data are float32 whatever the precision of the model.
    options = {
        "fill_mode": "nearest",
        "interpolation": interpolation,
        "dtype": "float32",
    }
    layers = []
    if use_flip:
        layers.append(keras.layers.RandomFlip("horizontal", dtype="float32"))
    if shift:
        layers.append(keras.layers.RandomTranslation(shift, shift, **options))
    if zoom:
        layers.append(keras.layers.RandomZoom(zoom, zoom, **options))
    if rotation:
        layers.append(keras.layers.RandomRotation(rotation, **options))

    center, half = sum(value_range) / 2, (value_range[1] - value_range[0]) / 2

    def change(images, key):
        images = (apply_random_layers(layers, images, key) - center) / half
        shape = (tf.shape(images)[0], 1, 1, images.shape[-1])
        # Per channel, which changes the color as well.
        factor = tf.random.stateless_uniform(
            shape, [key, 0], 1 - contrast, 1 + contrast
        )
        level = tf.random.stateless_uniform(shape, [key, 1], -brightness, brightness)
        grain = _noise(tf.shape(images), [key, 2], noise)
        images = tf.clip_by_value(images * factor + level + grain, -1.0, 1.0)
        return images * half + center

    change.value_range = value_range  # type: ignore[attr-defined]
    return change


def audio_augmentation(
    shift: float = 0.1,
    speed: float = 0.1,
    gain: tuple[float, float] = (0.3, 1.2),
    noise: float = 0.005,
    use_polarity_inversion: bool = True,
) -> Augmentation:
    """Shifts waveforms in time, changes their speed and volume, and adds noise.

    Args:
        shift: Float, maximum delay as a fraction of the batch's length. Samples that
            are shifted past the end are lost.
        speed: Float, maximum change in speed, and thereby in pitch, as a fraction.
            Samples are interpolated linearly.
        gain: Pair of floats, range of the factor applied to the amplitude.
        noise: Float, maximum standard deviation of the noise. The level of each
            waveform is 0 to 80 decibels below it.
        use_polarity_inversion: Boolean, whether to invert the sign of half of the
            waveforms, which is inaudible.

    Returns:
        Callable that takes waveforms of shape `(batch, samples)` and a key. Instead of
        waveforms it takes a dict with `"audio"` and, if they have a mask,
        `"audio_mask"` of the same shape.
    """

    def change(inputs, key):
        if not isinstance(inputs, dict):
            return change({"audio": inputs}, key)["audio"]
        audio, mask = inputs["audio"], inputs.get("audio_mask")
        num_samples = tf.shape(audio)[1]
        shape = (tf.shape(audio)[0], 1)
        longest = tf.cast(num_samples, "float32") * shift
        delay = tf.floor(tf.random.stateless_uniform(shape, [key, 0]) * (longest + 1))
        rate = tf.random.stateless_uniform(shape, [key, 1], 1 - speed, 1 + speed)
        # Positions of the new samples in the original waveform, (B, samples)
        times = (tf.range(num_samples, dtype="float32") - delay) * rate
        before = tf.floor(times)
        weight = times - before

        def at(index):
            index = tf.cast(index, "int32")
            there = tf.cast((index >= 0) & (index < num_samples), "float32")
            index = tf.clip_by_value(index, 0, num_samples - 1)
            return tf.gather(audio, index, batch_dims=1) * there

        audio = at(before) * (1 - weight) + at(before + 1) * weight
        factor = tf.random.stateless_uniform(shape, [key, 2], *gain)
        if use_polarity_inversion:
            side = tf.random.stateless_uniform(shape, [key, 4])
            factor = tf.where(side < 0.5, -factor, factor)
        grain = _noise(tf.shape(audio), [key, 3], noise)
        audio = tf.clip_by_value(audio * factor + grain, -1.0, 1.0)
        if mask is None:
            return {**inputs, "audio": audio}
        length = tf.reduce_sum(tf.cast(mask, "float32"), axis=1, keepdims=True)
        return {**inputs, "audio": audio, "audio_mask": times < length}

    change.value_range = (-1.0, 1.0)  # type: ignore[attr-defined]
    return change


def _noise(shape, seed, maximum):
    """Returns noise with a random level per example.

    Levels are uniform in decibels. With one level for all examples, a model would never
    see silence or flat areas as clean as those in the test data.
    """
    levels = tf.concat([shape[:1], tf.ones_like(shape[1:])], axis=0)
    decibels = tf.random.stateless_uniform(levels, [seed[0], -1 - seed[1]], -80, 0)
    return maximum * 10 ** (decibels / 20) * tf.random.stateless_normal(shape, seed)


def point_cloud_augmentation(
    scale: float = 0.2,
    noise: float = 0.01,
    mirror_axis: int = 0,
    rotation: float = 0.0,
    up_axis: int = 1,
) -> Augmentation:
    """Stretches, mirrors and rotates point clouds, and jitters every point.

    Args:
        scale: Float, maximum change in size along each axis as a fraction.
        noise: Float, standard deviation of the jitter.
        mirror_axis: Integer, the coordinate whose sign is inverted in half of the
            clouds.
        rotation: Float, maximum angle around the vertical axis as a fraction of a full
            turn.
        up_axis: Integer, the vertical axis.

    Returns:
        Callable that takes points of shape `(batch, points, 3)` and a key.
    """
    across = [axis for axis in range(3) if axis != up_axis]

    def change(points, key):
        batch_size = tf.shape(points)[0]
        factor = tf.random.stateless_uniform(
            (batch_size, 1, 3), [key, 0], 1 - scale, 1 + scale
        )
        side = tf.random.stateless_uniform((batch_size, 1, 1), [key, 1])
        mirror = tf.one_hot(mirror_axis, 3, on_value=-1.0, off_value=1.0)
        points = points * tf.where(side < 0.5, factor * mirror, factor)
        angle = tf.random.stateless_uniform(
            (batch_size, 1), [key, 2], -2 * np.pi * rotation, 2 * np.pi * rotation
        )
        axes = tf.unstack(points, axis=-1)
        a, b = (axes[axis] for axis in across)
        axes[across[0]] = a * tf.cos(angle) - b * tf.sin(angle)
        axes[across[1]] = a * tf.sin(angle) + b * tf.cos(angle)
        points = tf.stack(axes, axis=-1)
        return points + tf.random.stateless_normal(
            tf.shape(points), [key, 3], stddev=noise
        )

    return change


def point_scaling(scale: float = 0.01) -> Augmentation:
    """Scales each point by a random factor, then the cloud to the unit cube.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3: factors from
        0.99 to 1.01.

    Args:
        scale: Float, maximum change in a point's distance from the center as a
            fraction.

    Returns:
        Callable that takes points of shape `(batch, points, 3)` and a key.
    """

    def change(points, key):
        shape = (*tf.unstack(tf.shape(points)[:2]), 1)
        factor = tf.random.stateless_uniform(shape, [key, 0], 1 - scale, 1 + scale)
        return scale_to_unit_cube(points * factor)

    return change


def video_augmentation(
    size: int | None = None,
    brightness: float = 0.125,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.05,
    use_flip: bool = True,
) -> Augmentation:
    """Crops and flips videos and changes their colors, all frames of a video alike.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2, which
        names color, crop and flip. The magnitudes are those of this package.

    Args:
        size: Integer, height and width of the crop in pixels. Defaults to the whole
            frame.
        brightness: Float in `[0, 1]`, maximum change in level as a fraction of the
            range.
        contrast: Float in `[0, 1]`, maximum change in contrast as a fraction.
        saturation: Float in `[0, 1)`. The saturation is multiplied by a factor between
            (1 - `saturation`) / (1 + `saturation`) and its inverse.
        hue: Float in `[0, 0.5]`, maximum change in hue as a fraction of the color
            circle.
        use_flip: Boolean, whether half of the videos are flipped horizontally.

    Returns:
        Callable that takes videos of shape `(batch, frames, height, width, 3)` with
        values from -1 to 1, and a key.
    """
    options = {"value_range": (0.0, 1.0), "dtype": "float32"}
    layers = (
        *([keras.layers.RandomFlip("horizontal", dtype="float32")] if use_flip else ()),
        keras.layers.RandomBrightness(brightness, **options),
        # A single number would only increase the contrast.
        keras.layers.RandomContrast((contrast, contrast), **options),
        # 0.5 is no change.
        keras.layers.RandomSaturation(
            (0.5 - saturation / 2, 0.5 + saturation / 2), **options
        ),
        # 1 is half of the color circle.
        keras.layers.RandomHue(2 * hue, **options),
    )

    def change(videos, key):
        if size is not None:
            videos = _crop(videos, size, key)
        batch_size, frames, height, width, _ = tf.unstack(tf.shape(videos))
        # All frames are stacked into one image, so that they are transformed alike.
        tall = (batch_size, frames * height, width, videos.shape[-1])
        images = apply_random_layers(layers, (tf.reshape(videos, tall) + 1) / 2, key)
        images = tf.clip_by_value(images, 0.0, 1.0) * 2 - 1
        return tf.ensure_shape(tf.reshape(images, tf.shape(videos)), videos.shape)

    change.value_range = (-1.0, 1.0)  # type: ignore[attr-defined]
    return change


def _crop(videos, size, key):
    """Crops each video to a square at a random position."""
    # Keras' `RandomCrop` crops the whole batch at one position.
    batch_size, _, height, width, _ = tf.unstack(tf.shape(videos))
    for axis, length in ((2, height), (3, width)):
        start = tf.random.stateless_uniform(
            (batch_size, 1), [key, -axis], 0, length - size + 1, "int32"
        )
        places = start + tf.range(size)  # (B, size)
        videos = tf.vectorized_map(
            lambda pair, axis=axis: tf.gather(pair[0], pair[1], axis=axis - 1),
            (videos, places),
        )
    return videos
