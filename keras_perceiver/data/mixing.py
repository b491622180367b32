"""Random mixtures of the examples of a batch, and of their labels.

Each function returns a callable `(inputs, labels, key)` for
`augment_dataset(use_labels=True)` and `tfds_splits(mix=mixup(10))`;
`folder_splits(mix=mixup)` counts the classes itself.
Inputs are float32 images of shape `(batch, height, width, channels)`, labels are class
indices of shape `(batch,)` or already numbers for every class, the key is an int64
scalar. What comes back are images, and float32 labels of shape `(batch, num_classes)`.
"""

import keras
import tensorflow as tf

from keras_perceiver.data.augmentation import KeySeeds, with_tensorflow


def mixup(num_classes, alpha=0.2):
    """Blends each image with another one of its batch, and their labels alike.

    Reference:
        [Zhang et al., 2017](https://arxiv.org/abs/1710.09412).

    Args:
        num_classes: Integer.
        alpha: Float, both parameters of the beta distribution of the weights.
    """
    return _mixing(keras.layers.MixUp(alpha, dtype="float32"), num_classes)


def cutmix(num_classes):
    """Puts a rectangle of another image of the batch into each image.

    The labels are mixed as the area is, whose distribution is uniform (before rounding).

    Reference:
        [Yun et al., 2019](https://arxiv.org/abs/1905.04899).

    Args:
        num_classes: Integer.
    """
    # Keras draws the parameter of its beta distribution from this range; 1 is uniform.
    layer = keras.layers.CutMix((1.0, 1.0), dtype="float32")
    return _mixing(layer, num_classes)


def mixup_or_cutmix(num_classes, alpha=0.2):
    """Does one half of the batch as `mixup` does, and the other as `cutmix`.

    Reference:
        DeepMind's training code of the Perceiver does so.

    Args:
        num_classes: Integer.
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
