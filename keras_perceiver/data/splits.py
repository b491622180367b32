"""Training, validation and test data, as every dataset of this package returns them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_perceiver.data.epochs import epoch_keys, reshuffled_each_iteration
from keras_perceiver.data.folders import read_folder

if TYPE_CHECKING:
    from keras_perceiver._typing import Augmentation, PathLike, Preprocessors, Tensor


class Splits(NamedTuple):
    """Training, validation and test data as batched datasets of `(inputs, labels)`.

    Attributes:
        train: `tf.data.Dataset` of the training data, which is reshuffled and augmented
            anew at each iteration.
        validation: `tf.data.Dataset` to choose hyperparameters by.
        test: `tf.data.Dataset` to report results on.
        class_names: Tuple of strings, in the order of the labels, empty without classes.
        epoch: Callable `(number, num_done=0)` that takes int64 scalars and returns the
            training data of that epoch without the first `num_done` batches. The same
            arguments give the same data, so that training can be resumed within an
            epoch.
        shard: Callable `(num_processes, process_index)` that returns splits whose
            training batches are the share of one of several processes, without reading
            the others. `None` for data where whole batches must be read.
        preprocessor: `Preprocessor` of the files, or dict of preprocessors by modality
            name, which a model is saved and served with. `None` for data that are not
            read from files.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple
    epoch: Callable
    shard: Callable | None = None
    preprocessor: object = None

    def epochs(self, first, last, num_done=0):
        """Returns the training data of epochs `first` to `last - 1` as one dataset.

        Args:
            first: Integer, number of the first epoch.
            last: Integer, number after that of the last epoch.
            num_done: Integer, number of batches of the first epoch to skip. The
                datasets of this package never read them.
        """

        def epoch(number):
            return self.epoch(number, tf.where(number == first, num_done, 0))

        # `Dataset.skip` takes int64.
        num_done = tf.constant(num_done, "int64")
        return tf.data.Dataset.range(first, last).flat_map(epoch)

    def merge_validation(self, batch_size):
        """Returns splits whose training data include the validation data.

        For a final run with chosen hyperparameters. The validation data are not
        augmented, and are spread evenly over every epoch. They are read once to count
        them.

        Args:
            batch_size: Integer, maximum batch size of the validation examples.
        """

        def pieces(*batch):
            num_rows = tf.shape(tf.nest.flatten(batch)[0], "int64")[0]
            starts = tf.data.Dataset.range(0, num_rows, batch_size)
            return starts.map(
                lambda start: tf.nest.map_structure(
                    lambda x: x[start : start + batch_size], batch
                )
            )

        validation = self.validation.flat_map(pieces)
        num_more = sum(1 for _ in validation)
        num_batches = int(self.train.cardinality()) + num_more

        def epoch(number, num_done=0):
            # Spread evenly over the epoch.
            is_more = tf.data.Dataset.range(num_batches).map(
                lambda i: (
                    (i + 1) * num_more // num_batches - i * num_more // num_batches
                )
            )
            both = [self.epoch(number), validation]
            return tf.data.Dataset.choose_from_datasets(both, is_more).skip(num_done)

        train = reshuffled_each_iteration(epoch, 0, num_batches)
        return self._replace(train=train, epoch=epoch, shard=None)

    @classmethod
    def from_datasets(
        cls, train, validation, test, class_names, seed=0, preprocessor=None
    ):
        """Creates splits from any datasets, for a recipe to train on.

        An interrupted run resumes exactly only if its data are reproducible. So `train`
        must give the same batches in the same order at each iteration: no `shuffle`, no
        stateful random operations, no `deterministic=False`. To reshuffle every epoch,
        pass a callable whose result depends on the number of the epoch alone, as that
        of `epoch_order` does. To resume within an epoch, the batches before are read
        and discarded.

        Args:
            train: Batched `tf.data.Dataset` of `(inputs, labels)` with a known number
                of batches, or callable that takes the number of an epoch, an int64
                scalar, and returns such a dataset. All epochs must have the same number
                of batches.
            validation: Batched `tf.data.Dataset` of `(inputs, labels)`.
            test: Batched `tf.data.Dataset` of `(inputs, labels)`.
            class_names: Sequence of strings, in the order of the labels.
            seed: Integer, seed of the epoch numbers when `Splits.train` is iterated over.
            preprocessor: `Preprocessor` that the inputs were read with, or dict of
                preprocessors by modality name, or `None`.

        Returns:
            `Splits`.

        Raises:
            TypeError: if `train`, `validation` or `test` is not a dataset.
            ValueError: if elements are not pairs, if the number of training batches is
                unknown, or if their order is not deterministic.

        Example:

        >>> import tensorflow as tf
        >>> from keras_perceiver.data import Splits, epoch_order
        >>> inputs, labels = tf.eye(6), tf.range(6) % 2
        >>> def train(number):
        ...     order = epoch_order(6, 0, number)
        ...     return order.map(lambda i: (inputs[i], labels[i])).batch(2)
        >>> held_out = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(3)
        >>> splits = Splits.from_datasets(train, held_out, held_out, ("even", "odd"))
        >>> len(splits.train)
        3
        """
        read = train if callable(train) else lambda number: train
        first = read(tf.constant(0, "int64"))
        for name, dataset in (
            ("train", first),
            ("validation", validation),
            ("test", test),
        ):
            _check_dataset(name, dataset)
        num_batches = int(first.cardinality())
        if num_batches < 0:
            raise ValueError(
                "The number of training batches must be known. Received: "
                f"train={first}, whose cardinality is unknown or infinite. Apply "
                "`tf.data.experimental.assert_cardinality(num_batches)`, or "
                "`take(num_batches)` if it is infinite."
            )
        if first.options().deterministic is False:
            raise ValueError(
                "The order of the training batches must be deterministic, so that training "
                "can be resumed. Received: train with the option deterministic=False. "
                "Remove it."
            )

        def epoch(number, num_done=0):
            return read(number).skip(num_done)

        return cls(
            train=reshuffled_each_iteration(epoch, seed, num_batches),
            validation=validation,
            test=test,
            class_names=tuple(class_names),
            epoch=epoch,
            preprocessor=preprocessor,
        )


def _check_dataset(name, dataset):
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`{name}` must be a tf.data.Dataset. Received: {dataset!r} of type "
            f"{type(dataset).__name__}. Wrap arrays with "
            "`tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(batch_size)`."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            f"The elements of `{name}` must be pairs `(inputs, labels)`. Received: "
            f"{spec}. Map them to pairs."
        )


def folder_splits(
    folder: PathLike,
    preprocessor: Preprocessors,
    batch_size: int,
    seed: int = 0,
    augment: Augmentation | None = None,
    validation_fraction: float = 0.15,
    group: Callable | None = None,
    allow_missing: bool = False,
    mix: Callable | None = None,
    test_fraction: float = 0.15,
    skip_bad_files: bool = False,
) -> Splits:
    """Reads the labeled files in `<folder>/train` and `<folder>/test`.

    A part of the training folder is held out for validation, the same one for every
    seed. If there is neither `train` nor `test`, the folder must contain the class
    folders, and a part of each class is held out for the test first. All arrays are
    cached in memory.

    Args:
        folder: Path of a folder with the folders `train` and `test`, or with class
            folders.
        preprocessor: `Preprocessor` or dict of preprocessors, see `read_folder`.
        batch_size: Integer, examples per batch.
        seed: Integer, seed of the shuffling and of the augmentation.
        augment: Callable `(inputs, key)` that augments a training batch, such as
            `image_augmentation()`, or `None`.
        validation_fraction: Float in (0, 1), fraction of each class that is held out.
        group: Callable, see `LabeledFolder.split`.
        allow_missing: Boolean, see `read_folder`.
        mix: Callable such as `mixup` or `mixup_or_cutmix` that takes the number of
            classes and returns a callable that mixes the examples of a training batch
            after `augment`. The training labels are soft labels then, which
            `SmoothedCrossentropy` and `Accuracy` take.
        test_fraction: Float in (0, 1), fraction of each class that is held out for the
            test if there are no folders `train` and `test`.
        skip_bad_files: Boolean, see `read_folder`.

    Returns:
        `Splits`. All training batches are full.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: as `read_folder`.
    """
    folder = Path(folder)
    augment = _in_its_range(augment, preprocessor)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "allow_missing": allow_missing,
        "use_cache": True,
        "skip_bad_files": skip_bad_files,
    }
    has_parts = any((folder / part).is_dir() for part in ("train", "test"))
    whole = read_folder(
        folder / "train" if has_parts else folder,
        preprocessor,
        seed=seed,
        drop_remainder=True,
        **options,
    )
    if has_parts:
        test = read_folder(
            folder / "test",
            preprocessor,
            class_names=whole.class_names,
            shuffle=False,
            **options,
        )
    else:
        whole, test = whole.split(test_fraction, group)
    train, validation = whole.split(validation_fraction, group)
    mixed = None if mix is None else mix(len(whole.class_names))

    def epoch(number, num_done=0):
        dataset = train.epoch(number, num_done)
        if augment is not None:
            dataset = augment_dataset(dataset, augment, seed, number, num_done)
        if mixed is not None:
            dataset = augment_dataset(dataset, mixed, seed + 1, number, num_done, True)
        return dataset

    return Splits(
        train=reshuffled_each_iteration(epoch, seed, int(train.dataset.cardinality())),
        validation=validation.dataset,
        test=test.dataset,
        class_names=whole.class_names,
        epoch=epoch,
        preprocessor=preprocessor,
    )


def _in_its_range(augment, preprocessor):
    """Returns an augmentation of raw inputs, given one of values in a certain range.

    Args:
        augment: Callable, or `None`. If it has a `value_range`, it gets values in that
            range, whatever the preprocessor scales and normalizes them to.
        preprocessor: `Preprocessor`, or dict of these.
    """
    own = getattr(augment, "value_range", None)
    given = getattr(preprocessor, "value_range", None)
    mean = getattr(preprocessor, "mean", None)
    deviation = getattr(preprocessor, "standard_deviation", None)
    if None in (own, given):
        return augment
    if tuple(own) == tuple(given) and mean is None and deviation is None:
        return augment
    (low, high), (own_low, own_high) = given, own
    factor = (own_high - own_low) / (high - low)
    mean = np.asarray(0 if mean is None else mean, "float32")
    deviation = np.asarray(1 if deviation is None else deviation, "float32")

    def change(inputs, key):
        values = (inputs * deviation + mean - low) * factor + own_low
        values = (augment(values, key) - own_low) / factor + low
        return (values - mean) / deviation

    return change


def augment_dataset(
    dataset: tf.data.Dataset,
    augment: Callable,
    seed: int,
    epoch: Tensor | None = None,
    num_done: int | Tensor = 0,
    use_labels: bool = False,
) -> tf.data.Dataset:
    """Augments the inputs of every batch.

    Args:
        dataset: `tf.data.Dataset` of `(inputs, labels)`, or `(inputs, labels, weights)`.
        augment: Callable `(inputs, key)`, see `keras_perceiver.data.augmentation`, or
            `(inputs, labels, key)` that returns both, see `keras_perceiver.data.mixing`.
        seed: Integer, seed of the keys.
        epoch: Int64 scalar, number of the epoch, which determines the augmentation. By
            default, it differs at each iteration over the dataset.
        num_done: Int64 scalar, number of batches of the epoch that `dataset` has
            skipped.
        use_labels: Boolean, whether `augment` takes and returns the labels too.
    """
    if epoch is None:
        keys = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    else:
        keys = epoch_keys(seed, epoch).skip(num_done)

    def changed(batch, key):
        inputs, labels, *weights = batch
        if use_labels:
            return (*augment(inputs, labels, key), *weights)
        return (augment(inputs, key), labels, *weights)

    dataset = tf.data.Dataset.zip(dataset, keys)
    dataset = dataset.map(changed, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)
