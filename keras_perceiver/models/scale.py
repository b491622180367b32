"""Warnings about inputs that are not finite, or far from the features of positions."""

import warnings

import numpy as np

_MAX_MEAN = 10.0  # of absolute values: far beyond those of standardized data
_NUM_EXAMPLES = 8


def warn_unscaled(name, modality, inputs, inputs_mask=None):
    """Warns if inputs are not finite, or far from -1 to 1, such as pixels to 255.

    Args:
        name: String, the name of the input.
        modality: `Modality`.
        inputs: NumPy array, of which the first examples are compared with -1 to 1.
        inputs_mask: NumPy array, `False` for padding, or `None`.
    """
    values = np.asarray(inputs, "float32")
    is_valid = np.ones(values.shape, "bool")
    if inputs_mask is not None:
        is_valid = np.asarray(inputs_mask, "bool")
    number = np.count_nonzero(~np.isfinite(values[is_valid]))
    if number:
        warnings.warn(
            f"Values of `{name}` should be finite numbers, or the loss is not. Received: "
            f"{number} that are NaN or infinite. Correct them, or mark them by a mask: "
            "create the modality with `use_mask=True`.",
            stacklevel=2,
        )
    values = values[:_NUM_EXAMPLES][is_valid[:_NUM_EXAMPLES]]
    values = values[np.isfinite(values)].astype("float64")
    if not values.size or np.abs(values).mean() <= _MAX_MEAN:
        return
    warnings.warn(
        f"Values of `{name}` should be scaled to about -1 to 1. Received: values from "
        f"{values.min():g} to {values.max():g}. {modality.scale_fix}",
        stacklevel=2,
    )


def needs_scale(modality, preprocessor=None):
    """Returns whether inputs of a modality should be about -1 to 1.

    Args:
        modality: `Modality`.
        preprocessor: Its `Preprocessor`, whose range of values is the user's choice, or
            `None`.
    """
    value_range = getattr(preprocessor, "value_range", None)
    is_chosen = value_range is not None and max(np.abs(value_range)) > _MAX_MEAN
    is_float = np.issubdtype(np.dtype(modality.input_dtype), np.floating)
    return is_float and modality.input_range is None and not is_chosen
