"""The one door to attention: every softmax of the package is behind it."""

import math

import keras
from keras import ops

from keras_perceiver._checks import check_divisible, check_positive, check_rank
from keras_perceiver.layers.chunked_attention import (
    MASKED_SCORE,
    chunked_attention,
    matmul_float32,
    merge_heads,
    split_heads,
)

# More scores than this for one example (H x N x M), and they are not kept for training.
_MAX_PLAIN_SCORES = 2**20
# Scores in a chunk of one example: 8 MiB, which the caches of a few CPU cores hold. The
# self-attends of the paper, 8 x 512 x 512, are one chunk.
_CHUNK_SCORES = 2**21


def attend(
    query, key, value, *, num_heads=1, inputs_mask=None, inputs_scale=None, scale=None
):
    """Exact scaled dot-product attention over any widths and lengths.

    Each query takes the average of the values, weighted by the softmax over all keys of
    `query . key * scale`. There are two forms, which give the same numbers. The plain
    one stores all scores. The chunked one, for more than a million scores an example or
    an unknown number of inputs, works on a few thousand inputs at a time, forward and
    backward; its memory is linear in the number of inputs. On torch without a mask it is
    torch's own fused kernel.

    Scores, exponentials and their sum are float32 whatever the dtype of the arguments,
    and the division comes after the product with the values, so that half precision
    costs only the rounding of products. A query with no key to attend to (all masked)
    gets zeros.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.

    Args:
        query: Tensor of shape `(batch, num_queries, qk_dim)`.
        key: Tensor of shape `(batch, num_inputs, qk_dim)`.
        value: Tensor of shape `(batch, num_inputs, v_dim)`. Where it is `key` itself,
            the chunked form reads it once.
        num_heads: Integer, number of attention heads. Splits `qk_dim` and `v_dim`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for keys
            that must have no influence, or `None`.
        inputs_scale: Tensor of shape `(batch, num_inputs)`, a factor of each key and
            value, or `None`. Costs less memory than scaled keys and values.
        scale: Float, factor of the scores. Defaults to `1 / sqrt(qk_dim / num_heads)`.

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
    is_value_key = value is key
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
    if scale is None:
        scale = 1 / math.sqrt(qk_dim // num_heads)
    if inputs_mask is not None:
        inputs_mask = ops.convert_to_tensor(inputs_mask, "bool")
    if inputs_scale is not None:
        inputs_scale = ops.convert_to_tensor(inputs_scale, "float32")

    dtype = query.dtype
    query = split_heads(query * ops.cast(scale, dtype), num_heads)  # (B, H, N, qk)
    num_queries, num_inputs = query.shape[2], key.shape[1]
    if _is_fused(inputs_mask, inputs_scale):
        outputs = _fused_attention(query, key, value)
    elif _is_plain(num_heads, num_queries, num_inputs):
        outputs = _plain_attention(query, key, value, inputs_mask, inputs_scale)
    else:
        outputs = chunked_attention(
            query,
            key,
            None if is_value_key else value,
            num_heads=num_heads,
            chunk_size=_chunk_size(num_heads, num_queries),
            keep=inputs_mask,
            scale=inputs_scale,
        )
    return merge_heads(ops.cast(outputs, dtype))  # (B, N, H * v)


def attention_scores(query, key, *, num_heads=1):
    """Returns the scores of which `attend` takes the softmax, all in memory at once.

    Args:
        query: Tensor of shape `(batch, num_queries, qk_dim)`.
        key: Tensor of shape `(batch, num_inputs, qk_dim)`.
        num_heads: Integer, number of attention heads.

    Returns:
        Float32 tensor of shape `(batch, num_heads, num_queries, num_inputs)`.
    """
    query, key = split_heads(query, num_heads), split_heads(key, num_heads)
    scores = matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, M)
    return scores / math.sqrt(query.shape[-1])


def _is_fused(inputs_mask, inputs_scale):
    """Tells whether the backend has a kernel of its own for this."""
    is_simple = inputs_mask is None and inputs_scale is None
    return is_simple and keras.backend.backend() == "torch"


def _is_plain(num_heads, num_queries, num_inputs):
    """Tells whether all scores may be in memory at once."""
    if isinstance(num_queries, int) and isinstance(num_inputs, int):
        return num_heads * num_queries * num_inputs <= _MAX_PLAIN_SCORES
    # JAX knows all lengths when it runs; its symbolic ones cannot be cut into chunks.
    return keras.backend.backend() == "jax"


def _chunk_size(num_heads, num_queries):
    return max(_CHUNK_SCORES // (num_heads * (num_queries or 512)), 64)


def _plain_attention(query, key, value, keep, scale):
    """Attention of `(B, H, N, qk)` queries, all scores at once."""
    num_heads = query.shape[1]
    if scale is not None:
        key, value = (ops.cast(x, "float32") * scale[:, :, None] for x in (key, value))
    key, value = (ops.cast(x, query.dtype) for x in (key, value))
    if keep is not None:
        # Zero times NaN is NaN: padding must not reach a product. Zero values also make
        # the output of a query with no key at all exactly zero.
        key, value = (ops.where(keep[:, :, None], x, 0) for x in (key, value))
    key, value = split_heads(key, num_heads), split_heads(value, num_heads)
    scores = matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, M)
    if keep is not None:
        scores = ops.where(keep[:, None, None, :], scores, MASKED_SCORE)
    # The softmax does not depend on the shift, so no gradient has to flow through it.
    shift = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - shift)
    total = ops.sum(weights, axis=-1, keepdims=True)  # (B, H, N, 1)
    return matmul_float32(ops.cast(weights, value.dtype), value) / total


def _fused_attention(query, key, value):
    """Backend-specific path: torch's own kernel is exact, and stores no scores either.

    It has no factors of keys, and with a mask gives NaN where a query has no key at all.
    """
    import torch

    num_heads = query.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        query, split_heads(key, num_heads), split_heads(value, num_heads), scale=1.0
    )
