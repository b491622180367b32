import keras
import numpy as np
import pytest

from keras_perceiver import Lamb
from keras_perceiver.training import warm_cosine

SHAPES = ((5, 3), (3,), (2, 4, 3), (4, 2))


def weights_and_gradients(num_steps):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    weights[-1][:] = 0  # has a norm of zero
    gradients = [
        [rng.normal(size=shape).astype("float32") for shape in SHAPES]
        for _ in range(num_steps)
    ]
    return weights, gradients


def _run(optimizer, weights, gradients):
    variables = [keras.Variable(weight) for weight in weights]
    found = []
    for gradient in gradients:
        optimizer.apply([keras.ops.array(g) for g in gradient], variables)
        found.append([keras.ops.convert_to_numpy(v) for v in variables])
    return found


@pytest.mark.parametrize("clipping", [None, 1.0])
@pytest.mark.fast_on("torch")
def test_lamb_equals_optax(clipping):
    import jax
    import optax

    weights, gradients = weights_and_gradients(20)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([9], [1e-2, 1e-3])
    optimizer = Lamb(schedule, weight_decay=0.1, global_clipnorm=clipping)
    found = _run(optimizer, weights, gradients)

    theirs = optax.lamb(
        lambda step: jax.numpy.where(step <= 9, 1e-2, 1e-3),
        weight_decay=0.1,
        mask=[len(shape) > 1 for shape in SHAPES],
    )
    if clipping:
        theirs = optax.chain(optax.clip_by_global_norm(clipping), theirs)
    state = theirs.init(weights)
    for step, gradient in enumerate(gradients):
        updates, state = theirs.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        for ours, expected in zip(found[step], weights, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_lamb_excludes_what_it_is_told():
    weights, gradients = weights_and_gradients(1)
    decayed = _run(Lamb(1e-2, weight_decay=0.5), weights, gradients)[0]
    optimizer = Lamb(1e-2, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["variable"])
    excluded = _run(optimizer, weights, gradients)[0]
    plain = _run(Lamb(1e-2), weights, gradients)[0]
    for with_decay, without, none, shape in zip(
        decayed, excluded, plain, SHAPES, strict=True
    ):
        np.testing.assert_array_equal(without, none)
        is_decayed = len(shape) > 1 and with_decay.shape != SHAPES[-1]
        assert np.array_equal(with_decay, none) != is_decayed


def test_lamb_config_round_trip():
    optimizer = Lamb(warm_cosine(1e-3, 100), weight_decay=0.1)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Lamb
    assert again.get_config() == optimizer.get_config()
    assert float(again.learning_rate) == 0.0


def test_negative_weight_decay():
    with pytest.raises(ValueError, match="`weight_decay` must not be negative"):
        Lamb(weight_decay=-0.1)
