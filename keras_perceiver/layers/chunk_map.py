"""A function of very many rows, computed chunk by chunk, forward and backward."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import ops

from keras_perceiver.layers.chunks import over_chunks
from keras_perceiver.layers.two_passes import run_two_passes


def map_chunks(function, rows, shared, layers, size, dtype, training):
    """Returns what a function makes of rows, of which it sees a chunk at a time.

    The gradient keeps the arguments only: what the function computes in between is
    computed again, a chunk at a time.

    Args:
        function: Callable `(rows, shared)` of two dicts of tensors, which returns a
            tensor of shape `(batch, m, ...)`. The result of a row depends on no other
            row. It draws no random numbers.
        rows: Dict of tensors of shape `(batch, M, ...)`, of which a chunk has m rows.
        shared: Dict of tensors that all chunks have in common.
        layers: Layers whose weights the function uses.
        size: Integer, rows in a chunk. The last chunk may have fewer.
        dtype: String, dtype of the result.
        training: Boolean, whether a gradient may be wanted.

    Returns:
        Tensor of shape `(batch, M, ...)`.
    """
    length = next(iter(rows.values())).shape[1]
    if isinstance(length, int) and length <= size:
        return function(rows, shared)
    variables = [weight for layer in layers for weight in layer.weights]
    weights = {str(i): ops.copy(weight) for i, weight in enumerate(variables)}

    def call(rows, tensors):
        weights = [tensors[str(i)] for i in range(len(variables))]
        with keras.StatelessScope(zip(variables, weights, strict=True)):
            return function(rows, {name: tensors[name] for name in shared})

    tensors = {**rows, **shared, **weights}
    passes = _Passes(call, tuple(rows), tuple(tensors), size, dtype)
    # What the first tensor of two passes is for in attention, nothing is for here.
    anchor = ops.zeros(())
    if not training:
        return passes.forward(anchor, *tensors.values())[0]
    return run_two_passes(passes, anchor, *tensors.values())


@dataclass(frozen=True)
class _Passes:
    """Both passes over the chunks, see `two_passes`.

    Args:
        function: Callable of the dict of a chunk's rows and the dict of all other
            tensors.
        rows: Tuple of strings, the names of the tensors that are cut into chunks.
        names: Tuple of strings, the names of all tensors.
        size: Integer, rows in a chunk.
        dtype: String, dtype of the result.
    """

    function: Callable
    rows: tuple
    names: tuple
    size: int
    dtype: str

    @property
    def names_with_gradient(self):
        return self.names

    def forward(self, anchor, *tensors):
        rows, shared = self._split(tensors)

        def step(state, chunk):
            return state, (self.function(chunk, shared),)

        like = [ops.zeros((), self.dtype)]
        _, (outputs,) = over_chunks(step, (), rows, self.size, like)
        return outputs, anchor

    def backward(self, anchor, tensors, outputs, residual, gradient, wanted):
        """Returns zero for the anchor, and the gradients of the tensors in `wanted`."""
        rows, shared = self._split(tensors)
        floating = {
            name
            for name, x in (*rows.items(), *shared.items())
            if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))
        }
        of_rows = [name for name in rows if name in wanted and name in floating]
        of_shared = [name for name in shared if name in wanted and name in floating]
        d_anchor = ops.zeros_like(anchor)
        if not (of_rows or of_shared):
            return d_anchor, [None] * len(wanted)

        def step(sums, chunk):
            chunk = dict(chunk)
            d_outputs = chunk.pop("d outputs")

            def function(*arguments):
                given = dict(zip(of_rows + of_shared, arguments, strict=True))
                return self.function(
                    {name: given.get(name, x) for name, x in chunk.items()},
                    {name: given.get(name, x) for name, x in shared.items()},
                )

            arguments = [chunk[name] for name in of_rows]
            arguments += [shared[name] for name in of_shared]
            found = gradients(function, arguments, d_outputs)
            of_chunk, of_all = found[: len(of_rows)], found[len(of_rows) :]
            sums = [x + ops.cast(d, x.dtype) for x, d in zip(sums, of_all, strict=True)]
            return tuple(sums), tuple(of_chunk)

        # Sums of many chunks need the digits of float32.
        start = tuple(ops.zeros_like(ops.cast(shared[n], "float32")) for n in of_shared)
        sums, joined = over_chunks(
            step,
            start,
            {**rows, "d outputs": gradient},
            self.size,
            [rows[name] for name in of_rows],
        )
        found = dict(zip(of_rows, joined, strict=True))
        for name, total in zip(of_shared, sums, strict=True):
            found[name] = ops.cast(total, shared[name].dtype)
        return d_anchor, [found.get(name) for name in wanted]

    def _split(self, tensors):
        named = dict(zip(self.names, tensors, strict=True))
        rows = {name: named.pop(name) for name in self.rows}
        return rows, named


def gradients(function, arguments, d_outputs):
    """Returns the gradients of a function's floating-point arguments.

    Backend-specific path.

    Args:
        function: Callable of the arguments that returns a tensor.
        arguments: Sequence of tensors.
        d_outputs: Tensor, the gradient of what the function returns.

    Returns:
        List of tensors like the arguments, zero where the function does not depend on
        one.
    """
    if keras.backend.backend() == "jax":
        import jax

        return list(jax.vjp(function, *arguments)[1](d_outputs))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = function(*arguments)
        return tape.gradient(
            outputs, arguments, d_outputs, tf.UnconnectedGradients.ZERO
        )
    import torch

    with torch.enable_grad():
        arguments = [x.detach().requires_grad_() for x in arguments]
        outputs = function(*arguments)
    found = torch.autograd.grad(outputs, arguments, d_outputs, allow_unused=True)
    return [
        torch.zeros_like(x) if d is None else d
        for x, d in zip(arguments, found, strict=True)
    ]
