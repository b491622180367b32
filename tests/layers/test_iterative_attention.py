import keras
import numpy as np
import pytest

from keras_perceiver import CrossAttend, IterativeAttention, SelfAttend
from tests import contracts, reference
from tests.gradients import gradients
from tests.layers.blocks import (
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
    def config():
        return {
            "num_blocks": 3,
            "num_self_attends_per_block": 1,
            "num_cross_attends": 2,
            "cross_attend": CrossAttend(
                num_heads=2, qk_dim=10, v_dim=6, widening_factor=2, dropout=0.1
            ),
            "self_attend": SelfAttend(
                num_heads=4, qk_dim=8, v_dim=12, widening_factor=3, activation="relu"
            ),
            "share_weights": False,
            "use_cross_attends_at_start": True,
            "use_remat": True,
        }

    contracts.check_layer(
        IterativeAttention, config, *latents_and_inputs(), unknown_length=(0, 1)
    )


@pytest.mark.parametrize(
    ("dropout", "at_start", "is_frozen"),
    [
        (0.3, False, False),
        pytest.param(0.0, True, True, marks=pytest.mark.fast_on("tensorflow", "torch")),
    ],
)
def test_remat_and_compiled_repetition_change_nothing(dropout, at_start, is_frozen):
    arrays = latents_and_inputs()
    found = []
    for use_remat, is_compiled in ((False, True), (True, True), (False, False)):
        keras.utils.set_random_seed(3)
        trunk = IterativeAttention(
            num_blocks=3,
            num_self_attends_per_block=1,
            use_cross_attends_at_start=at_start,
            cross_attend=CrossAttend(dropout=dropout),
            self_attend=SelfAttend(dropout=dropout),
            use_remat=use_remat,
        )
        trunk.build(*(x.shape for x in arrays))
        randomize(trunk)
        trunk.latent_transformers[0].trainable = not is_frozen
        state = [v for v in trunk.variables if "seed" in v.path]
        assert bool(state) == bool(dropout)

        def run(*tensors, trunk=trunk):
            return trunk(*tensors, training=True)

        if is_compiled:
            found.append(gradients(run, *arrays, weights=trunk.trainable_weights))
        else:  # layer by layer, without a loop
            found.append((numpy(run(*arrays)), None))
    (expected, d_expected), *others = found
    for outputs, d_outputs in others:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5)
        if d_outputs is not None:
            check_gradients(d_outputs, d_expected)


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


def test_runs_its_layers_in_order():
    latents, inputs = latents_and_inputs()
    for at_start in (False, True):
        trunk = IterativeAttention(
            num_blocks=3,
            num_self_attends_per_block=2,
            use_cross_attends_at_start=at_start,
        )
        trunk.build(latents.shape, inputs.shape)
        randomize(trunk)
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
        outputs = numpy(trunk(latents, inputs))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5)


def test_counts_need_no_weights():
    layer = IterativeAttention(
        num_blocks=3,
        num_self_attends_per_block=2,
        cross_attend=CrossAttend(qk_dim=9, v_dim=5),
        self_attend=SelfAttend(num_heads=4, widening_factor=2),
        num_cross_attends=2,
    )
    counts = layer.num_parameters(D, C), layer.macs(N, M, D, C)
    layer.build((None, N, D), (None, M, C))
    assert counts[0] == layer.count_params()
    cross, own = layer.cross_attends[0], layer.latent_transformers[0].self_attends[0]
    assert counts[1] == 2 * cross.macs(N, M, D, C) + 3 * 2 * own.macs(N, N, D, D)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: IterativeAttention(num_blocks=-2),
            ValueError,
            "`num_blocks` must be a positive",
        ),
        (
            lambda: IterativeAttention(num_blocks=2, num_cross_attends=3),
            ValueError,
            "`num_cross_attends` must not exceed `num_blocks`.*Set",
        ),
        (
            lambda: IterativeAttention(cross_attend=SelfAttend()),
            TypeError,
            "`cross_attend` must be a `CrossAttend` layer",
        ),
        (
            lambda: IterativeAttention(autocast=True),
            TypeError,
            "autocast",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
