import keras
import numpy as np
import pytest

from keras_perceiver import CrossAttend, SelfAttend
from tests import contracts, reference
from tests.gradients import gradients
from tests.layers.blocks import (
    SETTINGS,
    SIZES,
    D,
    N,
    check_gradients,
    latents_and_inputs,
    numpy,
    randomize,
)


def test_contract():
    contracts.check_layer(
        SelfAttend, SETTINGS, latents_and_inputs()[0], unknown_length=(0,)
    )


def test_equals_float64_reference():
    latents = latents_and_inputs()[0]
    layer = SelfAttend(**SIZES)
    layer.build(latents.shape)
    randomize(layer)
    expected = reference.self_attend(
        latents.astype("float64"), reference.weights_of(layer), 2
    )
    np.testing.assert_allclose(numpy(layer(latents)), expected, rtol=1e-5, atol=1e-5)


def test_default_widths_are_the_papers():
    layer = SelfAttend()
    layer(latents_and_inputs()[0])
    assert layer.num_heads == 8
    assert layer.query.kernel.shape == (D, D)
    assert layer.mlp_hidden.kernel.shape == (D, D)


def test_causal_latents_attend_to_those_before_them():
    latents = latents_and_inputs()[0]
    layer = SelfAttend(**SIZES, is_causal=True)
    layer.build(latents.shape)
    randomize(layer)
    expected = numpy(layer(latents))
    np.testing.assert_allclose(
        numpy(layer(latents[:, :3])), expected[:, :3], rtol=1e-5, atol=1e-5
    )
    assert np.abs(numpy(layer(latents[:, 1:])) - expected[:, 1:]).max() > 1e-3


@pytest.mark.fast_on("tensorflow", "torch")
def test_masked_latents_have_no_influence():
    latents = latents_and_inputs()[0]
    mask = np.arange(N) < np.array([[2], [N], [4]])
    layer = SelfAttend(**SIZES)
    layer.build(latents.shape)
    randomize(layer)
    outputs = numpy(layer(latents, latents_mask=mask))
    for example, length in enumerate((2, N, 4)):
        short = latents[example : example + 1, :length]
        np.testing.assert_allclose(
            outputs[example, :length], numpy(layer(short))[0], rtol=1e-5, atol=1e-5
        )


def test_keys_and_values_may_be_precomputed():
    latents = latents_and_inputs()[0]
    layer = SelfAttend(**SIZES)
    layer.build(latents.shape)
    randomize(layer)
    keys_values = layer.keys_values(keras.ops.convert_to_tensor(latents))
    last = numpy(layer.attend_to(latents[:, -1:], keys_values))
    np.testing.assert_allclose(
        last, numpy(layer(latents))[:, -1:], rtol=1e-5, atol=1e-5
    )


def test_counts_need_no_weights():
    layer = SelfAttend(**SIZES, use_bias=False)
    count = layer.num_parameters(D, D)
    layer.build((None, N, D))
    assert count == layer.count_params()


@pytest.mark.parametrize("layer", [CrossAttend, SelfAttend])
def test_dropout_acts_in_training_only_and_reaches_both_branches(layer):
    arrays = latents_and_inputs()
    arrays = arrays if layer is CrossAttend else arrays[:1]
    block = layer(num_heads=1, dropout=0.5)
    calm = numpy(block(*arrays))
    np.testing.assert_array_equal(numpy(block(*arrays, training=False)), calm)
    first = numpy(block(*arrays, training=True))
    second = numpy(block(*arrays, training=True))
    assert (first != calm).any()
    assert (first != second).any()
    # Each branch separately, with a projection of zero in the other one.
    for silent in ("output_projection", "mlp_output"):
        alone = layer(num_heads=1, dropout=0.5)
        alone(*arrays)
        getattr(alone, silent).kernel.assign(
            np.zeros(getattr(alone, silent).kernel.shape)
        )
        assert (numpy(alone(*arrays, training=True)) != numpy(alone(*arrays))).any()


def test_activation_has_an_effect():
    latents = latents_and_inputs()[0]
    outputs = []
    for activation in ("gelu", "relu"):
        layer = SelfAttend(activation=activation)
        layer.build(latents.shape)
        outputs.append(numpy(randomize(layer)(latents)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize("layer", [CrossAttend, SelfAttend])
def test_norms_and_activations_computed_again_change_nothing(layer):
    arrays = latents_and_inputs()
    arrays = arrays if layer is CrossAttend else arrays[:1]
    block = layer(num_heads=1)
    block.build(*(x.shape for x in arrays))
    randomize(block)
    found = []
    for training in (False, True):

        def run(*tensors, training=training):
            return block(*tensors, training=training)

        found.append(gradients(run, *arrays, weights=block.trainable_weights))
    (expected, d_expected), (outputs, d_outputs) = found
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    check_gradients(d_outputs, d_expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfAttend(widening_factor=0), "`widening_factor` must be a positive"),
        (lambda: SelfAttend(dropout=1.0), r"`dropout` must be a number in \[0, 1\)"),
        (
            lambda: SelfAttend(num_heads=3)(latents_and_inputs()[0]),
            "`qk_dim` must be divisible by `num_heads`.*qk_dim=16, num_heads=3",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
