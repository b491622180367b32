import keras
import numpy as np
import pytest

from keras_perceiver import CrossAttend
from keras_perceiver.layers.attention import Chunked, use_kernel
from keras_perceiver.layers.attention_block import use_absorbed_projections
from tests import contracts, reference
from tests.gradients import gradients
from tests.layers.blocks import (
    SETTINGS,
    SIZES,
    B,
    C,
    D,
    M,
    N,
    check_gradients,
    latents_and_inputs,
    numpy,
    randomize,
)


def test_contract():
    contracts.check_layer(
        CrossAttend, SETTINGS, *latents_and_inputs(), unknown_length=(0, 1)
    )


@pytest.fixture(params=["inputs projected", "projections absorbed"])
def side(request):
    """Both forms of a cross-attend: projected, and with absorbed projections."""
    with use_absorbed_projections(request.param == "projections absorbed"):
        yield


@pytest.fixture(params=["plain", "chunked"])
def kernel(request):
    """Runs a test with all scores at once, and with chunks of four inputs."""
    with use_kernel({"plain": "plain", "chunked": Chunked(4)}[request.param]):
        yield


@pytest.mark.usefixtures("side", "kernel")
@pytest.mark.parametrize("masked", [False, True])
def test_equals_float64_reference(masked):
    latents, inputs = latents_and_inputs()
    mask = np.random.default_rng(2).random((B, M)) > 0.5 if masked else None
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    randomize(layer)
    expected = reference.cross_attend(
        latents.astype("float64"),
        inputs.astype("float64"),
        reference.weights_of(layer),
        2,
        mask,
    )
    outputs = numpy(layer(latents, inputs, inputs_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_both_sides_have_the_same_gradients():
    latents, inputs = latents_and_inputs()
    mask = np.arange(M) < np.array([[4], [M], [0]])
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    randomize(layer)

    def run(latents, inputs):
        return layer(latents, inputs, inputs_mask=keras.ops.convert_to_tensor(mask))

    found = []
    for is_absorbed in (False, True):
        with use_absorbed_projections(is_absorbed):
            weights = layer.trainable_weights
            found.append(gradients(run, latents, inputs, weights=weights))
    (expected, d_expected), (outputs, d_outputs) = found
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    check_gradients(d_outputs, d_expected)


def test_projections_are_absorbed_where_that_is_cheaper():
    def absorbs(num_queries, num_inputs, input_dim, **settings):
        layer = CrossAttend(**settings)
        layer.build((None, num_queries, 64), (None, None, input_dim))
        return layer.absorbs_projections(num_queries, num_inputs, input_dim)

    assert absorbs(512, None, 261)
    assert absorbs(512, 50_176, 261)
    assert absorbs(512, None, 261, num_heads=1, qk_dim=261, v_dim=1024)
    # Eight heads attend to 8 x 512 projected queries.
    assert not absorbs(512, None, 264, num_heads=8)
    assert not absorbs(512, None, 261, qk_dim=16, v_dim=16)
    assert absorbs(8, None, 264, num_heads=8)  # 2 * 8 * 8 * 264 < (264 + 8) * 2 * 264
    assert not absorbs(None, None, 261)
    # With one head and equal widths, if there are no more queries than inputs.
    assert absorbs(1, 512, 1024)
    assert absorbs(512, 512, 512)
    assert not absorbs(513, 512, 512)
    # Optical flow of Perceiver IO has far more queries than latents.
    assert not absorbs(182_528, 2048, 512)
    assert not absorbs(6_288, 784, 512)
    assert not absorbs(8, None, 264, num_heads=8, is_causal=True)


@pytest.mark.usefixtures("side")
def test_queries_of_one_example_are_for_all():
    latents, inputs = latents_and_inputs()
    mask = np.arange(M) < np.array([[4], [M], [1]])
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    randomize(layer)
    weights = layer.trainable_weights

    def run(query):
        return layer(query, keras.ops.convert_to_tensor(inputs), inputs_mask=mask)

    outputs, (d_query, *d_outputs) = gradients(run, latents[:1], weights=weights)
    repeated = np.repeat(latents[:1], B, axis=0)
    expected, (d_repeated, *d_expected) = gradients(run, repeated, weights=weights)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    check_gradients(
        [d_query, *d_outputs], [d_repeated.sum(0, keepdims=True), *d_expected]
    )
    query, inputs = keras.KerasTensor((1, N, D)), keras.KerasTensor((None, M, C))
    assert layer(query, inputs).shape == (None, N, D)


def test_keys_and_values_serve_queries_in_groups():
    latents, inputs = latents_and_inputs()
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    randomize(layer)
    expected = numpy(layer(latents, inputs))
    for num_queries, is_projected in ((None, True), (2, False)):
        keys_values = layer.keys_values(
            keras.ops.convert_to_tensor(inputs), num_queries=num_queries
        )
        assert (keys_values.inputs_inverse_std is None) == is_projected
        groups = [
            layer.attend_to(x, keys_values) for x in (latents[:, :3], latents[:, 3:])
        ]
        outputs = np.concatenate([numpy(x) for x in groups], axis=1)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.usefixtures("side")
def test_without_query_residual_and_bias(use_bias):
    latents, inputs = latents_and_inputs()
    layer = CrossAttend(**SIZES, use_query_residual=False, use_bias=use_bias)
    layer.build(latents.shape, inputs.shape)
    assert any(w.path.endswith("bias") for w in layer.weights) == use_bias
    randomize(layer)
    expected = reference.cross_attend(
        latents.astype("float64"),
        inputs.astype("float64"),
        reference.weights_of(layer),
        2,
        use_query_residual=False,
    )
    outputs = numpy(layer(latents, inputs))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_kernels_are_initialized_apart():
    latents, inputs = latents_and_inputs()
    layer = CrossAttend(
        qk_dim=8, v_dim=8, kernel_initializer=keras.initializers.RandomNormal(seed=3)
    )
    layer(latents, inputs)
    key, value = layer.key.kernel.numpy(), layer.value.kernel.numpy()
    assert np.abs(key - value).max() > 1e-3
    ones = CrossAttend(kernel_initializer="ones")
    ones(latents, inputs)
    assert (ones.mlp_hidden.kernel.numpy() == 1).all()


def test_causal_mask_is_right_aligned():
    latents, inputs = latents_and_inputs()
    layer = CrossAttend(**SIZES, is_causal=True)
    layer.build(latents.shape, inputs.shape)
    randomize(layer)
    expected = numpy(layer(latents, inputs))
    changed = inputs.copy()
    changed[:, M - N + 2, 0] += 1  # the last input that the third query attends to
    outputs = numpy(layer(latents, changed))
    np.testing.assert_array_equal(outputs[:, :2], expected[:, :2])
    assert (np.abs(outputs[:, 2:] - expected[:, 2:]).max((0, 2)) > 1e-4).all()


def test_inputs_far_from_zero_lose_few_digits():
    latents, inputs = latents_and_inputs()
    inputs = inputs + np.float32(100)
    layer = CrossAttend()
    layer.build(latents.shape, inputs.shape)
    assert layer.absorbs_projections(N, M, C)
    randomize(layer)
    expected = reference.cross_attend(
        latents.astype("float64"),
        inputs.astype("float64"),
        reference.weights_of(layer),
    )
    scale = np.abs(expected).max()
    outputs = numpy(layer(latents, inputs))
    np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-4)


def test_masked_inputs_have_no_influence_even_as_nan():
    latents, inputs = latents_and_inputs()
    mask = np.arange(M) < np.array([[4], [M], [1]])
    layer = CrossAttend()
    expected = numpy(layer(latents, inputs, inputs_mask=mask))
    padded = np.where(mask[..., None], inputs, np.nan).astype("float32")
    outputs = numpy(layer(latents, padded, inputs_mask=mask))
    np.testing.assert_array_equal(outputs, expected)
    # Neither on the gradient of any weight.
    model = keras.Sequential([_Read(layer, latents, mask)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    history = model.fit(padded, latents * 0, batch_size=B, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight.numpy()).all() for weight in layer.weights)


class _Read(keras.layers.Layer):
    """A cross-attend of fixed latents and mask, as a layer of one input."""

    def __init__(self, layer, latents, mask):
        super().__init__()
        self.layer, self.latents, self.mask = layer, latents, mask

    def call(self, inputs):
        return self.layer(
            keras.ops.convert_to_tensor(self.latents),
            inputs,
            inputs_mask=keras.ops.convert_to_tensor(self.mask),
        )

    def compute_output_shape(self, inputs_shape):
        return (None, N, D)


def test_implicit_keras_mask_reaches_the_inputs_and_not_the_latents():
    tokens = keras.Input((M, C), name="tokens")
    latents = keras.Input((N, D), name="latents")
    masked = keras.layers.Masking()(tokens)
    outputs = CrossAttend()(latents, masked)
    assert getattr(outputs, "_keras_mask", None) is None
    model = keras.Model([latents, tokens], outputs)
    query, inputs = latents_and_inputs()
    short = inputs.copy()
    short[:, 6:] = 0
    # The masked end has no influence.
    np.testing.assert_allclose(
        model.predict([query, short], verbose=0),
        numpy(model.layers[-1](query, inputs[:, :6])),
        atol=1e-6,
    )


def test_default_widths_are_the_papers():
    latents, inputs = latents_and_inputs()
    layer = CrossAttend()
    layer(latents, inputs)
    assert layer.num_heads == 1
    assert layer.query.kernel.shape == (D, C)  # keys and values are as wide as inputs
    assert layer.value.kernel.shape == (C, C)
    assert layer.mlp_hidden.kernel.shape == (D, D)


def test_counts_need_no_weights():
    layer = CrossAttend(**SIZES)
    counts = layer.num_parameters(D, C), layer.macs(N, M, D, C)
    layer.build((None, N, D), (None, None, C))
    assert counts[0] == layer.count_params()
    # Query, output and MLP of N queries, key and value of M inputs, N x M scores.
    assert counts[1] == N * D * (10 + 6 + 2 * 48) + M * C * (10 + 6) + N * M * (10 + 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CrossAttend(num_heads=0),
            "`num_heads` must be a positive.*num_heads=0",
        ),
        (lambda: CrossAttend(qk_dim=-1), "`qk_dim` must be a positive integer"),
        (lambda: CrossAttend(num_heads=2, v_dim=5), "`v_dim` must be divisible"),
        (
            lambda: CrossAttend(num_heads=4)(*latents_and_inputs()),
            "`qk_dim` must be divisible by `num_heads`.*qk_dim=7, num_heads=4.*multiple",
        ),
        (
            lambda: CrossAttend()(latents_and_inputs()[0], np.zeros((B, C), "float32")),
            "`inputs` must have shape",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
