"""Helpers of the tests of attention blocks."""

import keras
import numpy as np

# All widths differ, so that they cannot be confused.
B, N, D, M, C = 3, 5, 16, 11, 7
SIZES = {"num_heads": 2, "qk_dim": 10, "v_dim": 6, "widening_factor": 3}
SETTINGS = {
    **SIZES,
    "activation": "relu",
    "dropout": 0.2,
    "use_query_residual": False,
    "is_causal": True,
    "use_bias": False,
    "kernel_initializer": "he_normal",
}


def latents_and_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(B, N, D)).astype("float32"),
        rng.normal(size=(B, M, C)).astype("float32"),
    )


def randomize(layer):
    """Sets all weights to random values, since zeros and ones would hide mistakes."""
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if weight.dtype == "float32":
            weight.assign(rng.normal(0.2, 0.5, weight.shape))
    return layer


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def check_gradients(found, expected):
    """Compares relative to the largest value, as the gradient of keys' bias is noise."""
    scale = max(np.abs(x).max() for x in expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)
