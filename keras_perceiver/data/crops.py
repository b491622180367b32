"""Crops of images, and clips of audio and video."""

from __future__ import annotations

import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver._typing import Augmentation, Tensor


def inception_crop(
    encoded: Tensor,
    key: Tensor,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    use_flip: bool = True,
) -> Tensor:
    """Crops an encoded JPEG at random and resizes the crop.

    Only the crop is decoded. Half of the images are flipped horizontally.

    Reference:
        [Szegedy et al., 2014](https://arxiv.org/abs/1409.4842), section 6; area and
        aspect ratio as in DeepMind's training of the Perceiver.

    Args:
        encoded: String scalar, a color JPEG.
        key: Int64 scalar. The same key gives the same crop.
        size: Integer, height and width of the returned image in pixels.
        area: Pair of floats, range of the crop's share of the image's area.
        aspect_ratio: Pair of floats, range of the ratio of width to height.
        use_flip: Boolean, whether half of the images are flipped horizontally.

    Returns:
        Float32 tensor of shape `(size, size, 3)` with values from 0 to 255.
    """
    # Keras' `RandomCrop` takes crops of one size from a batch of decoded images.
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(encoded),
        tf.zeros((1, 0, 4)),
        tf.stack([key, 0]),
        aspect_ratio_range=aspect_ratio,
        area_range=area,
        min_object_covered=0.1,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = _resize(image, size)
    if use_flip:
        image = tf.image.stateless_random_flip_left_right(image, tf.stack([key, 1]))
    return image


def _resize(image, size):
    image = tf.image.resize(image, (size, size), "bicubic", antialias=True)
    # Bicubic filters overshoot the range.
    return tf.clip_by_value(image, 0.0, 255.0)


def time_crop(num_samples: int) -> Augmentation:
    """Crops each waveform at a random time.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2.

    Args:
        num_samples: Integer, length of the crop. Shorter waveforms are padded with
            zeros at the end.

    Returns:
        Callable that takes waveforms of shape `(batch, samples)` and a key.
    """
    check_positive(num_samples=num_samples)

    def change(audio, key):
        missing = tf.maximum(num_samples - tf.shape(audio)[1], 0)
        audio = tf.pad(audio, [[0, 0], [0, missing]])
        batch_size, length = tf.unstack(tf.shape(audio))
        start = tf.random.stateless_uniform(
            (batch_size, 1), [key, 0], 0, length - num_samples + 1, "int32"
        )
        return tf.gather(audio, start + tf.range(num_samples), axis=1, batch_dims=1)

    return change


def overlapping_clips(
    example: Tensor, length: int, num_clips: int = 16, step: int = 1
) -> Tensor:
    """Cuts a long example into clips of equal length, evenly spaced over its duration.

    The score of the example is the mean of the scores of its clips.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 16 clips.

    Args:
        example: Tensor of shape `(time, ...)`. It is padded with zeros at the end if it
            is shorter than a clip.
        length: Integer, length of a clip along the time axis.
        num_clips: Integer, number of clips.
        step: Integer. Clips start at multiples of it. To cut audio where a video is
            cut, set it to the number of samples per frame.

    Returns:
        Tensor of shape `(num_clips, length, ...)`.
    """
    check_positive(length=length, num_clips=num_clips, step=step)
    example = tf.convert_to_tensor(example)
    missing = tf.maximum(length - tf.shape(example)[0], 0)
    padding = [[0, missing]] + [[0, 0]] * (len(example.shape) - 1)
    example = tf.pad(example, padding)
    last = (tf.shape(example)[0] - length) // step
    starts = tf.linspace(0.0, tf.cast(last, "float32"), num_clips)
    starts = tf.cast(tf.round(starts), "int32") * step
    return tf.gather(example, starts[:, None] + tf.range(length))
