"""TensorFlow Datasets as `Splits`, read by random access."""

import tempfile
from pathlib import Path

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

# So many examples are there of each part of a mock.
_NUM_MOCK_EXAMPLES = 8


def tfds_splits(
    name,
    batch_size,
    seed=0,
    folder=None,
    train_split="train[10%:]",
    validation_split="train[:10%]",
    test_split="test",
    encoded=(),
    preprocessor=None,
    prepare=None,
    prepare_train=None,
    prepare_test=None,
    augment=None,
    mix=None,
    num_processes=1,
    process_index=0,
    download=False,
    manual_folder=None,
    mock=None,
):
    """Reads a data set of TensorFlow Datasets, also `modelnet40` and `audioset` of ours.

    Examples are read from array_record files at any index, so that a pass over the
    training data is an order of indices, and a run that goes on in the middle of one
    reads nothing that it did before. Reading, decoding and changing run in parallel and
    ahead of the training; still, the same seed gives the same batches.

    Args:
        name: String, name of the data set, `"name/config"` or `"name/config:version"`.
        batch_size: Integer, examples per batch, of all processes together. What is left
            over at the end of an epoch waits for the next order.
        seed: Integer, seed of the order and of the changes.
        folder: Path of the prepared data, the `data_dir` of TensorFlow Datasets.
            Defaults to its own default.
        train_split: String, the training examples in the split language of TensorFlow
            Datasets.
        validation_split: String, the examples to choose by. By default the first tenth
            of the training split, which was shuffled when it was prepared.
        test_split: String, the examples to report.
        encoded: Sequence of strings, names of features that `prepare` gets as they are
            in the file, such as JPEG, of which a crop can be decoded.
        preprocessor: `Preprocessor`, or dict of these by the modality's name, whose
            `convert` gives the inputs; it is handed on in the splits.
        prepare: Callable `(example)` that makes `(inputs, label)` of the dict of one
            example. Defaults to the supervised keys of the dataset: inputs as
            `preprocessor` converts them, or as float32 (uint8 scaled from 0..255 to
            -1..1) if there is none, and labels as int32.
        prepare_train: Callable `(example, key)` that does this for training, with an
            int64 key that is another one for every example of every epoch. Defaults to
            `prepare`.
        prepare_test: Callable `(example)` that does this for the test data. Defaults to
            `prepare`.
        augment: Callable `(inputs, key)` that changes a training batch at random, such
            as `image_augmentation()`.
        mix: Callable `(inputs, labels, key)` that mixes the examples of a training
            batch, such as `mixup(num_classes)`, after `augment`.
        num_processes: Integer, processes that train together. Each reads its part of
            every training batch, and all of the validation and test data.
        process_index: Integer, number of this process, from 0.
        download: Boolean, whether data that are not there may be downloaded and
            prepared. `False`: the network is never asked.
        manual_folder: Path of archives that you fetched yourself. Data sets that are
            made from such (`imagenet2012`, `modelnet40`, `audioset`) are prepared from
            them where that was not done yet.
        mock: Callable `(rng)` that makes one random example, a dict of features to
            encode. Nothing is read then, and everything after reading is done with a few
            of these.

    Returns:
        `Splits`. Training batches are all full.

    Raises:
        FileNotFoundError: if the data are not prepared.
        ValueError: if they are prepared in a format without random access, if the
            training data are less than a batch, or if the arguments do not fit together.
        ImportError: if array_record is not installed.

    Example:

    >>> def example(rng):  # what is not prepared yet, in the shapes of cifar10
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
        sources = [_Source(builder, part) for part in parts]
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
            f"{name}. Make it smaller."
        )

    def prepared_train(serialized, key):
        example = decode(serialized)
        return prepare_train(example, key) if prepare_train else prepare(example)

    def training(num_processes, process_index):
        num_rows = batch_size // num_processes
        first_row = process_index * num_rows
        # Others in every process, and the same whatever the number of processes for one.
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
        # tf.data does not count what it takes apart.
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
    """Reads batches of (indices, keys), and prepares each example for itself."""

    def read(indices, keys):
        # Python asks for a batch of records at once, whose reading is C++ and parallel.
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
    """Serialized random examples, a few of them, always the same."""

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

    # `try_gcs` asks the network whatever else is said.
    return tfds.builder(name, data_dir=folder and str(folder), try_gcs=False)


def _make_readable(builder, folder, download, manual_folder):
    """Prepares the data if need be and may be; raises unless they can be read then."""
    import tensorflow_datasets as tfds

    try:
        import array_record  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Data sets are read with array_record, which is not installed. "
            "Install it with `pip install array_record`."
        ) from error

    array_record_format = tfds.core.FileFormat.ARRAY_RECORD
    if not builder.is_prepared():
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        if not download and not (instructions and manual_folder):
            fix = (
                f"{instructions} Then name that folder as `manual_folder`."
                if instructions
                else "Set `download=True`, or correct `folder`."
            )
            raise FileNotFoundError(
                f"The data set must be prepared. Received: {builder.info.full_name}, of "
                f"which there is nothing in {builder.data_dir}. {fix}"
            )
        try:
            builder.download_and_prepare(
                file_format=array_record_format,
                download_config=tfds.download.DownloadConfig(
                    manual_dir=manual_folder and str(Path(manual_folder).absolute()),
                    try_download_gcs=False,
                ),
            )
        # How builders of others say that archives are missing.
        except (AssertionError, tf.errors.NotFoundError) as error:
            raise FileNotFoundError(
                f"The archives of {builder.name} must be in the manual folder. Received: "
                f"manual_folder={manual_folder}. {instructions}"
            ) from error
    formats = builder.info.available_file_formats()
    if array_record_format not in formats:
        raise ValueError(
            "Data must be in a format that is read at any index. Received: "
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
    """Returns the default of `prepare`."""
    keys = builder.info.supervised_keys
    if keys is None:
        raise ValueError(
            f"{builder.name} does not say what are its inputs and labels. Received: "
            f"prepare=None and the features {sorted(builder.info.features)}. "
            "Set `prepare` to make a pair of them."
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
    """Returns the names of the classes of the one feature that has such."""
    import tensorflow_datasets as tfds

    for feature in features.values():
        feature = getattr(feature, "feature", feature)  # of a sequence
        if isinstance(feature, tfds.features.ClassLabel):
            return tuple(feature.names or map(str, range(feature.num_classes)))
    return ()
