"""Batches of models, and rules for them: dense arrays of numbers, with targets."""

import numbers
import os
import sys

import keras
import numpy as np

# Dtypes of NumPy and TensorFlow
_NO_NUMBERS = ("object", "str", "bytes", "string")


def check_arrays(data, input_names):
    """Raises `ValueError` unless inputs, targets and weights are dense numeric arrays.

    Args:
        data: Batch, or the `element_spec` of a `tf.data.Dataset`: inputs, or a tuple of
            inputs, targets and sample weights. Leaves that are not arrays are not checked.
        input_names: Sequence of strings, the inputs that a model uses. Other entries of
            a dict are ignored, as Keras ignores them.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(x, dict):
        x = {name: x[name] for name in input_names if name in x}
        _check_num_examples(x)
    for leaf in keras.tree.flatten(x):
        _check_array(leaf, "Inputs", "Convert them to numbers.")
    for leaf in keras.tree.flatten(y):
        _check_array(leaf, "Targets", "Convert names of classes to their indices.")
    for leaf in keras.tree.flatten(sample_weight):
        _check_array(leaf, "Sample weights", "Convert them to numbers.")


def _check_num_examples(inputs):
    """Raises `ValueError` unless all inputs of a dict have as many examples."""
    numbers = {k: x.shape[0] for k, x in inputs.items() if getattr(x, "shape", ())}
    # Others are unknown: `None`, or symbols of an export.
    if len({number for number in numbers.values() if isinstance(number, int)}) > 1:
        raise ValueError(
            "All inputs must have the same number of examples, the length of their first "
            f"axis. Received: {numbers}. Correct them."
        )


def _check_array(x, kind, fix):
    if isinstance(x, str | bytes):
        raise ValueError(
            f"{kind} must be arrays. Received: {x!r}, such as a key of the dicts of a "
            "PyTorch `DataLoader`. Its batches must be tuples `(inputs, targets)`."
        )
    dtype = getattr(x, "dtype", None)
    dtype = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    first = next(iter(np.ravel(x)), None) if dtype == "object" else None
    is_list = isinstance(first, list | tuple)
    # Of arrays, or of the ragged tensor that NumPy has made an object of.
    is_ragged = is_list or bool(getattr(first, "shape", ()))
    # `ragged_rank` is that of a ragged tensor of TensorFlow, or of its spec.
    if is_ragged or getattr(x, "ragged_rank", None):
        received = "an array of arrays" if is_ragged else "a ragged tensor"
        raise ValueError(
            f"{kind} must be dense arrays. Received: {received} of shape {x.shape}, as "
            "for examples of different lengths. Pad the examples of a batch, such as by "
            "`Dataset.padded_batch` or `RaggedTensor.to_tensor`, and mark the padding by "
            "a mask: create the modality with `use_mask=True`."
        )
    if dtype.startswith(_NO_NUMBERS):
        raise ValueError(
            f"{kind} must be numbers. Received: values of dtype {dtype}. {fix}"
        )
    if dtype.startswith("complex"):
        raise ValueError(
            f"{kind} must be real numbers. Received: values of dtype {dtype}. Pass the "
            "real and imaginary parts as channels."
        )


def check_examples(x, y):
    """Raises `ValueError` unless arrays of `fit` and others are arrays of examples.

    Args:
        x: Argument of `fit`, `evaluate` or `predict`.
        y: The same, or `None`.
    """
    if x is None:
        raise ValueError(
            "Inputs must be arrays or batches of these. Received: x=None. Pass the inputs."
        )
    if isinstance(x, str | os.PathLike):
        raise ValueError(
            f"Inputs must be arrays or batches of these. Received: x={x!r}. Read a file "
            "by `model.preprocessor.read`, and a folder by "
            "`keras_perceiver.data.read_folder`."
        )
    if hasattr(x, "_fields"):  # what the readers of this package return
        fields = [f"`.{name}`" for name in x._fields]
        raise ValueError(
            f"Inputs must be arrays or batches of these. Received: a {type(x).__name__}. "
            f"Pass one of its attributes {', '.join(fields)}."
        )
    for kind, data in (("Inputs", x), ("Targets", y)):
        for leaf in keras.tree.flatten(data):
            shape = getattr(leaf, "shape", None)
            if shape is not None and len(shape) and shape[0] == 0:
                raise ValueError(
                    f"{kind} must have at least one example. Received: shape "
                    f"{tuple(shape)}. Check what has made them."
                )
            if isinstance(leaf, numbers.Number):
                raise ValueError(
                    f"{kind} must be arrays. Received: the number {leaf}, such as of a "
                    "list. Convert them: `np.array(...)`."
                )


def check_is_one_array(x, num_inputs):
    """Raises `ValueError` if the only input of a model is a list of examples.

    Keras would take each example for an input.

    Args:
        x: Argument of `fit`, `evaluate` or `predict`.
        num_inputs: Integer, number of inputs of the model.
    """
    is_list = isinstance(x, list | tuple) and len(x) > 1
    if num_inputs > 1 or not is_list or not all(hasattr(e, "shape") for e in x):
        return
    shapes = sorted({tuple(example.shape) for example in x})
    fix = "Stack them: `np.stack(inputs)`."
    if len(shapes) > 1:
        fix = (
            "Pad them to one length in one array, and mark the padding by a mask: create "
            "the modality with `use_mask=True`."
        )
    raise ValueError(
        "The only input of the model must be an array. Received: a list of "
        f"{len(x)} arrays of the shapes {str(shapes[:3])[1:-1]}. {fix}"
    )


def check_has_targets(data, input_names):
    """Raises `ValueError` unless a batch has targets.

    Args:
        data: Batch, see `check_arrays`.
        input_names: Sequence of strings, the inputs of the model.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    if any(leaf is not None for leaf in keras.tree.flatten(y)):
        return
    received = f"a dict with the keys {sorted(x)}" if isinstance(x, dict) else "inputs"
    name = input_names[0]
    raise ValueError(
        "The loss needs targets: data must be `x` and `y`, or batches `(inputs, targets)`."
        f" Received: {received} without targets. Add them. Batches that are dicts become "
        f'pairs by `dataset.map(lambda batch: (batch["{name}"], batch["label"]))`, or by '
        "`tensorflow_datasets.load(..., as_supervised=True)`."
    )


def replica_batches(batch):
    """Yields the batches of the replicas of `tf.distribute` on this host."""
    tensorflow = sys.modules.get("tensorflow")
    leaves = keras.tree.flatten(batch)
    if tensorflow is None or not any(
        isinstance(x, tensorflow.distribute.DistributedValues) for x in leaves
    ):
        yield batch
        return
    replicas = [
        x.values if isinstance(x, tensorflow.distribute.DistributedValues) else (x,)
        for x in leaves
    ]
    for i in range(max(map(len, replicas))):
        one = [values[min(i, len(values) - 1)] for values in replicas]
        yield keras.tree.pack_sequence_as(batch, one)


def ranks_of(batch):
    """Returns the ranks of the arrays of a batch, in which replicas have the same."""
    leaves = keras.tree.flatten(next(iter(replica_batches(batch))))
    return tuple(len(getattr(leaf, "shape", ())) for leaf in leaves)
