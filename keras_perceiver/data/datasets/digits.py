"""Scikit-learn's handwritten digits: 1,797 grayscale images of 8 x 8 pixels."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_perceiver.data.augmentation import apply_random_layers
from keras_perceiver.data.epochs import epoch_order, reshuffled_each_iteration
from keras_perceiver.data.splits import Splits, augment_dataset
from keras_perceiver.modalities import ImagePreprocessor

NUM_CLASSES = 10
IMAGE_SHAPE = (8, 8, 1)

# The split is part of the dataset, so that reported accuracies are comparable.
_SPLIT_SEED = 0
_NUM_VALIDATION = 180
_NUM_TEST = 360
# Divides both, so that all batches have one shape, and a model is compiled once.
_EVALUATION_BATCH_SIZE = 180


def digits(
    batch_size: int = 32, seed: int = 0, use_augmentation: bool = True
) -> Splits:
    """Returns the digits in a fixed, stratified train/validation/test split.

    Pixels are scaled from 0..16 to -1..1, so that a model can be served on images of
    0..255. The training images are reshuffled every epoch, and with `use_augmentation`
    half of them are shifted, rotated, zoomed and have noise added.

    Source: the test set of the [UCI Optical Recognition of Handwritten Digits data](
    https://doi.org/10.24432/C50P49), shipped with scikit-learn.

    Args:
        batch_size: Integer, examples per training batch. Examples that are left over at
            the end of an epoch are dropped, different ones each epoch.
        seed: Integer, seed of the shuffling and of the augmentation.
        use_augmentation: Boolean, whether to augment the training images.

    Returns:
        `Splits` of datasets with elements `(images, labels)`: float32
        `(batch, 8, 8, 1)` and int32 `(batch,)`; 1,257, 180 and 360 examples.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. "
            "Install it with `pip install scikit-learn`."
        ) from error

    images, labels = load_digits(return_X_y=True)
    preprocessor = ImagePreprocessor(IMAGE_SHAPE)
    # Levels are 0 to 16.
    images = preprocessor.scale(images * (255 / 16)).astype("float32")
    images = images.reshape(-1, *IMAGE_SHAPE)
    labels = labels.astype("int32")

    def split(images, labels, num_held_out):
        return train_test_split(
            images,
            labels,
            test_size=num_held_out,
            stratify=labels,
            random_state=_SPLIT_SEED,
        )

    images, test_images, labels, test_labels = split(images, labels, _NUM_TEST)
    images, val_images, labels, val_labels = split(images, labels, _NUM_VALIDATION)

    train_images, train_labels = tf.constant(images), tf.constant(labels)
    change = _augmentation()

    def epoch(number, num_done=0):
        order = epoch_order(len(images), seed, number)
        order = order.batch(batch_size, drop_remainder=True)  # one shape, as above
        train = order.skip(num_done).map(
            lambda index: (
                tf.gather(train_images, index),
                tf.gather(train_labels, index),
            )
        )
        if use_augmentation:
            train = augment_dataset(train, change, seed, number, num_done)
        return train

    def held_out(images, labels):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        return dataset.batch(_EVALUATION_BATCH_SIZE)

    return Splits(
        train=reshuffled_each_iteration(epoch, seed, len(images) // batch_size),
        validation=held_out(val_images, val_labels),
        test=held_out(test_images, test_labels),
        class_names=tuple(map(str, range(NUM_CLASSES))),
        epoch=epoch,
        preprocessor=preprocessor,
    )


def _augmentation():
    """Returns a label-preserving augmentation of a random half of each batch.

    Rotating and zooming 8 x 8 pixels blurs them, while test images are sharp. So half
    of the images are left unchanged, and shifts are by whole pixels.
    """
    # Data are float32 whatever the precision of the model.
    paper = {"fill_mode": "constant", "fill_value": -1.0, "dtype": "float32"}
    shift = keras.layers.RandomTranslation(
        0.125, 0.125, interpolation="nearest", **paper
    )
    zoom = keras.layers.RandomZoom(0.1, 0.1, **paper)
    turn = keras.layers.RandomRotation(0.03, **paper)  # 11 degrees

    def change(images, key):
        # Keras' GaussianNoise runs in tf.data under the TensorFlow backend only.
        noise = tf.random.stateless_normal(tf.shape(images), [key, 0], stddev=0.2)
        changed = apply_random_layers((shift, turn, zoom), images, key) + noise
        choice = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], [key, 1])
        return tf.where(choice < 0.5, changed, images)

    return change
