"""Weight quantization: storage of weights in fewer bits."""

import ml_dtypes
import numpy as np


def stored(array, weights):
    """Returns a weight as it is stored, and its scale.

    int8 is for arrays with two axes or more, with one scale per unit along the last axis.
    Biases and norms keep their precision, since they are small.

    Args:
        array: Array. If it is not float32, it is stored unchanged.
        weights: String, one of `versions.WEIGHTS`.

    Returns:
        Pair of arrays. The second is float32 and may be 1.

    Raises:
        ValueError: if a value is too large for float16.
    """
    one = np.float32(1)
    if array.dtype != "float32" or weights == "float32":
        return array, one
    if weights == "int8" and array.ndim < 2:
        return array, one
    if weights == "int8":
        largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
        # Units that are zero everywhere stay zero.
        scale = np.where(largest, largest, 1).astype("float32") / np.float32(127)
        return np.rint(array / scale).astype("int8"), scale
    dtype = "float16" if weights == "float16" else ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        smaller = array.astype(dtype)
    if not np.isfinite(smaller.astype("float32")).all():
        raise ValueError(
            f"Weights in {weights} must be finite. Received: a weight of shape "
            f"{array.shape} with values up to {np.abs(array).max():.3g}. "
            'Set `weights="bfloat16"`, which has the range of float32.'
        )
    return smaller, one


def quantized_copy(model, weights):
    """Returns a copy of a model that computes with what `stored` keeps of its weights."""
    copy = type(model).from_config(model.get_config())
    values = []
    for array in model.get_weights():
        smaller, scale = stored(array, weights)
        values.append(smaller.astype(array.dtype) * scale.astype(array.dtype))
    copy.set_weights(values)
    return copy
