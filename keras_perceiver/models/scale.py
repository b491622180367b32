"""A warning about inputs whose scale is far from that of the features of positions."""

import warnings

import numpy as np

_MAX_MEAN = 10.0  # of absolute values: far beyond those of standardized data
_NUM_EXAMPLES = 8


def warn_unscaled(name, modality, inputs, inputs_mask=None):
    """Warns if the values of inputs are far from -1 to 1, such as pixels to 255.

    Args:
        name: String, the name of the input.
        modality: `Modality`.
        inputs: NumPy array. The first examples of it are enough.
        inputs_mask: NumPy array, `False` for padding, or `None`.
    """
    values = np.asarray(inputs[:_NUM_EXAMPLES], "float64")
    if inputs_mask is not None:
        values = values[np.asarray(inputs_mask[:_NUM_EXAMPLES], "bool")]
    values = values[np.isfinite(values)]
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
