"""The Perceiver's building blocks: cross-attend, self-attend, and their repetition."""

import keras
from keras import ops

from keras_perceiver._checks import (
    check_divisible,
    check_fraction,
    check_positive,
    check_rank,
)
from keras_perceiver.layers.attention import attend

# Keras' default is 1e-3; the paper's implementation uses 1e-5.
_NORM_EPSILON = 1e-5


class _AttentionBlock(keras.layers.Layer):
    """What `CrossAttend` and `SelfAttend` share: projections, MLP and residuals."""

    def __init__(
        self, num_heads, qk_dim, v_dim, widening_factor, activation, dropout, **kwargs
    ):
        super().__init__(**kwargs)
        check_positive(num_heads=num_heads, widening_factor=widening_factor)
        for name, width in (("qk_dim", qk_dim), ("v_dim", v_dim)):
            if width is not None:
                check_positive(**{name: width})
                check_divisible("num_heads", num_heads, **{name: width})
        check_fraction(dropout=dropout)
        self.num_heads = num_heads
        self.qk_dim = qk_dim
        self.v_dim = v_dim
        self.widening_factor = widening_factor
        self.activation = keras.activations.get(activation)
        self.dropout = dropout

    def _build_block(self, query_shape, inputs_shape):
        """Makes and builds all but the norms of the attention's arguments."""
        query_dim, input_dim = query_shape[-1], inputs_shape[-1]
        qk_dim = self.qk_dim or input_dim
        v_dim = self.v_dim or qk_dim
        check_divisible("num_heads", self.num_heads, qk_dim=qk_dim, v_dim=v_dim)
        hidden_dim = self.widening_factor * query_dim
        self.query = self._dense("query", qk_dim, query_shape)
        self.key = self._dense("key", qk_dim, inputs_shape)
        self.value = self._dense("value", v_dim, inputs_shape)
        self.output_projection = self._dense(
            "output_projection", query_dim, (*query_shape[:-1], v_dim)
        )
        self.mlp_norm = self._norm("mlp_norm", query_shape)
        self.mlp_hidden = self._dense(
            "mlp_hidden", hidden_dim, query_shape, activation=self.activation
        )
        self.mlp_output = self._dense(
            "mlp_output", query_dim, (*query_shape[:-1], hidden_dim)
        )
        # Two layers, so that each has a seed of its own.
        self.attention_dropout = self._dropout("attention_dropout")
        self.mlp_dropout = self._dropout("mlp_dropout")

    def _dense(self, name, units, shape, **kwargs):
        # A name makes a new initializer in every layer: one shared instance would
        # give them equal weights.
        layer = keras.layers.Dense(
            units,
            kernel_initializer="lecun_normal",
            dtype=self.dtype_policy,
            name=name,
            **kwargs,
        )
        layer.build(shape)
        return layer

    def _norm(self, name, shape):
        layer = keras.layers.LayerNormalization(
            epsilon=_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )
        layer.build(shape)
        return layer

    def _dropout(self, name):
        return keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name=name)

    def _run_block(self, query, normed_query, normed_inputs, inputs_mask, training):
        outputs = attend(
            self.query(normed_query),
            self.key(normed_inputs),
            self.value(normed_inputs),
            num_heads=self.num_heads,
            inputs_mask=inputs_mask,
        )
        outputs = self.output_projection(outputs)  # (B, N, D)
        query = query + self.attention_dropout(outputs, training=training)
        outputs = self.mlp_output(self.mlp_hidden(self.mlp_norm(query)))
        return query + self.mlp_dropout(outputs, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qk_dim": self.qk_dim,
            "v_dim": self.v_dim,
            "widening_factor": self.widening_factor,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class CrossAttend(_AttentionBlock):
    """Reads an array of any length into a query array of fixed length.

    Pre-norm attention from the query to the inputs, then a pre-norm MLP, each with a
    residual connection to the query. This is the layer that lets a Perceiver take
    hundreds of thousands of elements: compute and memory are linear in their number.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_heads: Integer, number of attention heads.
        qk_dim: Integer, total width of queries and keys over all heads. Defaults to
            the width of `inputs`, as in the paper.
        v_dim: Integer, total width of values over all heads. Defaults to `qk_dim`.
        widening_factor: Integer, hidden width of the MLP over the query's width.
        activation: Activation of the MLP. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of both residual branches. The
            paper uses none.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: Tensor of shape `(batch, num_queries, query_dim)`.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for padding
            (which then has no influence at all, NaN included), or `None`.
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

    def __init__(
        self,
        num_heads=1,
        qk_dim=None,
        v_dim=None,
        widening_factor=1,
        activation="gelu",
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(
            num_heads, qk_dim, v_dim, widening_factor, activation, dropout, **kwargs
        )

    def build(self, query_shape, inputs_shape):
        check_rank("query", query_shape, 3, "(batch, num_queries, query_dim)")
        check_rank("inputs", inputs_shape, 3, "(batch, num_inputs, input_dim)")
        self.query_norm = self._norm("query_norm", query_shape)
        self.inputs_norm = self._norm("inputs_norm", inputs_shape)
        self._build_block(query_shape, inputs_shape)

    def call(self, query, inputs, inputs_mask=None, training=None):
        if inputs_mask is not None:
            # Before the norm, whose gradient would otherwise carry NaN from padding.
            keep = ops.cast(inputs_mask, "bool")[:, :, None]
            inputs = ops.where(keep, inputs, ops.zeros_like(inputs))
        return self._run_block(
            query,
            self.query_norm(query),
            self.inputs_norm(inputs),
            inputs_mask,
            training,
        )

    def compute_output_shape(self, query_shape, inputs_shape):
        return tuple(query_shape)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class SelfAttend(_AttentionBlock):
    """Lets every latent attend to every latent: one layer of a latent Transformer.

    Pre-norm self-attention (not causal, no mask), then a pre-norm MLP, each with a
    residual connection. Compute is quadratic in the number of latents.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_heads: Integer, number of attention heads.
        qk_dim: Integer, total width of queries and keys over all heads. Defaults to
            the width of `latents`.
        v_dim: Integer, total width of values over all heads. Defaults to `qk_dim`.
        widening_factor: Integer, hidden width of the MLP over the latents' width.
        activation: Activation of the MLP. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of both residual branches. The
            paper uses none.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
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

    def __init__(
        self,
        num_heads=8,
        qk_dim=None,
        v_dim=None,
        widening_factor=1,
        activation="gelu",
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(
            num_heads, qk_dim, v_dim, widening_factor, activation, dropout, **kwargs
        )

    def build(self, latents_shape):
        check_rank("latents", latents_shape, 3, "(batch, num_latents, latent_dim)")
        self.attention_norm = self._norm("attention_norm", latents_shape)
        self._build_block(latents_shape, latents_shape)

    def call(self, latents, training=None):
        normed = self.attention_norm(latents)
        return self._run_block(latents, normed, normed, None, training)

    def compute_output_shape(self, latents_shape):
        return tuple(latents_shape)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LatentTransformer(keras.layers.Layer):
    """A stack of self-attends: the part of a Perceiver that gives it its depth.

    Its cost depends on the number of latents, not on the number of inputs.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_self_attends: Integer, number of `SelfAttend` layers.
        num_heads: Integer, number of attention heads of each.
        qk_dim: Integer, total width of queries and keys over all heads. Defaults to
            the width of `latents`.
        v_dim: Integer, total width of values over all heads. Defaults to `qk_dim`.
        widening_factor: Integer, hidden width of the MLPs over the latents' width.
        activation: Activation of the MLPs. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of every residual branch.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        ValueError: if a size is not positive, if `qk_dim` or `v_dim` is not divisible
            by `num_heads`, or if `latents` is not of rank 3.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> tuple(LatentTransformer(num_self_attends=6)(latents).shape)
    (2, 32, 64)
    """

    def __init__(
        self,
        num_self_attends,
        num_heads=8,
        qk_dim=None,
        v_dim=None,
        widening_factor=1,
        activation="gelu",
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(num_self_attends=num_self_attends)
        self.num_self_attends = num_self_attends
        self.self_attends = [
            SelfAttend(
                num_heads=num_heads,
                qk_dim=qk_dim,
                v_dim=v_dim,
                widening_factor=widening_factor,
                activation=activation,
                dropout=dropout,
                dtype=self.dtype_policy,
                name=f"self_attend_{i}",
            )
            for i in range(num_self_attends)
        ]

    def build(self, latents_shape):
        for self_attend in self.self_attends:
            self_attend.build(latents_shape)

    def call(self, latents, training=None):
        for self_attend in self.self_attends:
            latents = self_attend(latents, training=training)
        return latents

    def compute_output_shape(self, latents_shape):
        return tuple(latents_shape)

    def get_config(self):
        # The self-attends are all alike, so the first one knows the settings.
        settings = self.self_attends[0].get_config()
        for key in ("name", "trainable", "dtype"):
            del settings[key]
        return {
            **super().get_config(),
            "num_self_attends": self.num_self_attends,
            **settings,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class IterativeAttention(keras.layers.Layer):
    """The Perceiver's trunk: latents read the inputs, think, and read them again.

    A sequence of blocks, each a cross-attend to the inputs followed by a latent
    Transformer. With fewer cross-attends than blocks they are spread evenly, the first
    one in the first block.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1, figure 1,
        and table 6 for the arrangements.

    Args:
        num_blocks: Integer, number of latent Transformers in the sequence.
        num_self_attends_per_block: Integer, self-attends in each latent Transformer.
        num_cross_attends: Integer, number of cross-attends, at most `num_blocks`.
            `None` means one per block; 1 gives the encoder of Perceiver IO.
        num_cross_attend_heads: Integer, attention heads of the cross-attends.
        num_self_attend_heads: Integer, attention heads of the self-attends.
        share_weights: Boolean. `True`: the first cross-attend has its own weights, all
            later ones share one set, and all latent Transformers share one set.
            `False`: nothing is shared.
        use_cross_attends_at_start: Boolean. `True`: all cross-attends come first, then
            all latent Transformers. `False`: they are interleaved.
        cross_attend_qk_dim: Integer, total width of the cross-attends' queries and
            keys. Defaults to the width of `inputs`.
        cross_attend_v_dim: Integer, total width of the cross-attends' values. Defaults
            to that of the queries and keys.
        cross_attend_widening_factor: Integer, hidden width of the cross-attends' MLPs
            over the latents' width.
        self_attend_qk_dim: Integer, total width of the self-attends' queries and keys.
            Defaults to the width of `latents`.
        self_attend_v_dim: Integer, total width of the self-attends' values. Defaults
            to that of the queries and keys.
        self_attend_widening_factor: Integer, hidden width of the self-attends' MLPs
            over the latents' width.
        activation: Activation of all MLPs. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of every residual branch. The paper
            uses none.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for padding,
            or `None`.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        ValueError: if a size is not positive, if `num_cross_attends > num_blocks`, or
            if a width is not divisible by its number of heads.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> pixels = keras.random.normal((2, 1024, 261))
    >>> trunk = IterativeAttention(num_blocks=2, num_self_attends_per_block=1)
    >>> tuple(trunk(latents, pixels).shape)
    (2, 32, 64)
    """

    def __init__(
        self,
        num_blocks=8,
        num_self_attends_per_block=6,
        num_cross_attends=None,
        num_cross_attend_heads=1,
        num_self_attend_heads=8,
        share_weights=True,
        use_cross_attends_at_start=False,
        cross_attend_qk_dim=None,
        cross_attend_v_dim=None,
        cross_attend_widening_factor=1,
        self_attend_qk_dim=None,
        self_attend_v_dim=None,
        self_attend_widening_factor=1,
        activation="gelu",
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(
            num_blocks=num_blocks,
            num_self_attends_per_block=num_self_attends_per_block,
            num_cross_attend_heads=num_cross_attend_heads,
            num_self_attend_heads=num_self_attend_heads,
        )
        if num_cross_attends is not None:
            check_positive(num_cross_attends=num_cross_attends)
            if num_cross_attends > num_blocks:
                raise ValueError(
                    "`num_cross_attends` must not exceed `num_blocks`. Received: "
                    f"num_cross_attends={num_cross_attends}, num_blocks={num_blocks}. "
                    f"Set `num_cross_attends` to {num_blocks} or fewer, or to None for "
                    "one per block."
                )
        self.num_blocks = num_blocks
        self.num_self_attends_per_block = num_self_attends_per_block
        self.num_cross_attends = num_cross_attends
        self.num_cross_attend_heads = num_cross_attend_heads
        self.num_self_attend_heads = num_self_attend_heads
        self.share_weights = share_weights
        self.use_cross_attends_at_start = use_cross_attends_at_start
        self.cross_attend_qk_dim = cross_attend_qk_dim
        self.cross_attend_v_dim = cross_attend_v_dim
        self.cross_attend_widening_factor = cross_attend_widening_factor
        self.self_attend_qk_dim = self_attend_qk_dim
        self.self_attend_v_dim = self_attend_v_dim
        self.self_attend_widening_factor = self_attend_widening_factor
        self.activation = keras.activations.get(activation)
        self.dropout = dropout

        num_reads = num_cross_attends or num_blocks
        # The first cross-attend is never shared: the paper found that unstable.
        num_own_cross_attends = min(num_reads, 2) if share_weights else num_reads
        self.cross_attends = [
            CrossAttend(
                num_heads=num_cross_attend_heads,
                qk_dim=cross_attend_qk_dim,
                v_dim=cross_attend_v_dim,
                widening_factor=cross_attend_widening_factor,
                activation=activation,
                dropout=dropout,
                dtype=self.dtype_policy,
                name=f"cross_attend_{i}",
            )
            for i in range(num_own_cross_attends)
        ]
        self.latent_transformers = [
            LatentTransformer(
                num_self_attends=num_self_attends_per_block,
                num_heads=num_self_attend_heads,
                qk_dim=self_attend_qk_dim,
                v_dim=self_attend_v_dim,
                widening_factor=self_attend_widening_factor,
                activation=activation,
                dropout=dropout,
                dtype=self.dtype_policy,
                name=f"latent_transformer_{i}",
            )
            for i in range(1 if share_weights else num_blocks)
        ]

    def build(self, latents_shape, inputs_shape):
        for cross_attend in self.cross_attends:
            cross_attend.build(latents_shape, inputs_shape)
        for latent_transformer in self.latent_transformers:
            latent_transformer.build(latents_shape)

    def sequence(self):
        """Returns the layers in the order of their calls; shared ones come again."""
        num_reads = self.num_cross_attends or self.num_blocks
        reads = [
            self.cross_attends[min(i, len(self.cross_attends) - 1)]
            for i in range(num_reads)
        ]
        transformers = [
            self.latent_transformers[min(i, len(self.latent_transformers) - 1)]
            for i in range(self.num_blocks)
        ]
        if self.use_cross_attends_at_start:
            return reads + transformers
        # Block i * num_blocks // num_reads begins with the i-th cross-attend.
        layers = []
        for i, read in enumerate(reads):
            start = i * self.num_blocks // num_reads
            stop = (i + 1) * self.num_blocks // num_reads
            layers += [read, *transformers[start:stop]]
        return layers

    def call(self, latents, inputs, inputs_mask=None, training=None):
        for layer in self.sequence():
            if isinstance(layer, CrossAttend):
                latents = layer(
                    latents, inputs, inputs_mask=inputs_mask, training=training
                )
            else:
                latents = layer(latents, training=training)
        return latents

    def compute_output_shape(self, latents_shape, inputs_shape):
        return tuple(latents_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "num_self_attends_per_block": self.num_self_attends_per_block,
            "num_cross_attends": self.num_cross_attends,
            "num_cross_attend_heads": self.num_cross_attend_heads,
            "num_self_attend_heads": self.num_self_attend_heads,
            "share_weights": self.share_weights,
            "use_cross_attends_at_start": self.use_cross_attends_at_start,
            "cross_attend_qk_dim": self.cross_attend_qk_dim,
            "cross_attend_v_dim": self.cross_attend_v_dim,
            "cross_attend_widening_factor": self.cross_attend_widening_factor,
            "self_attend_qk_dim": self.self_attend_qk_dim,
            "self_attend_v_dim": self.self_attend_v_dim,
            "self_attend_widening_factor": self.self_attend_widening_factor,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }
