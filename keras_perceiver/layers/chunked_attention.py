"""Attention over very many inputs: chunk after chunk, nothing of size N x M is stored.

The forward pass keeps the largest score so far, the sum of exponentials and the sum of
weighted values; when a larger score comes, both sums shrink by the same factor. The
backward pass knows the logarithm of the final sum and computes each chunk's weights
again. What happens to a chunk is written once, in `keras.ops`; what differs between
backends is how to repeat it and how to give it a backward pass of its own.

Reference:
    [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682);
    [Dao et al., 2022](https://arxiv.org/abs/2205.14135), algorithms 1 and 2.
"""

from dataclasses import dataclass

import keras
from keras import ops

from keras_perceiver.layers.chunks import over_chunks
from keras_perceiver.layers.recompute import after

# Score of a masked key. Finite, so that a row with no key at all stays free of NaN.
MASKED_SCORE = -1e30


def chunked_attention(
    query, key, value, *, num_heads, chunk_size, keep=None, scale=None
):
    """Softmax attention in memory linear in the number of keys.

    Args:
        query: Tensor of shape `(B, H, N, d)`, scaled already.
        key: Tensor of shape `(B, M, H * d)`.
        value: Tensor of shape `(B, M, H * e)`, or `None` where the keys are the values.
        num_heads: Integer H.
        chunk_size: Integer, keys in a chunk.
        keep: Boolean tensor of shape `(B, M)`, `False` for keys without influence.
        scale: Float32 tensor of shape `(B, M)`, a factor of each key and value.

    Returns:
        Float32 tensor of shape `(B, H, N, e)`.
    """
    tensors = {"key": key, "value": value, "scale": scale, "keep": keep}
    names = tuple(name for name, tensor in tensors.items() if tensor is not None)
    attention = _ChunkedAttention(names, num_heads, chunk_size)
    arguments = (attention, query, *(tensors[name] for name in names))
    if keras.backend.backend() == "jax":
        return _run_jax(*arguments)
    if keras.backend.backend() == "tensorflow":
        return _run_tensorflow(*arguments)
    return _run_torch(*arguments)


@dataclass(frozen=True)
class _ChunkedAttention:
    """Both passes over the chunks, for tensors of these names besides the query."""

    names: tuple
    num_heads: int
    chunk_size: int

    def forward(self, query, *tensors):
        """Returns the outputs `(B, H, N, e)` and the log-sums `(B, H, N, 1)`."""
        tensors = dict(zip(self.names, tensors, strict=True))
        rows = ops.cast(query[..., :1], "float32")  # (B, H, N, 1)
        value = tensors.get("value", tensors["key"])
        width = value.shape[-1] // self.num_heads
        outputs = ops.zeros_like(rows) * ops.zeros((width,))  # (B, H, N, e)

        def step(state, chunk):
            largest, total, outputs = state
            key, value = self._load(chunk, query.dtype)
            scores = _scores(query, key, chunk)  # (B, H, N, m)
            new_largest = ops.maximum(largest, ops.max(scores, -1, keepdims=True))
            decay = ops.exp(largest - new_largest)
            weights = ops.exp(scores - new_largest)
            total = total * decay + ops.sum(weights, -1, keepdims=True)
            weights = ops.cast(weights, value.dtype)
            outputs = outputs * decay + matmul_float32(weights, value)
            return (new_largest, total, outputs), ()

        start = (ops.full_like(rows, MASKED_SCORE), ops.zeros_like(rows), outputs)
        (largest, total, outputs), _ = over_chunks(
            step, start, tensors, self.chunk_size
        )
        return outputs / total, largest + ops.log(total)

    def backward(self, query, tensors, outputs, log_total, gradient, wanted):
        """Returns the gradients of the query and of the tensors named in `wanted`."""
        tensors = dict(zip(self.names, tensors, strict=True))
        delta = ops.sum(gradient * outputs, -1, keepdims=True)  # (B, H, N, 1)
        gradient = ops.cast(gradient, query.dtype)  # (B, H, N, e)

        def step(state, chunk):
            key, value = self._load(chunk, query.dtype)
            weights = ops.exp(_scores(query, key, chunk) - log_total)  # (B, H, N, m)
            of_weights = matmul_float32(gradient, ops.swapaxes(value, -1, -2))
            of_scores = ops.cast(weights * (of_weights - delta), query.dtype)
            (of_query,) = state
            of_query = of_query + matmul_float32(of_scores, key)
            if not wanted:
                return (of_query,), ()
            of_scores = ops.swapaxes(of_scores, -1, -2)
            weights = ops.swapaxes(ops.cast(weights, query.dtype), -1, -2)
            of_key = matmul_float32(of_scores, query)  # (B, H, m, d)
            of_value = matmul_float32(weights, gradient)  # (B, H, m, e)
            return (of_query,), self._unload(chunk, of_key, of_value, wanted)

        start = (ops.zeros_like(ops.cast(query, "float32")),)
        (of_query,), gradients = over_chunks(
            step, start, tensors, self.chunk_size, [tensors[name] for name in wanted]
        )
        return ops.cast(of_query, query.dtype), gradients

    def _load(self, chunk, dtype):
        """Scales and masks a chunk; returns keys and values split into heads."""

        def load(tensor):  # (B, m, H * d)
            if "scale" in chunk:
                tensor = ops.cast(tensor, "float32") * chunk["scale"][..., None]
            tensor = _masked(ops.cast(tensor, dtype), chunk)
            return split_heads(tensor, self.num_heads)

        key = load(chunk["key"])
        return key, load(chunk["value"]) if "value" in chunk else key

    def _unload(self, chunk, of_key, of_value, wanted):
        """Gradients of a chunk's tensors from those of its loaded keys and values."""
        of_key, of_value = merge_heads(of_key), merge_heads(of_value)
        if "value" in chunk:
            loaded = {"key": of_key, "value": of_value}
        else:
            loaded = {"key": of_key + of_value}
        gradients = {"scale": 0.0}
        for name, gradient in loaded.items():
            gradient = _masked(gradient, chunk)  # (B, m, H * d), float32
            if "scale" in chunk:
                tensor = _masked(ops.cast(chunk[name], "float32"), chunk)
                gradients["scale"] += ops.sum(gradient * tensor, -1)
                gradient = gradient * chunk["scale"][..., None]
            gradients[name] = ops.cast(gradient, chunk[name].dtype)
        return tuple(gradients[name] for name in wanted)


def _masked(tensor, chunk):
    """Zeros in the place of padding: zero times NaN, in a product, would be NaN."""
    if "keep" not in chunk:
        return tensor
    return ops.where(chunk["keep"][..., None], tensor, 0)


def _scores(query, key, chunk):
    scores = matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, m)
    if "keep" in chunk:
        scores = ops.where(chunk["keep"][:, None, None, :], scores, MASKED_SCORE)
    return scores


def split_heads(tensor, num_heads):
    """Reshapes `(B, L, H * d)` to `(B, H, L, d)`."""
    if num_heads == 1:  # spares a transposed copy
        return ops.expand_dims(tensor, 1)
    shape = (-1, ops.shape(tensor)[1], num_heads, tensor.shape[-1] // num_heads)
    return ops.swapaxes(ops.reshape(tensor, shape), 1, 2)


def merge_heads(tensor):
    """Reshapes `(B, H, L, d)` to `(B, L, H * d)`."""
    _, num_heads, _, head_dim = tensor.shape
    if num_heads == 1:
        return ops.squeeze(tensor, 1)
    shape = (-1, ops.shape(tensor)[2], num_heads * head_dim)
    return ops.reshape(ops.swapaxes(tensor, 1, 2), shape)


def matmul_float32(a, b):
    """Matrix product of float32, bfloat16 or float16 tensors, as float32.

    Backend-specific path: JAX can hand out the float32 accumulator. TensorFlow and
    torch accumulate in float32 as well, but round the result once to the inputs' dtype.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, preferred_element_type="float32")
    return ops.cast(ops.matmul(a, b), "float32")


def _run_jax(attention, query, *tensors):
    """Backend-specific path: knows while tracing which gradients are wanted."""
    import jax

    @jax.custom_vjp
    def run(query, *tensors):
        return attention.forward(query, *tensors)[0]

    def forward(query, *tensors):
        wanted = tuple(
            # A pytree without leaves, so that it reaches `backward` as it is.
            () if tensor.perturbed and name != "keep" else None
            for name, tensor in zip(attention.names, tensors, strict=True)
        )
        query, *tensors = (x.value for x in (query, *tensors))
        outputs, log_total = attention.forward(query, *tensors)
        return outputs, (query, tensors, outputs, log_total, wanted)

    def backward(residuals, gradient):
        *residuals, wanted = residuals
        if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
            return (None,) * (1 + len(wanted))
        wanted = [
            n for n, w in zip(attention.names, wanted, strict=True) if w is not None
        ]
        query, *rest = residuals
        # One chunk, without a loop, would be found to be the forward pass's own.
        query = after(gradient, query)
        of_query, found = attention.backward(query, *rest, gradient, wanted)
        found = dict(zip(wanted, found, strict=True))
        return (of_query, *(found.get(name) for name in attention.names))

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(query, *tensors)


def _run_tensorflow(attention, query, *tensors):
    """Backend-specific path: two loops backward, as TensorFlow prunes whole loops.

    Which gradients will be used is not known here. The loop for those of the inputs is
    apart from that of the query, so that it vanishes where nobody asks for its result.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(query, *tensors):
        outputs, log_total = attention.forward(query, *tensors)

        def backward(gradient):
            # One chunk, without a loop, would be found to be the forward pass's own.
            late_query, *late = (after(gradient, x) for x in (query, *tensors))
            arguments = (late_query, late, outputs, log_total, gradient)
            of_query, _ = attention.backward(*arguments, wanted=())
            wanted = [name for name in attention.names if name != "keep"]
            _, found = attention.backward(*arguments, wanted)
            found = dict(zip(wanted, found, strict=True))
            return (of_query, *(found.get(name) for name in attention.names))

        return outputs, backward

    return run(query, *tensors)


if keras.backend.backend() == "torch":
    # Backend-specific path: torch tells which gradients are wanted.
    import torch

    class _TorchFunction(torch.autograd.Function):
        @staticmethod
        def forward(context, attention, query, *tensors):
            outputs, log_total = attention.forward(query, *tensors)
            context.attention = attention
            context.save_for_backward(query, outputs, log_total, *tensors)
            return outputs

        @staticmethod
        def backward(context, gradient):
            attention = context.attention
            query, outputs, log_total, *tensors = context.saved_tensors
            needed = zip(attention.names, context.needs_input_grad[2:], strict=True)
            wanted = [name for name, is_needed in needed if is_needed]
            of_query, found = attention.backward(
                query, tensors, outputs, log_total, gradient, wanted
            )
            found = dict(zip(wanted, found, strict=True))
            return (None, of_query, *(found.get(name) for name in attention.names))

    # torch.compile would write out the loop, chunk after chunk, and work on that for
    # minutes.
    @torch.compiler.disable
    def _run_torch(attention, query, *tensors):
        return _TorchFunction.apply(attention, query, *tensors)
