"""Attention that stores all scores at once."""

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from keras_perceiver.layers.attention.heads import (
    matmul_float32,
    max_of_rows,
    merge_heads,
    split_heads,
)
from keras_perceiver.layers.attention.masks import (
    LOWEST_SHIFT,
    LOWEST_TOTAL,
    mask_scores,
    positions,
    visible,
    zero_padding,
)
from keras_perceiver.layers.attention.problem import PerDevice


@dataclass(frozen=True)
class Plain:
    """Computes all scores, their softmax, and the product with the values.

    Args:
        max_scores: `PerDevice`, maximum number of scores per example (heads x queries x
            inputs), or `None` for no limit.
    """

    max_scores: PerDevice | None = None

    name: ClassVar[str] = "plain"
    is_fused: ClassVar[bool] = False
    needs: ClassVar[str] = "at most `max_scores` scores per example"

    def supports(self, problem):
        if self.max_scores is None:
            return True
        limit = getattr(self.max_scores, problem.device)
        return problem.num_scores is not None and problem.num_scores <= limit

    def __call__(
        self,
        query,
        key,
        value,
        *,
        num_heads,
        inputs_mask=None,
        inputs_scale=None,
        is_causal=False,
    ):
        def load(tensor):  # (B, M, H * d)
            if inputs_scale is not None:
                tensor = ops.cast(tensor, "float32") * inputs_scale[:, :, None]
            tensor = zero_padding(ops.cast(tensor, query.dtype), inputs_mask)
            return split_heads(tensor, num_heads)

        dtype, num_queries = query.dtype, ops.shape(query)[1]
        num_inputs = ops.shape(key)[1]
        query = split_heads(query, num_heads)  # (B, H, N, d)
        is_value_key = value is key
        key = load(key)
        value = key if is_value_key else load(value)
        scores = matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, M)
        keys, queries = (
            positions(num_queries, num_inputs) if is_causal else (None, None)
        )
        scores = mask_scores(scores, visible(inputs_mask, keys, queries))
        # The softmax does not depend on the shift, which needs no gradient.
        shift = ops.stop_gradient(ops.maximum(max_of_rows(scores), LOWEST_SHIFT))
        weights = ops.exp(scores - shift)
        total = ops.sum(weights, axis=-1, keepdims=True)  # (B, H, N, 1)
        total = ops.maximum(total, LOWEST_TOTAL)
        outputs = matmul_float32(ops.cast(weights, value.dtype), value) / total
        return merge_heads(ops.cast(outputs, dtype))  # (B, N, H * e)
