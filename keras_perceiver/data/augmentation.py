"""Random changes of a batch that leave its labels true.

Each function returns a callable `(inputs, key)` for `folder_splits`: float32 inputs and
an int64 scalar, another one for every batch. The same key gives the same change, except
for Keras' image layers, which draw from `seed`.
"""

import keras
import tensorflow as tf


def image_changes(seed, shift=0.1, zoom=0.15, rotation=0.05, noise=0.05):
    """Moves, zooms, turns and mirrors images, and changes brightness and contrast.

    Args:
        seed: Integer, seed of the moves.
        shift: Float, greatest shift as a fraction of height and width.
        zoom: Float, greatest change of size as a fraction.
        rotation: Float, greatest angle as a fraction of a full turn.
        noise: Float, standard deviation of the noise on every channel.

    Returns:
        Callable of images of shape `(batch, height, width, channels)` and a key.
    """
    # The data stay float32 whatever the precision of the model.
    options = {"fill_mode": "nearest", "dtype": "float32"}
    layers = (
        keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"),
        keras.layers.RandomTranslation(shift, shift, seed=seed + 1, **options),
        keras.layers.RandomZoom(zoom, zoom, seed=seed + 2, **options),
        keras.layers.RandomRotation(rotation, seed=seed + 3, **options),
    )

    def change(images, key):
        for layer in layers:
            images = layer(images, training=True)
        shape = (tf.shape(images)[0], 1, 1, images.shape[-1])
        # Each channel for itself: a change of colour as well.
        contrast = tf.random.stateless_uniform(shape, [key, 0], 0.7, 1.3)
        brightness = tf.random.stateless_uniform(shape, [key, 1], -0.2, 0.2)
        grain = tf.random.stateless_normal(tf.shape(images), [key, 2], stddev=noise)
        return tf.clip_by_value(images * contrast + brightness + grain, -1.0, 1.0)

    return change


def sound_changes(shift=0.1, gain=(0.3, 1.2), noise=0.005):
    """Delays sounds, changes their loudness and adds noise.

    Args:
        shift: Float, greatest delay as a fraction of the batch's length; what is pushed
            out at the end is lost.
        gain: Pair of floats, range of the factor of the amplitude.
        noise: Float, standard deviation of the noise.

    Returns:
        Callable of a dict with waveforms `"audio"` and `"audio_mask"`, both of shape
        `(batch, samples)`, and a key.
    """

    def change(inputs, key):
        audio, mask = inputs["audio"], inputs["audio_mask"]
        batch_size, num_samples = tf.unstack(tf.shape(audio))
        largest = tf.cast(shift * tf.cast(num_samples, "float32"), "int32")
        delay = tf.random.stateless_uniform(
            (), [key, 0], 0, largest + 1, "int32"
        )  # of the whole batch: a mask stays a run of samples from the start
        start = tf.minimum(delay, num_samples)
        audio = tf.pad(audio, [[0, 0], [start, 0]])[:, :num_samples]
        mask = tf.pad(mask, [[0, 0], [start, 0]], constant_values=True)
        factor = tf.random.stateless_uniform((batch_size, 1), [key, 1], *gain)
        grain = tf.random.stateless_normal(tf.shape(audio), [key, 2], stddev=noise)
        audio = tf.clip_by_value(audio * factor + grain, -1.0, 1.0)
        return {**inputs, "audio": audio, "audio_mask": mask[:, :num_samples]}

    return change


def point_changes(scale=0.2, noise=0.01, mirror_axis=0):
    """Stretches point clouds along each axis, mirrors half of them and moves points.

    Args:
        scale: Float, greatest change of size as a fraction.
        noise: Float, standard deviation of each point's movement.
        mirror_axis: Integer, the coordinate whose sign changes.

    Returns:
        Callable of points of shape `(batch, points, 3)` and a key.
    """

    def change(points, key):
        batch_size = tf.shape(points)[0]
        factor = tf.random.stateless_uniform(
            (batch_size, 1, 3), [key, 0], 1 - scale, 1 + scale
        )
        side = tf.random.stateless_uniform((batch_size, 1, 1), [key, 1])
        mirror = tf.one_hot(mirror_axis, 3, on_value=-1.0, off_value=1.0)
        factor = tf.where(side < 0.5, factor * mirror, factor)
        moved = tf.random.stateless_normal(tf.shape(points), [key, 2], stddev=noise)
        return points * factor + moved

    return change
