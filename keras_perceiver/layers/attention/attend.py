"""The single entry point for attention."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_divisible, check_positive, check_rank
from keras_perceiver._typing import Tensor
from keras_perceiver.layers.attention.heads import matmul_float32, split_heads
from keras_perceiver.layers.attention.problem import (
    Problem,
    device_of,
    is_exported,
    length_or_none,
)
from keras_perceiver.layers.attention.table import resolve
from keras_perceiver.layers.portable import is_portable


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int = 1,
    inputs_mask: Tensor | None = None,
    inputs_scale: Tensor | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    kernel: Any = None,
) -> Tensor:
    """Computes exact scaled dot-product attention over any widths and lengths.

    The output of each query is the average of the values, weighted by the softmax of
    `query . key * scale` over all keys. Several kernels compute it with equal results:
    `Plain` stores all scores, `Chunked` processes a few thousand inputs at a time,
    forward and backward, in memory linear in the number of inputs, and others call
    kernels of the backend. A table in `keras_perceiver.layers.attention` chooses the
    kernel by backend, device, dtype, mask and shapes.

    Scores, exponentials and their sum are float32 whatever the dtype of the arguments,
    and the division comes after the product with the values, so that half precision
    only rounds products. A query whose keys are all masked gets zeros.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.

    Args:
        query: Tensor of shape `(batch, num_queries, qk_dim)`, or
            `(1, num_queries, qk_dim)` to broadcast the queries to all examples.
        key: Tensor of shape `(batch, num_inputs, qk_dim)`.
        value: Tensor of shape `(batch, num_inputs, v_dim)`. If it is the same
            object as `key`, it is loaded once.
        num_heads: Integer, number of attention heads, which `qk_dim` and `v_dim` are
            split into.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for keys that
            are not attended to, or `None`.
        inputs_scale: Tensor of shape `(batch, num_inputs)`, a factor for each key and
            value, or `None`. It needs less memory than scaled keys and values.
        scale: Float, factor for the scores. Defaults to `1 / sqrt(qk_dim / num_heads)`.
        is_causal: Boolean. `True`: query `i` attends only to the keys
            `j <= i + num_inputs - num_queries`, so that the last query attends to all keys.
        kernel: Kernel, or name of a kernel. Defaults to that of `use_kernel`, or of the
            table.

    Returns:
        Tensor of shape `(batch, num_queries, v_dim)` and the dtype of `query`.

    Raises:
        ValueError: if a tensor is not of rank 3, if query and key differ in width, if
            batch sizes or numbers of inputs differ, if a width is not divisible by
            `num_heads`, or if `kernel` does not support the arguments.

    Example:

    >>> query = keras.random.normal((2, 5, 8))
    >>> key, value = keras.random.normal((2, 100, 8)), keras.random.normal((2, 100, 6))
    >>> tuple(attend(query, key, value, num_heads=2).shape)
    (2, 5, 6)
    """
    check_positive(num_heads=num_heads)
    is_causal, is_value_key = bool(is_causal), value is key
    query, key = map(ops.convert_to_tensor, (query, key))
    value = key if is_value_key else ops.convert_to_tensor(value)
    _check_shapes(query, key, value, num_heads)
    qk_head_dim = query.shape[-1] // num_heads
    if scale is None:
        scale = 1 / math.sqrt(qk_head_dim)
    if inputs_mask is not None:
        inputs_mask = ops.convert_to_tensor(inputs_mask, "bool")
    if inputs_scale is not None:
        inputs_scale = ops.convert_to_tensor(inputs_scale, "float32")
    problem = Problem(
        backend=keras.backend.backend(),
        device=device_of(query),
        dtype=keras.backend.standardize_dtype(query.dtype),
        num_heads=num_heads,
        num_queries=length_or_none(query.shape[1]),
        num_inputs=length_or_none(key.shape[1]),
        qk_head_dim=qk_head_dim,
        v_head_dim=value.shape[-1] // num_heads,
        has_mask=inputs_mask is not None,
        has_scale=inputs_scale is not None,
        is_causal=is_causal,
        is_portable=is_portable() or is_exported(query, key),
    )
    return resolve(kernel, problem)(
        query * ops.cast(scale, query.dtype),
        key,
        value,
        num_heads=num_heads,
        inputs_mask=inputs_mask,
        inputs_scale=inputs_scale,
        is_causal=is_causal,
    )


def attention_scores(query: Tensor, key: Tensor, *, num_heads: int = 1) -> Tensor:
    """Returns the scores that `attend` takes the softmax of, all in memory at once.

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


def _check_shapes(query, key, value, num_heads):
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        check_rank(name, tensor.shape, 3, "(batch, length, width)")
    received = (
        f"Received: query.shape={tuple(query.shape)}, key.shape={tuple(key.shape)}, "
        f"value.shape={tuple(value.shape)}. "
    )
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(
            f"`query` and `key` must have the same width. {received}"
            "Project both to the same width."
        )
    if _differ(key.shape[0], value.shape[0]) or _differ(key.shape[1], value.shape[1]):
        raise ValueError(
            f"`key` and `value` must have the same batch size and length. {received}"
            "Pass one value per key."
        )
    if query.shape[0] != 1 and _differ(query.shape[0], key.shape[0]):
        raise ValueError(
            "The batch size of `query` must be that of `key`, or 1. "
            f"{received}Pass one set of queries per example, or one for all."
        )
    check_divisible(
        "num_heads", num_heads, qk_dim=query.shape[-1], v_dim=value.shape[-1]
    )


def _differ(a, b):
    """Returns whether two sizes differ, as far as they are known."""
    return isinstance(a, int) and isinstance(b, int) and a != b
