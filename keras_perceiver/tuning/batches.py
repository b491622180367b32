"""Training data of a search, batched with the batch size of a trial."""

import keras


def batches(x, y, validation_data, batch_size, seed, distribution):
    """Returns batched training data, the number of batches, and validation data."""
    import tensorflow as tf  # feeds all backends

    if callable(x) and not isinstance(x, tf.data.Dataset):
        splits = x(batch_size, seed)
        if validation_data is not None:
            splits = splits._replace(validation=validation_data)
        if distribution is not None:
            splits = distribution.splits(splits)
        return splits.train, int(splits.train.cardinality()), splits.validation
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError(
                "`y` must be None if `x` is a dataset of pairs. Received: both. Remove "
                "`y`."
            )
        num_examples = _num_examples(x)
        dataset = x.unbatch()
    else:
        num_examples = len(keras.tree.flatten(x)[0])
        dataset = tf.data.Dataset.from_tensor_slices((x, y))
        dataset = dataset.shuffle(num_examples, seed=seed)
    # Full batches only, which divide evenly over the replicas.
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if distribution is not None and validation_data is not None:
        if not isinstance(validation_data, tf.data.Dataset):
            validation_data = tf.data.Dataset.from_tensor_slices(validation_data)
            validation_data = validation_data.batch(batch_size)
        validation_data = distribution.evaluation(validation_data)
    return (
        dataset.prefetch(tf.data.AUTOTUNE),
        num_examples // batch_size,
        validation_data,
    )


def _num_examples(dataset):
    """Returns the number of examples, or a few more if the last batch is not full."""
    num_batches = int(dataset.cardinality())
    if num_batches < 0:
        raise ValueError(
            "The number of training batches must be known. Received: "
            f"x={dataset}, whose cardinality is unknown or infinite. Apply "
            "`tf.data.experimental.assert_cardinality(num_batches)`."
        )
    batch = next(iter(dataset.take(1)), None)
    return 0 if batch is None else num_batches * len(keras.tree.flatten(batch)[0])
