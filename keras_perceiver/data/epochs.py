"""Passes over training data that are known by their number."""

import tensorflow as tf


def epoch_order(num_examples, seed, number):
    """Returns a dataset of the indices of all examples, in the order of one epoch.

    Not `tf.data.Dataset.shuffle`: that keeps a state from one reading to the next.

    Args:
        num_examples: Integer.
        seed: Integer, seed of the run.
        number: Int64 scalar, number of the epoch.
    """
    rank = tf.random.stateless_uniform([num_examples], [_seed(seed, number), 0])
    return tf.data.Dataset.from_tensor_slices(tf.argsort(rank, stable=True))


def epoch_keys(seed, number):
    """Returns an endless dataset of int64 keys, one for each batch of an epoch.

    Args:
        seed: Integer, seed of the run.
        number: Int64 scalar, number of the epoch.
    """
    seed = _seed(seed, number)
    return tf.data.Dataset.counter(1).map(lambda index: _seed(seed, index))


def _seed(seed, number):
    return tf.random.stateless_uniform([], [seed, number], None, None, "int64")


def reshuffled_each_iteration(epoch, seed, num_batches):
    """Returns a dataset that is another epoch whenever it is read.

    Args:
        epoch: Callable that takes an int64 scalar and returns a `tf.data.Dataset`.
        seed: Integer, seed of the numbers.
        num_batches: Integer, length of an epoch.
    """
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    dataset = numbers.take(1).flat_map(epoch)
    # tf.data does not count what a function returns.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.prefetch(tf.data.AUTOTUNE)
