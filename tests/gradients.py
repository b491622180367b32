"""Gradients of a function or a layer, on any backend."""

import keras
import numpy as np


def gradients(function, *arrays, weights=()):
    """Differentiates the sum of the squares of the output of a function.

    Args:
        function: Callable that takes one tensor per array. It is compiled, as in `fit`.
        *arrays: NumPy arrays.
        weights: Keras variables that the function uses.

    Returns:
        The output of the function, and the gradients of all arrays, then of all
        weights.
    """
    differentiate = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
    outputs, found = differentiate[keras.backend.backend()](function, arrays, weights)
    return _numpy(outputs), [_numpy(x) for x in found]


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def _jax(function, arrays, weights):
    import jax

    def loss(arrays, values):
        with keras.StatelessScope(zip(weights, values, strict=True)):
            outputs = function(*arrays)
        return (outputs**2).sum(), outputs

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (of_arrays, of_weights), outputs = run(arrays, [w.value for w in weights])
    return outputs, [*of_arrays, *of_weights]


def _tensorflow(function, arrays, weights):
    import tensorflow as tf

    variables = [weight.value for weight in weights]

    @tf.function
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
            loss = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(loss, [*tensors, *variables])

    return run(*map(tf.constant, arrays))


def _torch(function, arrays, weights):
    import torch

    # Keras knows the device.
    tensors = [
        keras.ops.convert_to_tensor(array).detach().requires_grad_() for array in arrays
    ]
    tensors_and_weights = [*tensors, *(weight.value for weight in weights)]
    outputs = function(*tensors)
    return outputs, torch.autograd.grad((outputs**2).sum(), tensors_and_weights)
