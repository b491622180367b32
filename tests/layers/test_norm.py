import keras
import numpy as np
import pytest

from keras_perceiver.layers.norm import LayerNorm
from tests import reference
from tests.gradients import gradients


def _inputs(offset=0.0):
    return (np.random.default_rng(0).normal(size=(2, 5, 12)) + offset).astype("float32")


def _layer(cls):
    layer = cls(epsilon=1e-5)
    layer.build((None, None, 12))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(1, 0.5, weight.shape))
    return layer


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_equals_float64_reference(offset):
    layer, x = _layer(LayerNorm), _inputs(offset)
    (weights,) = reference.weights_of(layer).values()
    expected = reference.layer_norm(x.astype("float64"), weights)
    outputs = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(outputs, expected, atol=1e-5 if not offset else 1e-4)


def test_has_the_gradients_of_keras_own_layer():
    found = []
    for cls in (LayerNorm, keras.layers.LayerNormalization):
        layer = _layer(cls)
        found.append(gradients(layer, _inputs(), weights=layer.trainable_weights))
    (outputs, of_outputs), (expected, of_expected) = found
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    for a, b in zip(of_outputs, of_expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_in_float32(policy):
    layer = LayerNorm(epsilon=1e-5, dtype=policy)
    # Squares of these overflow float16.
    outputs = layer(_inputs() * 3000)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy[6:]
    values = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    np.testing.assert_allclose(np.std(values, -1), 1, atol=2e-2)
