"""Padding of batches that do not divide evenly over the replicas."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def predict_on_batch(model: keras.Model, inputs: Any) -> np.ndarray:
    """Returns the predictions of a model for a batch, inside or outside a scope.

    Args:
        model: `keras.Model`.
        inputs: Arrays of the whole batch, the same in every process.

    Returns:
        NumPy array.
    """
    num_replicas = 1
    if keras.backend.backend() == "tensorflow":
        num_replicas = model.distribute_strategy.num_replicas_in_sync
    if num_replicas == 1:
        return np.asarray(model.predict_on_batch(inputs))
    # Keras' predict_on_batch gives every replica the whole batch.
    num_rows = len(keras.tree.flatten(inputs)[0])
    num_padded = _rounded_up(num_rows, num_replicas)
    rows = np.minimum(np.arange(num_padded), num_rows - 1)
    batch = keras.tree.map_structure(lambda x: np.asarray(x)[rows], inputs)
    return model.predict(batch, batch_size=num_padded, verbose=0)[:num_rows]


def has_even_batches(dataset, num_parts):
    """Returns whether all batches are known to divide evenly."""
    sizes = [spec.shape[0] for spec in keras.tree.flatten(dataset.element_spec)]
    return all(size is not None and size % num_parts == 0 for size in sizes)


def padded(dataset, num_parts, weight=None):
    """Pads batches to a multiple of `num_parts` rows with zero-weight examples.

    They repeat the last example, so that they are valid inputs.

    Args:
        dataset: Batched `tf.data.Dataset` of `(inputs, targets)`.
        num_parts: Integer, number of replicas.
        weight: Float, weight of the other rows. Defaults to the one that makes the mean
            over the rows of a batch equal to the mean over its examples.

    Returns:
        Batched `tf.data.Dataset` of `(inputs, targets, weights)`.
    """
    import tensorflow as tf

    def pad(*batch):
        num_rows = tf.shape(keras.tree.flatten(batch)[0])[0]
        num_padded = _rounded_up(num_rows, num_parts)
        indices = tf.range(num_padded)
        last = tf.minimum(indices, num_rows - 1)
        batch = keras.tree.map_structure(lambda x: tf.gather(x, last), batch)
        weights = (
            tf.cast(num_padded / num_rows, "float32") if weight is None else weight
        )
        return *batch, tf.where(indices < num_rows, weights, 0.0)

    return dataset.map(pad)


def mean_padding(dataset, num_parts):
    """Returns the number of rows per example of padded batches.

    Keras divides by the number of rows. With this weight for all examples, the mean
    over all rows equals the mean over all examples, whatever the sizes of the batches.
    """
    import tensorflow as tf

    def add(counts, batch):
        num_rows = tf.shape(keras.tree.flatten(batch)[0], "int64")[0]
        return counts[0] + num_rows, counts[1] + _rounded_up(num_rows, num_parts)

    zero = tf.constant(0, "int64")
    num_rows, num_padded = dataset.reduce((zero, zero), add)
    return float(num_padded) / max(int(num_rows), 1)


def process_rows(dataset, num_processes, index):
    """Keeps the rows of one process of every batch.

    Args:
        dataset: Batched `tf.data.Dataset`, whose batches divide evenly by `num_processes`.
        num_processes: Integer, number of processes.
        index: Integer, index of the process.
    """
    import tensorflow as tf

    def cut(*batch):
        def rows(x):
            size = x.shape[0] or tf.shape(x)[0]
            size = size // num_processes
            return x[index * size : (index + 1) * size]

        return keras.tree.map_structure(rows, batch)

    return dataset.map(cut)


def _rounded_up(number, multiple):
    return number + -number % multiple
