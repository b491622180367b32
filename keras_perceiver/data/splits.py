"""What every data set of this package returns."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from keras_perceiver.data.epochs import another_every_time, epoch_keys
from keras_perceiver.data.folders import read_folder


class Splits(NamedTuple):
    """Three batched `tf.data.Dataset`s of `(inputs, labels)`, none in another.

    Attributes:
        train: The training data, in another order and changed another way whenever it is
            read.
        validation: Data to choose by.
        test: Data to report.
        class_names: Tuple of strings; label 0 is the first.
        epoch: Callable that takes an int64 scalar and returns that pass over the
            training data, always the same: what makes it possible to go on in the middle.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple
    epoch: Callable

    def epochs(self, first, last):
        """Returns the training data's epochs from `first` to before `last`, in a row."""
        return tf.data.Dataset.range(first, last).flat_map(self.epoch)


def folder_splits(
    folder,
    files,
    batch_size,
    seed=0,
    augment=None,
    validation_fraction=0.15,
    group=None,
    allow_missing=False,
):
    """Reads `<folder>/train` and `<folder>/test` of labelled files.

    A part of the training folder is held out for validation, the same one for every
    seed. All arrays stay in memory.

    Args:
        folder: Path of a folder with the folders `train` and `test`.
        files: Reader or dict of readers, see `read_folder`.
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the order and of the changes.
        augment: Callable `(inputs, key)` that changes a training batch at random, such
            as `image_changes()`, or `None`.
        validation_fraction: Float in (0, 1), the part of each class that is held out.
        group: Callable, see `LabelledFolder.split`.
        allow_missing: Boolean, see `read_folder`.

    Returns:
        `Splits`. Training batches are all full.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: as `read_folder`.
    """
    folder = Path(folder)
    options = {
        "batch_size": batch_size,
        "allow_missing": allow_missing,
        "use_cache": True,
    }
    whole = read_folder(
        folder / "train", files, seed=seed, drop_remainder=True, **options
    )
    test = read_folder(
        folder / "test", files, class_names=whole.class_names, shuffle=False, **options
    )
    train, validation = whole.split(validation_fraction, group)

    def epoch(number):
        dataset = train.epoch(number)
        if augment is None:
            return dataset
        return augmented(dataset, augment, seed, number)

    return Splits(
        train=another_every_time(epoch, seed, int(train.dataset.cardinality())),
        validation=validation.dataset,
        test=test.dataset,
        class_names=whole.class_names,
        epoch=epoch,
    )


def augmented(dataset, change, seed, epoch=None):
    """Changes the inputs of every batch at random.

    Args:
        dataset: `tf.data.Dataset` of `(inputs, labels)`.
        change: Callable `(inputs, key)`, see `keras_perceiver.data.augmentation`.
        seed: Integer, seed of the keys.
        epoch: Int64 scalar, number of the epoch that the changes follow from. Defaults
            to other changes whenever the dataset is read.
    """
    if epoch is None:
        keys = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    else:
        keys = epoch_keys(seed, epoch)
    dataset = tf.data.Dataset.zip(dataset, keys).map(
        lambda batch, key: (change(batch[0], key), batch[1])
    )
    return dataset.prefetch(tf.data.AUTOTUNE)
