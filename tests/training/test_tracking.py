import keras
import numpy as np
import pytest

from keras_perceiver import Lamb
from keras_perceiver.training import TrackingOptimizer, warm_cosine
from keras_perceiver.training.schedules import accumulate_gradients
from tests.training.test_lamb import weights_and_gradients


def test_tracking_optimizer_averages_weights_and_measures_gradients():
    weights, gradients = weights_and_gradients(30)
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
    optimizer = TrackingOptimizer(Lamb(warm_cosine(1e-3, 9)), 0.9)
    accumulate_gradients(optimizer.inner_optimizer, 3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is TrackingOptimizer
    assert again.get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match=r"`ema_momentum` must be a number in \[0"):
        TrackingOptimizer(Lamb(1e-3), ema_momentum=1.0)
