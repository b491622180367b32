"""Prints the memory in bytes of programs that XLA compiles with all optimizations.

It is a separate program, since `tests/conftest.py` disables most of XLA's optimizations.
"""

import json
import math

import jax
import keras

from keras_perceiver import LatentTransformer, attend
from keras_perceiver.layers.recompute import recompute

NUM_QUERIES, WIDTH = 256, 32
LATENTS = (1, 256, 64)


def temporary_bytes(function, *shapes):
    """Returns the temporary memory of a compiled function."""
    specs = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple) and isinstance(x[0], int),
    )
    analysis = jax.jit(function).lower(*specs).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def attention_bytes(kernel, num_inputs):
    """Returns the memory of the forward and backward pass of attention."""

    def loss(query, key, value):
        return (attend(query, key, value, kernel=kernel) ** 2).sum()

    inputs = (1, num_inputs, WIDTH)
    gradient = jax.grad(loss, (0, 1, 2))
    return temporary_bytes(gradient, (1, NUM_QUERIES, WIDTH), inputs, inputs)


def transformer_bytes(num_self_attends, use_remat):
    """Returns the memory of a training step of a latent Transformer."""
    layer = LatentTransformer(num_self_attends=num_self_attends, use_remat=use_remat)
    layer.build(LATENTS)

    def loss(weights, latents):
        with keras.StatelessScope(zip(layer.weights, weights, strict=True)):
            return (layer(latents, training=True) ** 2).sum()

    weights = [tuple(weight.shape) for weight in layer.weights]
    return temporary_bytes(jax.grad(loss), weights, LATENTS)


def recompute_bytes(rematerialize):
    """Returns the memory of eight layers with wide hidden units that only keep inputs."""

    def layer(x, kernel):
        return x + jax.nn.gelu(x @ kernel) @ kernel.T

    def loss(x, kernels):
        for kernel in kernels:
            x = rematerialize(layer, x, kernel)
        return (x**2).sum()

    kernels = [(64, 2048)] * 8
    return temporary_bytes(jax.grad(loss, (0, 1)), (512, 64), kernels)


def main():
    remat = {
        "none": lambda function, *x: function(*x),
        "ours": recompute,
        "keras": lambda function, *x: keras.remat(function)(*x),
    }
    result = {
        "attention": {
            kernel: [attention_bytes(kernel, n) for n in (32_768, 65_536)]
            for kernel in ("plain", "chunked")
        },
        "transformer": {
            name: [transformer_bytes(n, name == "remat") for n in (4, 8)]
            for name in ("kept", "remat")
        },
        "recompute": {name: recompute_bytes(how) for name, how in remat.items()},
        "scores": 4 * NUM_QUERIES * 65_536,
        "latents": 4 * math.prod(LATENTS),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
