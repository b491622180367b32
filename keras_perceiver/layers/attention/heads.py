"""Splitting and merging of attention heads, and products that accumulate in float32."""

import keras
from keras import ops


def split_heads(tensor, num_heads):
    """Reshapes `(B, L, H * d)` to `(B, H, L, d)`."""
    if num_heads == 1:  # avoids a transposed copy
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
    """Returns the product of float32, bfloat16 or float16 matrices as float32.

    Backend-specific path: JAX can return the float32 accumulator. TensorFlow and
    PyTorch accumulate in float32 as well, but round the result to the dtype of the
    inputs.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, preferred_element_type="float32")
    return ops.cast(ops.matmul(a, b), "float32")


def max_of_rows(scores):
    """Returns the maxima of `(B, H, N, M)` over the last axis, `(B, H, N, 1)`.

    Backend-specific path: `keras.ops.max` rejects the empty tensor of a batch without
    examples.
    """
    if keras.backend.backend() == "torch":
        return scores.amax(-1, keepdim=True)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.reduce_max(scores, axis=-1, keepdims=True)
    # JAX needs the initial value for symbolic lengths, which may be zero.
    return ops.max(scores, axis=-1, keepdims=True, initial=float("-inf"))
