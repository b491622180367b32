import keras
import numpy as np
import pytest

from keras_perceiver import Lamb
from keras_perceiver.training import (
    TrackingOptimizer,
    flat_cosine,
    step_decay,
    warm_cosine,
)
from keras_perceiver.training.schedules import (
    AccumulatedSchedule,
    accumulate_gradients,
)
from tests.training.test_lamb import weights_and_gradients


def _cosine(done):
    return (1 + np.cos(np.pi * np.clip(done, 0, 1))) / 2


def _rates(schedule, num_steps):
    return [float(schedule(step)) for step in range(num_steps)]


def test_warm_cosine():
    steps = np.arange(45)
    expected = np.minimum(steps / 8, 1) * 2 * _cosine((steps - 8) / 32)
    found = _rates(warm_cosine(2.0, 40, warmup_fraction=0.2), 45)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = _rates(warm_cosine(2.0, 40, warmup_fraction=0.0), 45)
    np.testing.assert_allclose(found, 2 * _cosine(steps / 40), atol=1e-6)
    assert warm_cosine(2.0, 40).warmup_steps == 2


def test_flat_cosine():
    steps = np.arange(40)
    found = _rates(flat_cosine(2.0, 30, flat_fraction=1 / 3), 40)
    np.testing.assert_allclose(found, 2 * _cosine((steps - 10) / 20), atol=1e-6)


def test_step_decay():
    found = _rates(step_decay(2.0, 10, decay_at=(0.3, 0.8)), 11)
    expected = [2.0] * 4 + [0.2] * 5 + [0.02] * 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(step_decay(2.0, 10, (0.5,), factor=0.5)(9)) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: warm_cosine(1.0, 10, warmup_fraction=1.0),
        lambda: flat_cosine(1.0, 10, flat_fraction=-0.1),
    ],
)
def test_fractions_are_checked(make):
    with pytest.raises(ValueError, match=r"_fraction` must be a number in \[0, 1\)"):
        make()


def _step(optimizer, variables):
    """Returns a callable that applies gradients as `fit` does."""
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
def test_micro_batches_equal_the_batch(make):
    weights, gradients = weights_and_gradients(6)
    found = []
    for num_micro_batches in (1, 2):
        inner = make()
        accumulate_gradients(inner, num_micro_batches)
        optimizer = TrackingOptimizer(inner, ema_momentum=0.2)
        variables = [keras.Variable(weight) for weight in weights]
        optimizer.build(variables)
        step = _step(optimizer, variables)
        for first in range(0, 6, 2):
            parts = gradients[first : first + 2]
            mean = [np.mean(both, axis=0) for both in zip(*parts, strict=True)]
            for gradient in parts if num_micro_batches == 2 else [mean]:
                step(gradient)
        assert int(optimizer.iterations) == 3
        assert float(optimizer.learning_rate) == pytest.approx(1e-2)
        arrays = [keras.ops.convert_to_numpy(v) for v in variables]
        found.append(arrays + optimizer.averages())
    for whole, in_parts in zip(*found, strict=True):
        np.testing.assert_allclose(in_parts, whole, atol=1e-6)
    assert not np.allclose(found[0][0], found[0][len(weights)])


def test_accumulated_schedule_config_round_trip():
    schedule = AccumulatedSchedule(warm_cosine(1e-3, 9), 3)
    optimizer = keras.optimizers.SGD(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    by_update = _rates(warm_cosine(1e-3, 9), 3)
    assert _rates(again._learning_rate, 9) == [by_update[i // 3] for i in range(9)]
    with pytest.raises(ValueError, match="`accumulation_steps` must be a positive"):
        accumulate_gradients(Lamb(1e-3), 0)
