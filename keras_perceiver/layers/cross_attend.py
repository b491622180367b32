"""Cross-attention from a fixed number of queries to any number of inputs."""

from __future__ import annotations

from typing import Any

import keras

from keras_perceiver._checks import check_rank
from keras_perceiver.layers.attention import attention_scores
from keras_perceiver.layers.attention_block import AttentionBlock


@keras.saving.register_keras_serializable(package="keras_perceiver")
class CrossAttend(AttentionBlock):
    """Attends from a query array of fixed length to inputs of any length.

    Pre-norm attention from the query to the inputs, then a pre-norm MLP, each with a
    residual connection to the query. This layer lets a Perceiver take hundreds of
    thousands of inputs: compute and memory are linear in their number. If it is
    cheaper, as it always is with one head and the paper's widths, keys and values are
    not computed: the queries are projected to the width of the inputs and attend to the
    normalized inputs themselves. Weights and results are the same.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_heads: Integer, number of attention heads.
        **kwargs: Other arguments of `AttentionBlock` (`qk_dim`, `v_dim`,
            `widening_factor`, `activation`, `dropout`, `use_query_residual`, `is_causal`,
            `use_bias`, `kernel_initializer`) and of `keras.layers.Layer`.

    Call arguments:
        query: Tensor of shape `(batch, num_queries, query_dim)`. If its batch size is
            1, it is broadcast to all examples.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for padding,
            or `None`. Padding has no influence, even if it is NaN.
        inputs_inverse_std: Tensor of shape `(batch, num_inputs)`, the normalization factor
            of each input, to compute it once for several cross-attends with the same
            inputs. `None` to compute it if needed.
        seeds: Result of `draw_seeds`, to repeat the dropout of another call. `None` to
            draw new seeds.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_queries, query_dim)`.

    Raises:
        ValueError: if a size is not positive, if `qk_dim` or `v_dim` is not divisible
            by `num_heads`, or if an argument of the call is not of rank 3.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> pixels = keras.random.normal((2, 1024, 261))
    >>> tuple(CrossAttend(num_heads=1)(latents, pixels).shape)
    (2, 32, 64)
    """

    def __init__(self, num_heads: int = 1, **kwargs: Any) -> None:
        # The statistics of the inputs need full precision. Products are computed in
        # `compute_dtype` all the same.
        super().__init__(num_heads, autocast=False, **kwargs)

    def build(self, query_shape, inputs_shape):
        check_rank("query", query_shape, 3, "(batch, num_queries, query_dim)")
        check_rank("inputs", inputs_shape, 3, "(batch, num_inputs, input_dim)")
        self.inputs_norm = self._norm("inputs_norm", inputs_shape)
        self.build_block(query_shape, inputs_shape)
        self.restore_inner_settings()

    def num_parameters(self, query_dim, input_dim):
        return (
            super().num_parameters(query_dim, input_dim) + 2 * input_dim
        )  # their norm

    def call(
        self,
        query,
        inputs,
        inputs_mask=None,
        inputs_inverse_std=None,
        seeds=None,
        training=None,
    ):
        keys_values = self.keys_values(
            inputs, inputs_mask, query.shape[1], inputs_inverse_std
        )
        return self.attend_to(query, keys_values, seeds, training)

    def scores(self, query, inputs):
        """Returns the attention scores of a call, before the softmax.

        Args:
            query: Tensor of shape `(batch, num_queries, query_dim)`.
            inputs: Tensor of shape `(batch, num_inputs, input_dim)`.

        Returns:
            Float32 tensor of shape `(batch, num_heads, num_queries, num_inputs)`.
        """
        query = keras.ops.cast(query, self.compute_dtype)
        query = self.query(self.query_norm(query))
        key = self.key(self.inputs_norm(inputs))
        return attention_scores(query, key, num_heads=self.num_heads)

    def compute_output_shape(self, query_shape, inputs_shape):
        # Queries may be broadcast to all examples.
        batch_size = inputs_shape[0] if query_shape[0] == 1 else query_shape[0]
        return (batch_size, *query_shape[1:])
