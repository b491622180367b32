"""Reads TensorFlow Datasets by random access, as `Splits`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_perceiver._checks import check_positive
from keras_perceiver.data.epochs import (
    epoch_keys,
    epoch_order,
    reshuffled_each_iteration,
)
from keras_perceiver.data.splits import Splits, augment_dataset
from keras_perceiver.modalities.preprocessors.pixels import scale_pixels

if TYPE_CHECKING:
    from keras_perceiver._typing import Augmentation, PathLike, Preprocessors

# Number of examples in each part of mock data.
_NUM_MOCK_EXAMPLES = 8


def tfds_splits(
    name: str,
    batch_size: int,
    seed: int = 0,
    folder: PathLike | None = None,
    train_split: str = "train[10%:]",
    validation_split: str = "train[:10%]",
    test_split: str = "test",
    encoded: Sequence[str] = (),
    preprocessor: Preprocessors | None = None,
    prepare: Callable | None = None,
    prepare_train: Callable | None = None,
    prepare_test: Callable | None = None,
    augment: Augmentation | None = None,
    mix: Callable | None = None,
    num_processes: int = 1,
    process_index: int = 0,
    download: bool = False,
    manual_folder: PathLike | None = None,
    mock: Callable | None = None,
) -> Splits:
    """Reads a dataset of TensorFlow Datasets, or this package's `modelnet40` or `audioset`.

    Examples are read from array_record files by index: an epoch is an order of indices,
    and a run that is resumed within an epoch does not read the examples before.
    Reading, decoding and augmentation run in parallel and are prefetched. The same seed
    gives the same batches.

    Args:
        name: String, name of the dataset, `"name/config"` or `"name/config:version"`.
        batch_size: Integer, examples per batch of all processes together. Examples that
            are left over at the end of an epoch are dropped, different ones each epoch.
        seed: Integer, seed of the shuffling and of the augmentation.
        folder: Path of the prepared data, the `data_dir` of TensorFlow Datasets.
            Defaults to that of TensorFlow Datasets.
        train_split: String, the training examples in the split syntax of TensorFlow
            Datasets.
        validation_split: String, the validation examples. Defaults to the first tenth
            of the training split, which was shuffled when it was prepared.
        test_split: String, the test examples.
        encoded: Sequence of strings, names of features that `prepare` receives encoded,
            such as a JPEG, so that it can decode a crop only.
        preprocessor: `Preprocessor`, or dict of preprocessors by modality name, whose
            `convert` gives the inputs. It becomes `Splits.preprocessor`.
        prepare: Callable that takes the dict of one example and returns `(inputs,
            label)`. Defaults to the supervised keys of the dataset: inputs are
            converted by `preprocessor`, or to float32 (uint8 scaled from 0..255 to
            -1..1) without one, and labels to int32.
        prepare_train: Callable `(example, key)` that does this for training, with an
            int64 key that is unique per example and epoch. Defaults to `prepare`.
        prepare_test: Callable `(example)` that does this for the test data. Defaults to
            `prepare`.
        augment: Callable `(inputs, key)` that augments a training batch, such as
            `image_augmentation()`.
        mix: Callable `(inputs, labels, key)` that mixes the examples of a training
            batch, such as `mixup(num_classes)`, after `augment`.
        num_processes: Integer, number of processes that train together. Each reads its
            share of every training batch, and all of the validation and test data.
        process_index: Integer, index of this process, from 0.
        download: Boolean, whether missing data may be downloaded and prepared. `False`:
            the network is not used.
        manual_folder: Path of archives that you have downloaded. Datasets that need
            them (`imagenet2012`, `modelnet40`, `audioset`) are prepared from them,
            unless that was done before.
        mock: Callable that takes a NumPy random generator and returns a random example,
            a dict of features to encode. A few of these replace the examples of the
            dataset, and nothing is read.

    Returns:
        `Splits`. All training batches are full.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: if they are prepared in a format without random access, if there is
            less than a batch of training data, or if the arguments are inconsistent.
        ImportError: if array_record is not installed.

    Example:

    >>> def example(rng):  # a random example of cifar10
    ...     image = rng.integers(0, 256, (32, 32, 3), dtype="uint8")
    ...     return {"id": "", "image": image, "label": rng.integers(10)}
    >>> splits = tfds_splits("cifar10", batch_size=4, mock=example)
    >>> images, labels = next(iter(splits.train))
    >>> tuple(images.shape), len(splits.class_names)
    ((4, 32, 32, 3), 10)
    """
    _check_processes(batch_size, num_processes, process_index)
    parts = train_split, validation_split, test_split
    if mock is None:
        builder = _builder(name, folder)
        _make_readable(builder, folder, download, manual_folder)
        sources: list = [_Source(builder, part) for part in parts]
    else:
        with tempfile.TemporaryDirectory() as nowhere:
            builder = _builder(name, nowhere)
        sources = [_MockSource(builder, mock, seed) for seed in range(3)]
    features = builder.info.features
    prepare = prepare or _supervised(builder, preprocessor)
    decode = _decoder(features, encoded)
    train, validation, test = sources
    num_batches = len(train) // batch_size
    if num_batches == 0:
        raise ValueError(
            "`batch_size` must not exceed the number of training examples. Received: "
            f"batch_size={batch_size}, {len(train)} examples in {train_split!r} of "
            f"{name}. Reduce it."
        )

    def prepared_train(serialized, key):
        example = decode(serialized)
        return prepare_train(example, key) if prepare_train else prepare(example)

    def training(num_processes, process_index):
        num_rows = batch_size // num_processes
        first_row = process_index * num_rows
        # Different for every process. That of process 0 is independent of their number.
        stream = seed + process_index * 1_000_003

        def epoch(number, num_done=0):
            number = tf.cast(number, "int64")
            order = epoch_order(len(train), seed, number).batch(batch_size, True)
            dataset = tf.data.Dataset.zip(order, epoch_keys(stream, number))
            dataset = dataset.skip(num_done).map(
                lambda indices, key: (
                    indices[first_row : first_row + num_rows],
                    tf.random.stateless_uniform(
                        [num_rows], [key, 0], None, None, "int64"
                    ),
                )
            )
            dataset = _read(dataset, train, prepared_train).batch(num_rows, True)
            if augment is not None:
                dataset = augment_dataset(
                    dataset, augment, stream + 1, number, num_done
                )
            if mix is not None:
                dataset = augment_dataset(
                    dataset, mix, stream + 2, number, num_done, True
                )
            return dataset.prefetch(tf.data.AUTOTUNE)

        return epoch

    def held_out(source, prepare):
        dataset = tf.data.Dataset.range(len(source)).batch(batch_size)
        dataset = dataset.map(lambda indices: (indices, indices))
        dataset = _read(
            dataset, source, lambda serialized, _: prepare(decode(serialized))
        )
        dataset = dataset.batch(batch_size)
        # tf.data does not know the cardinality after `unbatch`.
        num_batches = -(-len(source) // batch_size)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
        return dataset.prefetch(tf.data.AUTOTUNE)

    epoch = training(num_processes, process_index)
    splits = Splits(
        train=reshuffled_each_iteration(epoch, seed, num_batches),
        validation=held_out(validation, prepare),
        test=held_out(test, prepare_test or prepare),
        class_names=_class_names(features),
        epoch=epoch,
        preprocessor=preprocessor,
    )

    def shard(num_processes, process_index):
        _check_processes(batch_size, num_processes, process_index)
        epoch = training(num_processes, process_index)
        train = reshuffled_each_iteration(epoch, seed, num_batches)
        return splits._replace(train=train, epoch=epoch)

    return splits._replace(shard=shard)


def _check_processes(batch_size, num_processes, process_index):
    check_positive(batch_size=batch_size, num_processes=num_processes)
    if batch_size % num_processes:
        raise ValueError(
            "`batch_size` must be divisible by `num_processes`. Received: "
            f"batch_size={batch_size}, num_processes={num_processes}. "
            f"Set it to a multiple of {num_processes}."
        )
    if not 0 <= process_index < num_processes:
        raise ValueError(
            "`process_index` must be from 0 to `num_processes` - 1. Received: "
            f"process_index={process_index}, num_processes={num_processes}. "
            "Number the processes from 0."
        )


def _read(batches, source, prepare):
    """Reads batches of (indices, keys), and prepares each example."""

    def read(indices, keys):
        # Python requests a batch of records at once, which is read by C++ in parallel.
        serialized = tf.numpy_function(source.read, [indices], "string")
        serialized.set_shape(indices.shape)
        return serialized, keys

    records = batches.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return records.unbatch().map(prepare, num_parallel_calls=tf.data.AUTOTUNE)


class _Source:
    """The serialized examples of one split, by their index."""

    def __init__(self, builder, split):
        import tensorflow_datasets as tfds

        self.records = builder.as_data_source(
            split=split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format="array_record",
        )

    def __len__(self):
        return len(self.records)

    def read(self, indices):
        return np.array(self.records.__getitems__(indices.tolist()), dtype=object)


class _MockSource:
    """A few serialized random examples, which are always the same."""

    def __init__(self, builder, mock, seed):
        rng = np.random.default_rng(seed)
        features = builder.info.features
        self.records = np.array(
            [
                features.serialize_example(features.encode_example(mock(rng)))
                for _ in range(_NUM_MOCK_EXAMPLES)
            ],
            dtype=object,
        )

    def __len__(self):
        return len(self.records)

    def read(self, indices):
        return self.records[indices]


def _builder(name, folder):
    import tensorflow_datasets as tfds

    # Registers them.
    import keras_perceiver.data.builders.audioset
    import keras_perceiver.data.builders.modelnet40  # noqa: F401

    # `try_gcs` uses the network even if nothing is downloaded.
    return tfds.builder(name, data_dir=folder and str(folder), try_gcs=False)


def _make_readable(builder, folder, download, manual_folder):
    """Prepares the data if needed and allowed, and raises unless they can be read."""
    import tensorflow_datasets as tfds

    try:
        import array_record  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Datasets are read with array_record, which is not installed. "
            "Install it with `pip install array_record`."
        ) from error

    array_record_format = tfds.core.FileFormat.ARRAY_RECORD
    if not builder.is_prepared():
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        if not download and not (instructions and manual_folder):
            fix = (
                f"{instructions} Then pass that folder as `manual_folder`."
                if instructions
                else "Set `download=True`, or correct `folder`."
            )
            raise FileNotFoundError(
                f"The dataset must be prepared. Received: {builder.info.full_name}, which "
                f"is not in {builder.data_dir}. {fix}"
            )
        try:
            builder.download_and_prepare(
                file_format=array_record_format,
                download_config=tfds.download.DownloadConfig(
                    manual_dir=manual_folder and str(Path(manual_folder).absolute()),
                    try_download_gcs=False,
                ),
            )
        # Builders of TensorFlow Datasets raise these if archives are missing.
        except (AssertionError, tf.errors.NotFoundError) as error:
            raise FileNotFoundError(
                f"The archives of {builder.name} must be in the manual folder. Received: "
                f"manual_folder={manual_folder}. {instructions}"
            ) from error
    formats = builder.info.available_file_formats()
    if array_record_format not in formats:
        raise ValueError(
            "Data must be in a format with random access. Received: "
            f"{builder.data_dir} with {sorted(f.value for f in formats)}. Run `tfds "
            f"convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record`, which adds that format (the command needs "
            "apache-beam), or prepare the data in another folder."
        )


def _decoder(features, encoded):
    """Returns a callable from a serialized example to its dict of features."""
    import tensorflow_datasets as tfds

    decoders = {name: tfds.decode.SkipDecoding() for name in encoded}

    def decode(serialized):
        return features.deserialize_example(serialized, decoders=decoders)

    return decode


def _supervised(builder, preprocessor):
    """Returns the default `prepare`."""
    keys = builder.info.supervised_keys
    if keys is None:
        raise ValueError(
            f"{builder.name} does not define inputs and labels. Received: "
            f"prepare=None and the features {sorted(builder.info.features)}. "
            "Pass a `prepare` that returns a pair of them."
        )
    inputs_name, label_name = keys

    def prepare(example):
        inputs, label = example[inputs_name], tf.cast(example[label_name], "int32")
        if preprocessor is not None:
            return preprocessor.convert(inputs), label
        is_image = inputs.dtype == tf.uint8
        inputs = tf.cast(inputs, "float32")
        return scale_pixels(inputs) if is_image else inputs, label

    return prepare


def _class_names(features):
    """Returns the class names of the first feature that has classes."""
    import tensorflow_datasets as tfds

    for feature in features.values():
        feature = getattr(feature, "feature", feature)  # of a sequence
        if isinstance(feature, tfds.features.ClassLabel):
            return tuple(feature.names or map(str, range(feature.num_classes)))
    return ()
