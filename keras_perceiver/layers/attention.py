"""The one door to attention: every softmax of the package is in this file."""

import math

import keras
from keras import ops

from keras_perceiver._checks import check_divisible, check_positive, check_rank

# Score of a masked key. Finite, so that a row with no key at all stays free of NaN.
_MASKED_SCORE = -1e30


def attend(query, key, value, *, num_heads=1, inputs_mask=None):
    """Exact scaled dot-product attention over any widths.

    Each query takes the average of the values, weighted by the softmax over all keys of
    `query . key / sqrt(qk_dim / num_heads)`. Scores, exponentials and their sum are
    float32 whatever the dtype of the arguments, and the division comes after the
    product with the values, so that half precision costs only the rounding of products.
    A query with no key to attend to (all masked) gets zeros.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.

    Args:
        query: Tensor of shape `(batch, num_queries, qk_dim)`.
        key: Tensor of shape `(batch, num_inputs, qk_dim)`.
        value: Tensor of shape `(batch, num_inputs, v_dim)`.
        num_heads: Integer, number of attention heads. Splits `qk_dim` and `v_dim`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for keys
            that must have no influence, or `None`.

    Returns:
        Tensor of shape `(batch, num_queries, v_dim)` and the dtype of `query`.

    Raises:
        ValueError: if a tensor is not of rank 3, if query and key differ in width, or
            if a width is not divisible by `num_heads`.

    Example:

    >>> query = keras.random.normal((2, 5, 8))
    >>> key, value = keras.random.normal((2, 100, 8)), keras.random.normal((2, 100, 6))
    >>> tuple(attend(query, key, value, num_heads=2).shape)
    (2, 5, 6)
    """
    check_positive(num_heads=num_heads)
    query, key, value = map(ops.convert_to_tensor, (query, key, value))
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        check_rank(name, tensor.shape, 3, "(batch, length, width)")
    qk_dim, v_dim = query.shape[-1], value.shape[-1]
    if key.shape[-1] != qk_dim:
        raise ValueError(
            "`query` and `key` must have the same width. Received: "
            f"query.shape={tuple(query.shape)}, key.shape={tuple(key.shape)}. "
            "Project both to one width."
        )
    check_divisible("num_heads", num_heads, qk_dim=qk_dim, v_dim=v_dim)

    query = query * ops.cast(1 / math.sqrt(qk_dim // num_heads), query.dtype)
    query = _split_heads(query, num_heads)  # (B, H, N, qk)
    key = _split_heads(key, num_heads)  # (B, H, M, qk)
    scores = _matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, M)
    if inputs_mask is not None:
        keep = ops.convert_to_tensor(inputs_mask, "bool")
        scores = ops.where(keep[:, None, None, :], scores, _MASKED_SCORE)
        # Zero times NaN is NaN: padding must not reach the product with the values.
        # Zero values also make the output of a query with no key at all exactly zero.
        value = ops.where(keep[:, :, None], value, ops.zeros_like(value))
    # The softmax does not depend on the shift, so no gradient has to flow through it.
    shift = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - shift)
    total = ops.sum(weights, axis=-1, keepdims=True)  # (B, H, N, 1)
    value = _split_heads(value, num_heads)  # (B, H, M, v)
    outputs = _matmul_float32(ops.cast(weights, value.dtype), value) / total
    return _merge_heads(ops.cast(outputs, query.dtype))  # (B, N, H * v)


def _split_heads(tensor, num_heads):
    """Reshapes `(B, L, H * d)` to `(B, H, L, d)`."""
    if num_heads == 1:  # spares a transposed copy of the whole byte array
        return ops.expand_dims(tensor, 1)
    shape = (-1, ops.shape(tensor)[1], num_heads, tensor.shape[-1] // num_heads)
    return ops.swapaxes(ops.reshape(tensor, shape), 1, 2)


def _merge_heads(tensor):
    """Reshapes `(B, H, L, d)` to `(B, L, H * d)`."""
    _, num_heads, _, head_dim = tensor.shape
    if num_heads == 1:
        return ops.squeeze(tensor, 1)
    shape = (-1, ops.shape(tensor)[2], num_heads * head_dim)
    return ops.reshape(ops.swapaxes(tensor, 1, 2), shape)


def _matmul_float32(a, b):
    """Matrix product of float32, bfloat16 or float16 tensors, as float32.

    Backend-specific path: JAX can hand out the float32 accumulator. TensorFlow and
    torch accumulate in float32 as well, but round the result once to the inputs' dtype.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, preferred_element_type="float32")
    return ops.cast(ops.matmul(a, b), "float32")
