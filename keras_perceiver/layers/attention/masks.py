"""Attention masks: which query may attend to which key."""

from keras import ops

# Score of a masked key. It is finite, so that the difference of two scores is not NaN.
MASKED_SCORE = -1e30
# Lower bound of the shift in the softmax. It is far enough above `MASKED_SCORE` that
# the exponential of a masked score is zero even if all keys of a row are masked.
LOWEST_SHIFT = -1e29
# Lower bound of the sum of exponentials. The sum is at least one unless all keys of a
# row are masked. Then the result is zero divided by this bound.
LOWEST_TOTAL = 1e-9


def visible(inputs_mask, key_positions, query_positions):
    """Returns which query may attend to which key.

    Args:
        inputs_mask: Boolean tensor of shape `(B, M)` or `None`.
        key_positions: Integer tensor of shape `(1, M)`, or `None` if not causal.
        query_positions: Integer tensor of shape `(N,)`, or `None` if not causal. A query
            may attend to keys up to its own position.

    Returns:
        Boolean tensor that broadcasts to `(B, H, N, M)`, or `None` if all are visible.
    """
    result = None
    if inputs_mask is not None:
        result = inputs_mask[:, None, None, :]
    if key_positions is not None:
        causal = key_positions[:, None, None, :] <= query_positions[:, None]
        result = causal if result is None else ops.logical_and(result, causal)
    return result


def positions(num_queries, num_inputs):
    """Returns the positions of keys `(1, M)` and queries `(N,)`, aligned to the right.

    The last query has the position of the last key.
    """
    keys = ops.arange(num_inputs, dtype="int32")[None]
    queries = ops.arange(num_queries, dtype="int32") + (num_inputs - num_queries)
    return keys, queries


def zero_padding(tensor, inputs_mask):
    """Sets padding in `(B, M, ...)` to zero, since zero times NaN is NaN in a product."""
    if inputs_mask is None:
        return tensor
    return ops.where(inputs_mask[..., None], tensor, 0)


def mask_scores(scores, is_visible):
    if is_visible is None:
        return scores
    return ops.where(is_visible, scores, MASKED_SCORE)
