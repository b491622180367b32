"""Epochs of training data that are reproducible from their number."""

from __future__ import annotations

import tensorflow as tf

from keras_perceiver._typing import Tensor


def epoch_order(num_examples: int, seed: int, number: Tensor) -> Tensor:
    """Returns a dataset of the indices of all examples, shuffled for one epoch.

    Unlike `tf.data.Dataset.shuffle`, it has no state: the order depends on the
    arguments only.

    Args:
        num_examples: Integer, number of examples.
        seed: Integer, seed of the run.
        number: Int64 scalar, number of the epoch.
    """
    rank = tf.random.stateless_uniform([num_examples], [_seed(seed, number), 0])
    return tf.data.Dataset.from_tensor_slices(tf.argsort(rank, stable=True))


def epoch_keys(seed, number):
    """Returns an infinite dataset of int64 keys, one per batch of an epoch.

    Args:
        seed: Integer, seed of the run.
        number: Int64 scalar, number of the epoch.
    """
    seed = _seed(seed, number)
    return tf.data.Dataset.counter(1).map(lambda index: _seed(seed, index))


def _seed(seed, number):
    return tf.random.stateless_uniform([], [seed, number], None, None, "int64")


def reshuffled_each_iteration(epoch, seed, num_batches):
    """Returns a dataset that is a different epoch each time it is iterated over.

    Args:
        epoch: Callable that takes an int64 scalar and returns a `tf.data.Dataset`.
        seed: Integer, seed of the epoch numbers.
        num_batches: Integer, number of batches per epoch.
    """
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    dataset = numbers.take(1).flat_map(epoch)
    # tf.data does not know the cardinality of what a function returns.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.prefetch(tf.data.AUTOTUNE)
