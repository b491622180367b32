import keras
import numpy as np
import pytest

from keras_perceiver import LatentTransformer, SelfAttend
from tests import contracts, reference
from tests.layers.blocks import (
    SETTINGS,
    SIZES,
    D,
    N,
    latents_and_inputs,
    numpy,
    randomize,
)


def test_contract():
    def config():
        return {
            "num_self_attends": 2,
            "self_attend": SelfAttend(**SETTINGS),
            "use_remat": True,
        }

    latents = latents_and_inputs()[0]
    contracts.check_layer(LatentTransformer, config, latents, unknown_length=(0,))


def test_runs_its_self_attends_in_order():
    latents = latents_and_inputs()[0]
    layer = LatentTransformer(2, SelfAttend(**SIZES))
    layer.build(latents.shape)
    randomize(layer)
    expected = latents.astype("float64")
    for self_attend in layer.self_attends:
        weights = reference.weights_of(self_attend)
        expected = reference.self_attend(expected, weights, SIZES["num_heads"])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        numpy(layer(latents)) / scale, expected / scale, atol=1e-5
    )


def test_clones_have_the_settings_and_weights_of_their_own():
    template = SelfAttend(
        **SIZES,
        name="template",
        dtype="float16",
        trainable=False,
        kernel_initializer=keras.initializers.RandomNormal(seed=1),
    )
    layer = LatentTransformer(2, template, dtype="mixed_bfloat16")
    layer.build((None, N, D))
    first, second = layer.self_attends
    assert [first.name, second.name] == ["self_attend_0", "self_attend_1"]
    assert first.dtype_policy.name == second.dtype_policy.name == "mixed_bfloat16"
    assert (first.qk_dim, second.widening_factor) == (10, 3)
    assert not layer.trainable_weights
    kernels = first.query.kernel.numpy(), second.query.kernel.numpy()
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
    assert not template.built
    assert template not in layer._flatten_layers()
    assert layer.count_params() == layer.num_parameters(D)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: LatentTransformer(0),
            ValueError,
            "`num_self_attends` must be a positive",
        ),
        (
            lambda: LatentTransformer(1, keras.layers.Dense(2)),
            TypeError,
            "`self_attend` must be a `SelfAttend` layer.*Dense.*Pass `SelfAttend",
        ),
        (
            lambda: LatentTransformer(1, _built()),
            ValueError,
            "`self_attend` must not be built.*Pass a new",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def _built():
    layer = SelfAttend()
    layer.build((None, N, D))
    return layer
