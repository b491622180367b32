import keras
import numpy as np
import pytest

from keras_perceiver import (
    CrossAttend,
    IterativeAttention,
    LatentTransformer,
    SelfAttend,
)
from keras_perceiver.layers import blocks
from keras_perceiver.layers.attention import Chunked, use_kernel
from keras_perceiver.layers.recompute import recompute
from tests import contracts, reference
from tests.gradients import gradients

# All widths unequal, so that no two can be mistaken for each other.
B, N, D, M, C = 3, 5, 16, 11, 7
SIZES = {"num_heads": 2, "qk_dim": 10, "v_dim": 6, "widening_factor": 3}
SETTINGS = {**SIZES, "activation": "relu", "dropout": 0.2}


def _latents_and_inputs(seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(B, N, D)).astype("float32"),
        rng.normal(size=(B, M, C)).astype("float32"),
    )


def _randomize(layer):
    """Gives every weight a value of its own; zeros and ones would hide mistakes."""
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if weight.dtype == "float32":
            weight.assign(rng.normal(0.2, 0.5, weight.shape))
    return layer


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def test_cross_attend_contract():
    contracts.check_layer(
        CrossAttend, SETTINGS, *_latents_and_inputs(), unknown_length=(0, 1)
    )


def test_self_attend_contract():
    contracts.check_layer(
        SelfAttend, SETTINGS, _latents_and_inputs()[0], unknown_length=(0,)
    )


def test_latent_transformer_contract():
    config = {"num_self_attends": 2, "use_remat": True, **SETTINGS}
    latents = _latents_and_inputs()[0]
    contracts.check_layer(LatentTransformer, config, latents, unknown_length=(0,))


def test_iterative_attention_contract():
    config = {
        "num_blocks": 3,
        "num_self_attends_per_block": 2,
        "num_cross_attends": 2,
        "num_cross_attend_heads": 2,
        "num_self_attend_heads": 4,
        "share_weights": False,
        "use_cross_attends_at_start": True,
        "cross_attend_qk_dim": 10,
        "cross_attend_v_dim": 6,
        "cross_attend_widening_factor": 2,
        "self_attend_qk_dim": 8,
        "self_attend_v_dim": 12,
        "self_attend_widening_factor": 3,
        "activation": "relu",
        "dropout": 0.1,
        "use_remat": True,
    }
    contracts.check_layer(
        IterativeAttention, config, *_latents_and_inputs(), unknown_length=(0, 1)
    )


@pytest.fixture(params=["inputs projected", "queries projected"])
def side(request, monkeypatch):
    """Each of the two sides that a cross-attend can project on."""
    is_query = request.param == "queries projected"
    monkeypatch.setattr(CrossAttend, "projects_queries", lambda *_: is_query)
    return is_query


@pytest.fixture(params=["plain", "chunked"])
def kernel(request):
    """Runs a test with all scores at once, and with chunks of four inputs."""
    with use_kernel({"plain": "plain", "chunked": Chunked(4)}[request.param]):
        yield


@pytest.mark.usefixtures("side", "kernel")
@pytest.mark.parametrize("masked", [False, True])
def test_cross_attend_equals_float64_reference(masked):
    latents, inputs = _latents_and_inputs()
    mask = np.random.default_rng(2).random((B, M)) > 0.5 if masked else None
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    _randomize(layer)
    expected = reference.cross_attend(
        latents.astype("float64"),
        inputs.astype("float64"),
        reference.weights_of(layer),
        2,
        mask,
    )
    outputs = _numpy(layer(latents, inputs, inputs_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_both_sides_have_the_same_gradients(monkeypatch):
    latents, inputs = _latents_and_inputs()
    mask = np.arange(M) < np.array([[4], [M], [0]])
    layer = CrossAttend(**SIZES)
    layer.build(latents.shape, inputs.shape)
    _randomize(layer)

    def run(latents, inputs):
        return layer(latents, inputs, inputs_mask=keras.ops.convert_to_tensor(mask))

    found = []
    for is_query in (False, True):
        monkeypatch.setattr(
            CrossAttend, "projects_queries", lambda *_, answer=is_query: answer
        )
        weights = layer.trainable_weights
        found.append(gradients(run, latents, inputs, weights=weights))
    (expected, of_expected), (outputs, of_outputs) = found
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    _check_gradients(of_outputs, of_expected)


def _check_gradients(found, expected):
    """Relative to the largest of all: those of the keys' bias are rounding errors."""
    scale = max(np.abs(x).max() for x in expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)


def test_queries_are_projected_where_that_is_cheaper():
    def projects(num_queries, input_dim, **settings):
        layer = CrossAttend(**settings)
        layer.build((None, num_queries, 64), (None, None, input_dim))
        return layer.projects_queries(num_queries, input_dim)

    assert projects(512, 261)
    assert projects(512, 261, num_heads=1, qk_dim=261, v_dim=1024)
    # Eight heads attend to 8 x 512 projected queries.
    assert not projects(512, 264, num_heads=8)
    assert not projects(512, 261, qk_dim=16, v_dim=16)
    assert projects(8, 264, num_heads=8)  # 2 * 8 * 8 * 264 < (264 + 8) * 2 * 264
    assert not projects(None, 261)


def test_inputs_far_from_zero_lose_few_digits():
    latents, inputs = _latents_and_inputs()
    inputs = inputs + np.float32(100)
    layer = CrossAttend()
    layer.build(latents.shape, inputs.shape)
    assert layer.projects_queries(N, C)
    _randomize(layer)
    expected = reference.cross_attend(
        latents.astype("float64"),
        inputs.astype("float64"),
        reference.weights_of(layer),
    )
    scale = np.abs(expected).max()
    outputs = _numpy(layer(latents, inputs))
    np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize(
    ("dropout", "at_start", "is_frozen"), [(0.3, False, False), (0.0, True, True)]
)
def test_remat_and_compiled_repetition_change_nothing(
    dropout, at_start, is_frozen, monkeypatch
):
    arrays = _latents_and_inputs()
    calls = _spy_on_recompute(monkeypatch)
    found = []
    cases = [(False, True), (True, True)]
    if keras.backend.backend() == "jax":  # the only one with a compiled loop
        cases.append((False, False))
    for use_remat, is_compiled in cases:
        if not is_compiled:
            monkeypatch.setattr(blocks, "_is_traced_by_jax", lambda _: False)
        keras.utils.set_random_seed(3)
        trunk = IterativeAttention(
            num_blocks=3,
            num_self_attends_per_block=1,
            use_cross_attends_at_start=at_start,
            dropout=dropout,
            use_remat=use_remat,
        )
        trunk.build(*(x.shape for x in arrays))
        _randomize(trunk)
        trunk.latent_transformers[0].trainable = not is_frozen
        state = [v for v in trunk.variables if "seed" in v.path]
        assert bool(state) == bool(dropout)

        def run(*tensors, trunk=trunk):
            return trunk(*tensors, training=True)

        found.append(gradients(run, *arrays, weights=trunk.trainable_weights))
        is_rematerialised = any("_keep_latents_only" in call for call in calls)
        assert is_rematerialised == use_remat
        calls.clear()
    (expected, of_expected), *others = found
    for outputs, of_outputs in others:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5)
        _check_gradients(of_outputs, of_expected)


def _spy_on_recompute(monkeypatch):
    """Returns a list that gets the name of every function that is recomputed."""
    calls = []

    def spy(function, *tensors):
        calls.append(function.__qualname__)
        return recompute(function, *tensors)

    monkeypatch.setattr(blocks, "recompute", spy)
    return calls


def test_remat_is_for_training_only(monkeypatch):
    calls = _spy_on_recompute(monkeypatch)
    layer = LatentTransformer(2, use_remat=True)
    layer(_latents_and_inputs()[0], training=False)
    assert not calls
    layer(_latents_and_inputs()[0], training=True)
    assert calls


@pytest.mark.parametrize("layer", [CrossAttend, SelfAttend])
def test_norms_and_activations_computed_again_change_nothing(layer, monkeypatch):
    calls = _spy_on_recompute(monkeypatch)
    arrays = _latents_and_inputs()
    arrays = arrays if layer is CrossAttend else arrays[:1]
    block = layer(num_heads=1)
    block.build(*(x.shape for x in arrays))
    _randomize(block)
    found = []
    for training in (False, True):
        assert not calls

        def run(*tensors, training=training):
            return block(*tensors, training=training)

        found.append(gradients(run, *arrays, weights=block.trainable_weights))
    assert bool(calls) == (keras.backend.backend() != "torch")
    (expected, of_expected), (outputs, of_outputs) = found
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    _check_gradients(of_outputs, of_expected)


def test_self_attend_equals_float64_reference():
    latents = _latents_and_inputs()[0]
    layer = SelfAttend(**SIZES)
    layer.build(latents.shape)
    _randomize(layer)
    expected = reference.self_attend(
        latents.astype("float64"), reference.weights_of(layer), 2
    )
    np.testing.assert_allclose(_numpy(layer(latents)), expected, rtol=1e-5, atol=1e-5)


def test_default_widths_are_the_papers():
    latents, inputs = _latents_and_inputs()
    cross, own = CrossAttend(), SelfAttend()
    cross(latents, inputs)
    own(latents)
    assert (cross.num_heads, own.num_heads) == (1, 8)
    assert cross.query.kernel.shape == (D, C)  # keys, values: the width of the inputs
    assert cross.value.kernel.shape == (C, C)
    assert own.query.kernel.shape == (D, D)
    assert own.mlp_hidden.kernel.shape == (D, D)


def test_masked_inputs_have_no_influence_even_as_nan():
    latents, inputs = _latents_and_inputs()
    mask = np.arange(M) < np.array([[4], [M], [1]])
    layer = CrossAttend()
    expected = _numpy(layer(latents, inputs, inputs_mask=mask))
    padded = np.where(mask[..., None], inputs, np.nan).astype("float32")
    outputs = _numpy(layer(latents, padded, inputs_mask=mask))
    np.testing.assert_array_equal(outputs, expected)
    # Nor on the gradient of any weight.
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
    query, inputs = _latents_and_inputs()
    short = inputs.copy()
    short[:, 6:] = 0
    # The masked end counts as if it were not there.
    np.testing.assert_allclose(
        model.predict([query, short], verbose=0),
        _numpy(model.layers[-1](query, inputs[:, :6])),
        atol=1e-6,
    )


@pytest.mark.parametrize("layer", [CrossAttend, SelfAttend])
def test_dropout_acts_in_training_only_and_reaches_both_branches(layer):
    arrays = _latents_and_inputs()
    arrays = arrays if layer is CrossAttend else arrays[:1]
    block = layer(num_heads=1, dropout=0.5)
    calm = _numpy(block(*arrays))
    np.testing.assert_array_equal(_numpy(block(*arrays, training=False)), calm)
    first = _numpy(block(*arrays, training=True))
    second = _numpy(block(*arrays, training=True))
    assert (first != calm).any()
    assert (first != second).any()
    # Each branch alone: the other one's projection is zero and adds nothing.
    for silent in ("output_projection", "mlp_output"):
        alone = layer(num_heads=1, dropout=0.5)
        alone(*arrays)
        getattr(alone, silent).kernel.assign(
            np.zeros(getattr(alone, silent).kernel.shape)
        )
        assert (_numpy(alone(*arrays, training=True)) != _numpy(alone(*arrays))).any()


def test_activation_has_an_effect():
    latents = _latents_and_inputs()[0]
    outputs = []
    for activation in ("gelu", "relu"):
        layer = SelfAttend(activation=activation)
        layer.build(latents.shape)
        outputs.append(_numpy(_randomize(layer)(latents)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def _order(**settings):
    layer = IterativeAttention(num_self_attends_per_block=1, **settings)
    names = {"cross_attend_": "c", "latent_transformer_": "t"}
    order = []
    for part in layer.sequence():
        kind, index = part.name.rsplit("_", 1)
        order.append(names[kind + "_"] + index)
    return " ".join(order)


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({"num_blocks": 3}, "c0 t0 c1 t0 c1 t0"),
        ({"num_blocks": 3, "share_weights": False}, "c0 t0 c1 t1 c2 t2"),
        ({"num_blocks": 3, "num_cross_attends": 1}, "c0 t0 t0 t0"),
        ({"num_blocks": 4, "num_cross_attends": 2}, "c0 t0 t0 c1 t0 t0"),
        ({"num_blocks": 3, "use_cross_attends_at_start": True}, "c0 c1 c1 t0 t0 t0"),
        (
            {
                "num_blocks": 3,
                "num_cross_attends": 2,
                "share_weights": False,
                "use_cross_attends_at_start": True,
            },
            "c0 c1 t0 t1 t2",
        ),
    ],
)
def test_order_and_sharing_of_the_layers(settings, order):
    assert _order(**settings) == order


def test_iterative_attention_runs_its_sequence():
    latents, inputs = _latents_and_inputs()
    for at_start in (False, True):
        trunk = IterativeAttention(
            num_blocks=3,
            num_self_attends_per_block=2,
            use_cross_attends_at_start=at_start,
        )
        trunk.build(latents.shape, inputs.shape)
        _randomize(trunk)
        expected, wide = latents.astype("float64"), inputs.astype("float64")
        cross = [reference.weights_of(layer) for layer in trunk.cross_attends]
        own = [
            reference.weights_of(layer)
            for layer in trunk.latent_transformers[0].self_attends
        ]
        for step in "cccttt" if at_start else "ctctct":
            if step == "c":
                expected = reference.cross_attend(expected, wide, cross[0])
                cross = cross[-1:]
            else:
                for weights in own:
                    expected = reference.self_attend(expected, weights, 8)
        outputs = _numpy(trunk(latents, inputs))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CrossAttend(num_heads=0),
            "`num_heads` must be a positive.*num_heads=0",
        ),
        (lambda: CrossAttend(qk_dim=-1), "`qk_dim` must be a positive integer"),
        (lambda: CrossAttend(num_heads=2, v_dim=5), "`v_dim` must be divisible"),
        (lambda: SelfAttend(widening_factor=0), "`widening_factor` must be a positive"),
        (lambda: SelfAttend(dropout=1.0), r"`dropout` must be a number in \[0, 1\)"),
        (lambda: LatentTransformer(0), "`num_self_attends` must be a positive"),
        (lambda: IterativeAttention(num_blocks=-2), "`num_blocks` must be a positive"),
        (
            lambda: IterativeAttention(num_blocks=2, num_cross_attends=3),
            "`num_cross_attends` must not exceed `num_blocks`.*Set",
        ),
        (
            lambda: CrossAttend(num_heads=4)(*_latents_and_inputs()),
            "`qk_dim` must be divisible by `num_heads`.*qk_dim=7, num_heads=4.*multiple",
        ),
        (
            lambda: SelfAttend(num_heads=3)(_latents_and_inputs()[0]),
            "`qk_dim` must be divisible by `num_heads`.*qk_dim=16, num_heads=3",
        ),
        (
            lambda: CrossAttend()(
                _latents_and_inputs()[0], np.zeros((B, C), "float32")
            ),
            "`inputs` must have shape",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
