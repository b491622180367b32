"""Parts of one example: crops of images, clips of sounds and videos."""

import tensorflow as tf

from keras_perceiver._checks import check_positive


def inception_crop(
    encoded, key, size, area=(0.08, 1.0), aspect_ratio=(3 / 4, 4 / 3), use_flip=True
):
    """Cuts a random part out of an encoded JPEG, and resizes it.

    Only the part is decoded. Half of the images are mirrored.

    Reference:
        [Szegedy et al., 2014](https://arxiv.org/abs/1409.4842), section 6; area and
        aspect ratio as in DeepMind's training of the Perceiver.

    Args:
        encoded: String scalar, a JPEG in color.
        key: Int64 scalar; the same key gives the same part.
        size: Integer, height and width of the result in pixels.
        area: Pair of floats, range of the part of the image's area.
        aspect_ratio: Pair of floats, range of width by height.
        use_flip: Boolean, whether half of the images are mirrored.

    Returns:
        Float32 tensor of shape `(size, size, 3)`, in 0 to 255.
    """
    # Keras has RandomCrop, of one size for a whole batch of decoded images: not this.
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
    # Bicubic filters go beyond the range.
    return tf.clip_by_value(image, 0.0, 255.0)


def time_crop(num_samples):
    """Cuts a part at a random time out of each sound.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2.

    Args:
        num_samples: Integer, length of the part. Shorter sounds are padded with zeros
            at the end.

    Returns:
        Callable of waveforms of shape `(batch, samples)` and a key.
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


def overlapping_clips(example, length, num_clips=16, step=1):
    """Cuts a long example into clips of one length, evenly spaced from end to end.

    The score of the example is the mean of the scores of its clips.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2: 16 clips.

    Args:
        example: Tensor of shape `(time, ...)`. One shorter than a clip is padded with
            zeros at the end.
        length: Integer, positions of a clip along time.
        num_clips: Integer.
        step: Integer, clips begin at multiples of it; to cut a sound where a video is
            cut, the samples of a frame.

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
