"""Batches of files, padded to the length of a few groups of about one length."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_perceiver.data.epochs import another_every_time, epoch_order
from keras_perceiver.modalities.preprocessors.base import padded


@dataclasses.dataclass(frozen=True)
class FolderPipeline:
    """Turns examples into batches; those of about one length come together."""

    preprocessors: dict
    masked: tuple
    is_dict: bool
    batch_size: int
    shuffle: bool
    seed: int
    drop_remainder: bool
    num_buckets: int
    cache: dict | None

    def lengths(self, example):
        """Returns the length of each array, or the path and error of a bad file."""
        lengths = {}
        for name, path in example.paths.items():
            try:
                lengths[name] = len(self._read(name, path))
            except ValueError as error:
                return path, error
        return lengths

    def _read(self, name, path):
        if self.cache is None:
            return self.preprocessors[name].read(path)
        key = name, path
        if key not in self.cache:
            self.cache[key] = self.preprocessors[name].read(path)
        return self.cache[key]

    def dataset(self, examples):
        """Returns the examples, shuffled another way whenever they are read."""
        epoch = self.epoch(examples, tf.constant(0, "int64"))
        if not self.shuffle:
            return epoch
        return another_every_time(
            lambda number: self.epoch(examples, number),
            self.seed,
            int(epoch.cardinality()),
        )

    def epoch(self, examples, number, num_done=0):
        """Returns the examples, shuffled in the way of one epoch."""
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
            # tf.data does not count these itself.
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

        # Python, so that a bad file is named and one function reads, checks and pads. It
        # runs once for a batch, and the decoders in it run in parallel.
        def read(indices):
            some = [examples[index] for index in indices]
            bucket = buckets[indices].max()
            longest = {name: sizes[bucket] for name, sizes in lengths.items()}
            labels = np.array([example.label for example in some], "int32")
            return [*self._batch(some, longest), labels]

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
        """Returns the shape and dtype of one example's tensors, by name, labels last."""
        specs = {}
        for name, preprocessor in self.preprocessors.items():
            specs[name] = tf.TensorSpec(preprocessor.shape, preprocessor.dtype)
            if name in self.masked:
                mask_shape = preprocessor.shape[: preprocessor.num_mask_axes]
                specs[f"{name}_mask"] = tf.TensorSpec(mask_shape, "bool")
        return {**specs, "": tf.TensorSpec((), "int32")}

    def _batch(self, examples, longest):
        """Returns the arrays of a batch and their masks, in the order of `_specs`."""
        tensors = []
        for name, preprocessor in self.preprocessors.items():
            arrays = [
                self._read(name, example.paths[name]) if name in example.paths else None
                for example in examples
            ]
            batch, mask = padded(arrays, preprocessor, longest.get(name))
            tensors += [batch, mask] if name in self.masked else [batch]
        return tensors

    def _buckets(self, examples):
        """Groups examples by length.

        Returns:
            Array, the group of each example, and dict from the modalities of any length
            to an array, the length of the longest in each group or those before it.
        """
        ragged = {
            name: np.array([max(e.lengths.get(name, 0), 1) for e in examples])
            for name, preprocessor in self.preprocessors.items()
            if preprocessor.shape[0] is None
        }
        if not ragged:
            return np.zeros(len(examples), "int64"), {}
        # With several such modalities, what they fill of their longest, together.
        sizes = sum(lengths / lengths.max() for lengths in ragged.values())
        # A group has at least a batch.
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
