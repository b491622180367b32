"""Sequences of blocks of layers, with repeated blocks run as a loop."""

import itertools

import keras
from keras import ops

from keras_perceiver.layers.recompute import (
    accumulate_gradients_eagerly,
    call_with,
)


def run_blocks(run, latents, blocks, training):
    """Returns the latents after all blocks.

    Seeds are drawn before a loop, in the order of the calls, so that a loop has the
    same dropout as an unrolled sequence.

    Args:
        run: Callable `(layer, latents, seeds, call)` that returns the latents after a
            layer. It calls `call` instead of the layer unless that is `None`.
        latents: Tensor.
        blocks: List of tuples of layers, each of which has `draw_seeds(training)`.
        training: Boolean.
    """
    for layers, repeated in itertools.groupby(blocks):
        seeds = [
            tuple(layer.draw_seeds(training) for layer in layers) for _ in repeated
        ]
        repeat = _run_unrolled
        if len(seeds) > 1 and _is_traced_by_jax(latents):
            repeat = _scan_jax
        elif len(seeds) > 1 and keras.backend.backend() == "tensorflow":
            repeat = _run_eager_sums_tensorflow if training else _loop_tensorflow
        latents = repeat(run, latents, layers, seeds)
    return latents


def _is_traced_by_jax(tensor):
    """Returns whether JAX is tracing, since a loop saves nothing otherwise."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(tensor, jax.core.Tracer)


def _run_block(run, latents, layers, seeds):
    for layer, seed in zip(layers, seeds, strict=True):
        latents = run(layer, latents, seed)
    return latents


def _run_unrolled(run, latents, layers, seeds):
    for seeds_of_block in seeds:
        latents = _run_block(run, latents, layers, seeds_of_block)
    return latents


def _scan_jax(run, latents, layers, seeds):
    """Runs the same layers once for each of `seeds`, in a loop.

    Backend-specific path: XLA compiles the body once, in a fraction of the time, and a
    loop needs less memory than an unrolled sequence.
    """
    import jax

    def step(latents, seeds):
        return _run_block(run, latents, layers, seeds), None

    seeds, num_times = jax.tree.map(lambda *x: ops.stack(x), *seeds), len(seeds)
    return ops.scan(step, latents, seeds, num_times)[0]


def _run_eager_sums_tensorflow(run, latents, layers, seeds):
    """Runs the same layers once for each of `seeds`, and accumulates gradients eagerly.

    Backend-specific path: see `accumulate_gradients_eagerly`.
    """
    weights = {id(layer): [w.value for w in layer.weights] for layer in layers}
    for i, seeds_of_block in enumerate(seeds):
        for layer, seed in zip(layers, seeds_of_block, strict=True):
            own = weights[id(layer)]
            if i < len(seeds) - 1:
                latents, own, weights[id(layer)] = accumulate_gradients_eagerly(
                    latents, own
                )

            def call(*args, layer=layer, own=own, **kwargs):
                return call_with(layer, own, *args, **kwargs)

            latents = run(layer, latents, seed, call)
    return latents


def _loop_tensorflow(run, latents, layers, seeds):
    """Runs the same layers once for each of `seeds`, which are `None`, in a loop.

    Backend-specific path: the graph contains the layers once, so that tracing, exporting
    and loading a model take a fraction of the time.
    """

    def step(_, latents):
        return _run_block(run, latents, layers, seeds[0])

    return ops.fori_loop(0, len(seeds), step, latents)
