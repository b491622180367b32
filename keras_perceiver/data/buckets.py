"""Batches of files, bucketed by length and padded to the length of their bucket."""

import dataclasses
import warnings

import numpy as np
import tensorflow as tf

from keras_perceiver.data.epochs import epoch_order, reshuffled_each_iteration
from keras_perceiver.modalities.preprocessors.base import error_reason, padded
from keras_perceiver.modalities.preprocessors.file_rules import bad_file


@dataclasses.dataclass(frozen=True)
class FolderPipeline:
    """Turns examples into batches, bucketed by length."""

    preprocessors: dict
    masked: tuple
    is_dict: bool
    batch_size: int
    shuffle: bool
    seed: int
    drop_remainder: bool
    num_buckets: int
    cache: dict | None
    skipped: dict | None  # from the path of a bad file to the reason; None: an error

    def lengths(self, example):
        """Returns the length of each array, or the path and error of a bad file."""
        arrays = self._arrays(example)
        if isinstance(arrays, dict):
            return {name: len(array) for name, array in arrays.items()}
        return arrays

    def _arrays(self, example):
        """Returns the array of each modality, or the path and error of a bad file."""
        arrays = {}
        for name, path in example.paths.items():
            try:
                arrays[name] = self._read(name, path)
            except ImportError:
                raise  # a library is missing, which is not the file's fault
            except Exception as error:
                return path, _named(path, error)
            length = len(arrays[name])
            if length != example.lengths.get(name, length):
                return path, bad_file(
                    path,
                    "A file must not change after it was checked.",
                    f"length {length} instead of {example.lengths[name]}",
                    "Read the folder again",
                )
        return arrays

    def _read(self, name, path):
        if self.cache is None:
            return self.preprocessors[name].read(path)
        key = name, path
        if key not in self.cache:
            self.cache[key] = self.preprocessors[name].read(path)
        return self.cache[key]

    def dataset(self, examples):
        """Returns the examples, reshuffled at each iteration."""
        epoch = self.epoch(examples, tf.constant(0, "int64"))
        if not self.shuffle:
            return epoch
        return reshuffled_each_iteration(
            lambda number: self.epoch(examples, number),
            self.seed,
            int(epoch.cardinality()),
        )

    def epoch(self, examples, number, num_done=0):
        """Returns the examples in the order of one epoch."""
        buckets, lengths = self._buckets(examples)
        if self.shuffle:
            dataset = epoch_order(len(examples), self.seed, number)
        else:
            dataset = tf.data.Dataset.range(len(examples))
        if self.shuffle and lengths:
            keys = tf.constant(buckets)
            dataset = dataset.group_by_window(
                lambda index: keys[index],
                lambda _, window: window.batch(self.batch_size, self.drop_remainder),
                window_size=self.batch_size,
            )
            # tf.data does not know their number.
            sizes = np.bincount(buckets)
            if not self.drop_remainder:
                sizes = sizes + self.batch_size - 1
            num_batches = int((sizes // self.batch_size).sum())
            dataset = dataset.apply(
                tf.data.experimental.assert_cardinality(num_batches)
            )
        else:
            dataset = dataset.batch(self.batch_size, self.drop_remainder)

        specs = self._specs()

        # In Python, so that errors name the file, and one function reads, checks and
        # pads. It runs once per batch, and the decoders that it calls run in parallel.
        def read(indices):
            some = [examples[index] for index in indices]
            bucket = buckets[indices].max()
            longest = {name: sizes[bucket] for name, sizes in lengths.items()}
            rows = self._rows(some)
            labels = np.array([example.label for example, _ in rows], "int32")
            return [*self._batch([arrays for _, arrays in rows], longest), labels]

        def load(indices):
            dtypes = [spec.dtype for spec in specs.values()]
            tensors = tf.numpy_function(read, [indices], dtypes)
            for tensor, spec in zip(tensors, specs.values(), strict=True):
                tensor.set_shape((indices.shape[0], *spec.shape))
            *inputs, labels = tensors
            if self.is_dict or self.masked:
                return dict(zip(specs, inputs, strict=False)), labels
            return inputs[0], labels

        dataset = dataset.skip(num_done)
        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _specs(self):
        """Returns the shape and dtype of an example's tensors by name, labels last."""
        specs = {}
        for name, preprocessor in self.preprocessors.items():
            specs[name] = tf.TensorSpec(preprocessor.shape, preprocessor.dtype)
            if name in self.masked:
                mask_shape = preprocessor.shape[: preprocessor.num_mask_axes]
                specs[f"{name}_mask"] = tf.TensorSpec(mask_shape, "bool")
        return {**specs, "": tf.TensorSpec((), "int32")}

    def _rows(self, examples):
        """Reads examples, leaving out those whose files became invalid since the check.

        Returns:
            List of pairs of an example and its arrays.
        """
        rows = []
        for example in examples:
            arrays = self._arrays(example)
            if isinstance(arrays, dict):
                rows.append((example, arrays))
                continue
            path, error = arrays
            if self.skipped is None:
                raise error
            if path not in self.skipped:
                self.skipped[path] = str(error)
                warnings.warn(f"Skipped a file that has changed. {error}", stacklevel=2)
        if not rows:
            raise error
        if self.drop_remainder:  # all batches have the same size
            rows = [rows[i % len(rows)] for i in range(len(examples))]
        return rows

    def _batch(self, rows, longest):
        """Returns the arrays of a batch and their masks, in the order of `_specs`."""
        tensors = []
        for name, preprocessor in self.preprocessors.items():
            arrays = [row.get(name) for row in rows]
            batch, mask = padded(arrays, preprocessor, longest.get(name))
            tensors += [batch, mask] if name in self.masked else [batch]
        return tensors

    def _buckets(self, examples):
        """Assigns examples to buckets by length.

        Returns:
            Array of the bucket of each example, and a dict from each modality of
            variable length to an array of the maximum length up to each bucket.
        """
        ragged = {
            name: np.array([max(e.lengths.get(name, 0), 1) for e in examples])
            for name, preprocessor in self.preprocessors.items()
            if preprocessor.shape[0] is None
        }
        if not ragged:
            return np.zeros(len(examples), "int64"), {}
        # With several such modalities, the sum of their lengths relative to the maxima.
        sizes = sum(lengths / lengths.max() for lengths in ragged.values())
        # A bucket has at least one batch.
        num_buckets = max(min(self.num_buckets, len(examples) // self.batch_size), 1)
        counts = len(examples) * np.arange(1, num_buckets + 1) // num_buckets
        ends = np.unique(np.sort(sizes)[counts - 1])
        buckets = np.searchsorted(ends, sizes)
        lengths = {
            name: np.maximum.accumulate(
                [lengths[buckets == bucket].max() for bucket in range(len(ends))]
            )
            for name, lengths in ragged.items()
        }
        return buckets, lengths


def _named(path, error):
    """Returns an error of a file as one that names its path."""
    if isinstance(error, ValueError) and str(path) in str(error):
        return error
    named = bad_file(path, "A file must be readable.", error_reason(error))
    named.__cause__ = error
    return named
