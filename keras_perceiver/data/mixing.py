"""MixUp and CutMix of the examples of a batch and of their labels.

Each function returns a callable `(inputs, labels, key)` for
`augment_dataset(use_labels=True)` and `tfds_splits(mix=mixup(10))`;
`folder_splits(mix=mixup)` sets the number of classes itself. Inputs are float32 images
of shape `(batch, height, width, channels)`. Labels are class indices of shape
`(batch,)` or soft labels of shape `(batch, num_classes)`. The key is an int64 scalar.
The callable returns images and float32 soft labels of shape `(batch, num_classes)`.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_perceiver.data.augmentation import KeySeeds, with_tensorflow


def mixup(num_classes: int, alpha: float = 0.2) -> Callable:
    """Blends each image and its label with those of another example of the batch.

    Reference:
        [Zhang et al., 2017](https://arxiv.org/abs/1710.09412).

    Args:
        num_classes: Integer, number of classes.
        alpha: Float, both parameters of the beta distribution of the mixing weights.
    """
    return _mixing(keras.layers.MixUp(alpha, dtype="float32"), num_classes)


def cutmix(num_classes: int) -> Callable:
    """Replaces a rectangle of each image by that of another image of the batch.

    Labels are mixed in proportion to the area, whose share is uniformly distributed
    (before rounding).

    Reference:
        [Yun et al., 2019](https://arxiv.org/abs/1905.04899).

    Args:
        num_classes: Integer, number of classes.
    """
    # Keras draws the parameter of its beta distribution from this range. 1 is uniform.
    layer = keras.layers.CutMix((1.0, 1.0), dtype="float32")
    return _mixing(layer, num_classes)


def mixup_or_cutmix(num_classes: int, alpha: float = 0.2) -> Callable:
    """Applies `mixup` to one half of the batch and `cutmix` to the other.

    Reference:
        DeepMind's training code of the Perceiver.

    Args:
        num_classes: Integer, number of classes.
        alpha: Float, see `mixup`.
    """
    blend, paste = mixup(num_classes, alpha), cutmix(num_classes)

    def mix(images, labels, key):
        half = tf.shape(images)[0] // 2
        parts = (
            blend(images[:half], labels[:half], key),
            paste(images[half:], labels[half:], key),
        )
        return tuple(tf.concat(part, axis=0) for part in zip(*parts, strict=True))

    return mix


def _mixing(layer, num_classes):
    def mix(images, labels, key):
        shape = images.shape
        labels = tf.convert_to_tensor(labels)
        if labels.dtype.is_integer:
            labels = tf.one_hot(labels, num_classes)
        labels = tf.ensure_shape(labels, (None, num_classes))
        with with_tensorflow(layer):
            drawn = layer.get_random_transformation(
                images, training=True, seed=KeySeeds(key)
            )
            images = layer.transform_images(images, drawn, training=True)
            labels = layer.transform_labels(labels, drawn, training=True)
        return tf.ensure_shape(images, shape), tf.cast(labels, "float32")

    return mix
