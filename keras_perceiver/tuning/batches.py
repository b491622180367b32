"""Training data of a search, batched with the batch size of a trial."""

import keras
from keras_tuner.errors import FailedTrialError


def batches(
    x,
    y,
    sample_weight,
    validation_data,
    validation_split,
    batch_size,
    seed,
    distribution,
):
    """Returns batched training data, the number of batches, and validation data."""
    import tensorflow as tf  # feeds all backends

    if not is_arrays(x):
        given = {"y": y, "sample_weight": sample_weight}
        given = [name for name, value in given.items() if value is not None]
        given += ["validation_split"] if validation_split else []
        if given:
            raise ValueError(
                f"`{given[0]}` must be None if `x` is a dataset or a function. "
                f"Received: {', '.join(given)}, and x={x}. Add them to the dataset."
            )
    if callable(x) and not isinstance(x, tf.data.Dataset):
        splits = x(batch_size, seed)
        if validation_data is not None:
            splits = splits._replace(validation=validation_data)
        if distribution is not None:
            splits = distribution.splits(splits)
        return splits.train, int(splits.train.cardinality()), splits.validation
    num_examples = count_examples(x)
    if isinstance(x, tf.data.Dataset):
        dataset = x.unbatch()
    else:
        arrays = (x, y) if sample_weight is None else (x, y, sample_weight)
        if validation_split and validation_data is None:
            num_examples = _num_training(num_examples, validation_split)
            validation_data = _rows(arrays, slice(num_examples, None))
            arrays = _rows(arrays, slice(num_examples))
        dataset = tf.data.Dataset.from_tensor_slices(arrays)
        dataset = dataset.shuffle(num_examples, seed=seed)
    if num_examples < batch_size:
        raise FailedTrialError(
            f"batch_size={batch_size} exceeds the {num_examples} training examples."
        )
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


def is_arrays(x):
    """Returns whether training data are arrays instead of a dataset or a function."""
    import tensorflow as tf

    return not (callable(x) or isinstance(x, tf.data.Dataset))


def count_examples(x, validation_split=0.0):
    """Returns the number of training examples.

    Args:
        x: Arrays, or a batched `tf.data.Dataset`, whose last batch counts as a full one.
        validation_split: Float, fraction of the arrays that is held out.

    Raises:
        ValueError: if the number is unknown.
    """
    if is_arrays(x):
        return _num_training(len(keras.tree.flatten(x)[0]), validation_split)
    num_batches = int(x.cardinality())
    if num_batches < 0:
        raise ValueError(
            "The number of training batches must be known. Received: "
            f"x={x}, whose cardinality is unknown or infinite. Apply "
            "`tf.data.experimental.assert_cardinality(num_batches)`."
        )
    batch = next(iter(x.take(1)), None)
    return 0 if batch is None else num_batches * len(keras.tree.flatten(batch)[0])


def _num_training(num_examples, validation_split):
    """Returns the number of the first examples, which Keras trains with."""
    number = int(num_examples * (1 - validation_split))
    if validation_split and not 0 < number < num_examples:
        raise ValueError(
            "`validation_split` must leave examples for both parts. Received: "
            f"validation_split={validation_split} for {num_examples} examples. Choose a "
            "fraction in (0, 1), or pass `validation_data`."
        )
    return number


def _rows(arrays, rows):
    return keras.tree.map_structure(lambda array: array[rows], arrays)
