import keras
import numpy as np
import pytest

from keras_perceiver import FlatCosineDecay, Lamb, Warmup
from keras_perceiver.training import TrackingOptimizer
from keras_perceiver.training.optimizers import accumulate

SHAPES = ((5, 3), (3,), (2, 4, 3), (4, 2))


def _weights_and_gradients(num_steps):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    weights[-1][:] = 0  # has no length to take a step of
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
def test_lamb_equals_optax(clipping):
    import jax
    import optax

    weights, gradients = _weights_and_gradients(20)
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
    weights, gradients = _weights_and_gradients(1)
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
    optimizer = Lamb(Warmup(FlatCosineDecay(1e-3, 100, 50), 10), weight_decay=0.1)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Lamb
    assert again.get_config() == optimizer.get_config()
    assert float(again.learning_rate) == 0.0


def test_flat_cosine_decay():
    schedule = FlatCosineDecay(2.0, num_steps=30, num_flat_steps=10)
    steps = np.arange(40)
    done = np.clip((steps - 10) / 20, 0, 1)
    found = [float(schedule(step)) for step in steps]
    np.testing.assert_allclose(found, 1 + np.cos(np.pi * done), atol=1e-6)


def test_warmup():
    schedule = Warmup(FlatCosineDecay(2.0, 30, 10), num_warmup_steps=4)
    found = [float(schedule(step)) for step in (0, 1, 2, 4, 9, 30)]
    np.testing.assert_allclose(found, [0, 0.5, 1, 2, 2, 0], atol=1e-6)


@pytest.mark.parametrize("num_flat_steps", [-1, 10])
def test_no_steps_left_to_decay(num_flat_steps):
    with pytest.raises(ValueError, match="Leave steps for the decay"):
        FlatCosineDecay(1.0, num_steps=10, num_flat_steps=num_flat_steps)


def test_negative_weight_decay():
    with pytest.raises(ValueError, match="`weight_decay` must not be negative"):
        Lamb(weight_decay=-0.1)


def test_no_steps_to_warm_up():
    with pytest.raises(ValueError, match="`num_warmup_steps` must be"):
        Warmup(FlatCosineDecay(1.0, 10, 5), num_warmup_steps=0)


def _step(optimizer, variables):
    """Returns what makes one update of gradients as `fit` makes it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
        return lambda gradients: step([tf.constant(g) for g in gradients])
    if backend == "torch":
        import torch

        apply = torch.no_grad()(optimizer.apply)
        return lambda gradients: apply(list(map(torch.tensor, gradients)), variables)

    def step(gradients):
        values = [[v.value for v in vs] for vs in (optimizer.variables, variables)]
        found = optimizer.stateless_apply(values[0], gradients, values[1])
        targets = (variables, optimizer.variables)
        for target, new in zip(targets, found, strict=True):
            for variable, value in zip(target, new, strict=True):
                variable.assign(value)

    return step


def _schedule():
    return keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-1, 1e-2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lamb(_schedule(), weight_decay=0.1, global_clipnorm=1.0),
        lambda: keras.optimizers.AdamW(_schedule(), weight_decay=0.1, clipnorm=1.0),
    ],
    ids=["lamb", "adamw"],
)
def test_parts_of_a_batch_equal_the_batch(make):
    weights, gradients = _weights_and_gradients(6)
    found = []
    for num_parts in (1, 2):
        inner = make()
        accumulate(inner, num_parts)
        optimizer = TrackingOptimizer(inner, ema_momentum=0.2)
        variables = [keras.Variable(weight) for weight in weights]
        optimizer.build(variables)
        step = _step(optimizer, variables)
        for first in range(0, 6, 2):
            parts = gradients[first : first + 2]
            mean = [np.mean(both, axis=0) for both in zip(*parts, strict=True)]
            for gradient in parts if num_parts == 2 else [mean]:
                step(gradient)
        assert int(optimizer.iterations) == 3
        assert float(optimizer.learning_rate) == pytest.approx(1e-2)
        arrays = [keras.ops.convert_to_numpy(v) for v in variables]
        found.append(arrays + optimizer.averages())
    for whole, in_parts in zip(*found, strict=True):
        np.testing.assert_allclose(in_parts, whole, atol=1e-6)
    assert not np.allclose(found[0][0], found[0][len(weights)])


def test_tracking_optimizer_averages_weights_and_measures_gradients():
    weights, gradients = _weights_and_gradients(30)
    optimizer = TrackingOptimizer(keras.optimizers.SGD(0.1), ema_momentum=0.4)
    variables = [keras.Variable(weight) for weight in weights]
    optimizer.build(variables)
    averages = [np.zeros_like(weight) for weight in weights]
    weights = [weight.copy() for weight in weights]
    for step, gradient in enumerate(gradients):
        optimizer.apply([keras.ops.array(g) for g in gradient], variables)
        momentum = min(0.4, (1 + step) / (10 + step))
        for weight, average, g in zip(weights, averages, gradient, strict=True):
            weight -= 0.1 * g
            average += (1 - momentum) * (weight - average)
    norms = [np.sqrt(sum(np.sum(g**2) for g in gradient)) for gradient in gradients]
    assert optimizer.mean_gradient_norm() == pytest.approx(np.mean(norms), rel=1e-5)
    assert optimizer.mean_gradient_norm() == 0.0

    def check(expected):
        for variable, value in zip(variables, expected, strict=True):
            found = keras.ops.convert_to_numpy(variable)
            np.testing.assert_allclose(found, value, atol=1e-5)

    check(weights)
    optimizer.swap()
    check(averages)
    optimizer.swap()
    check(weights)
    optimizer.assign_weights(optimizer.averages())
    check(averages)


def test_tracking_optimizer_config_round_trip():
    optimizer = TrackingOptimizer(Lamb(Warmup(FlatCosineDecay(1e-3, 9, 5), 2)), 0.9)
    accumulate(optimizer.inner_optimizer, 3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is TrackingOptimizer
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match=r"`ema_momentum` must be a number in \[0"):
        TrackingOptimizer(Lamb(1e-3), ema_momentum=1.0)
    with pytest.raises(ValueError, match="`accumulation_steps` must be a positive"):
        accumulate(Lamb(1e-3), 0)
