"""Self-attention among the latents."""

from __future__ import annotations

from typing import Any

import keras

from keras_perceiver._checks import check_rank
from keras_perceiver.layers.attention_block import AttentionBlock, KeysValues
from keras_perceiver.layers.recompute import keep_input_only


@keras.saving.register_keras_serializable(package="keras_perceiver")
class SelfAttend(AttentionBlock):
    """Self-attention among the latents: one layer of a latent Transformer.

    Pre-norm self-attention, then a pre-norm MLP, each with a residual connection. Compute
    is quadratic in the number of latents.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_heads: Integer, number of attention heads.
        **kwargs: Other arguments of `AttentionBlock` (`qk_dim`, `v_dim`,
            `widening_factor`, `activation`, `dropout`, `use_query_residual`, `is_causal`,
            `use_bias`, `kernel_initializer`) and of `keras.layers.Layer`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        latents_mask: Boolean tensor of shape `(batch, num_latents)`, `False` for latents
            that are not attended to, or `None`.
        seeds: Result of `draw_seeds`, to repeat the dropout of another call. `None` to
            draw new seeds.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        ValueError: if a size is not positive, if `qk_dim` or `v_dim` is not divisible
            by `num_heads`, or if `latents` is not of rank 3.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> tuple(SelfAttend(num_heads=8)(latents).shape)
    (2, 32, 64)
    """

    def __init__(self, num_heads: int = 8, **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)

    def build(self, latents_shape):
        check_rank("latents", latents_shape, 3, "(batch, num_latents, latent_dim)")
        self.build_block(latents_shape, latents_shape)
        self.restore_inner_settings()

    def absorbs_projections(self, num_queries, num_inputs, input_dim):
        return False  # there are as many queries as inputs

    def norm_inputs(self, inputs):
        return self.query_norm(inputs)

    def call(self, latents, latents_mask=None, seeds=None, training=None):
        def project(latents):
            normed = self.query_norm(latents)
            return self.query(normed), self.key(normed), self.value(normed)

        layers = [self.query_norm, self.query, self.key, self.value]
        query, key, value = keep_input_only(project, layers, latents, training)
        attended = self._attended(query, KeysValues(key, value, latents_mask))
        return self._outputs(latents, attended, seeds, training)

    def compute_output_shape(self, latents_shape):
        return tuple(latents_shape)
