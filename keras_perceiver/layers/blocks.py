"""The Perceiver's building blocks: cross-attend, self-attend, and their repetition."""

import itertools

import keras
from keras import ops

from keras_perceiver._checks import (
    check_divisible,
    check_fraction,
    check_positive,
    check_rank,
)
from keras_perceiver.layers.attention import attend, attention_scores
from keras_perceiver.layers.chunks import over_chunks
from keras_perceiver.layers.norm import LayerNorm
from keras_perceiver.layers.recompute import hand_on, recompute
from keras_perceiver.layers.seeds import DrawnSeed, draw_seed

# Keras' default is 1e-3; the paper's implementation uses 1e-5.
_NORM_EPSILON = 1e-5
# Inputs whose statistics are computed at once.
_STATISTICS_CHUNK = 4096


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
        if dropout:
            self.seed_generator = keras.random.SeedGenerator()

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
        self.mlp_hidden = self._dense("mlp_hidden", hidden_dim, query_shape)
        self.mlp_output = self._dense(
            "mlp_output", query_dim, (*query_shape[:-1], hidden_dim)
        )

    def _dense(self, name, units, shape):
        # A name makes a new initializer in every layer: one shared instance would
        # give them equal weights.
        layer = keras.layers.Dense(
            units,
            kernel_initializer="lecun_normal",
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer

    def _norm(self, name, shape):
        layer = LayerNorm(epsilon=_NORM_EPSILON, dtype=self.dtype_policy, name=name)
        layer.build(shape)
        return layer

    def draw_seeds(self, training):
        """Returns the seeds of one call, of shape `(2, 2)`, or `None` without dropout.

        Drawn before the call and given to it, they make its randomness repeatable:
        rematerialisation and loops need that.
        """
        if not (training and self.dropout):
            return None
        return ops.stack([draw_seed(self.seed_generator) for _ in range(2)])

    def _finish(self, query, attended, seeds, training):
        """From what attention gives, `(B, N, v_dim)`, to the block's output."""
        seeds = (None, None) if seeds is None else (seeds[0], seeds[1])
        query = query + self._drop(self.output_projection(attended), seeds[0])
        hidden = _keep_input_only(
            lambda x: self.mlp_hidden(self.mlp_norm(x)),
            [self.mlp_norm, self.mlp_hidden],
            query,
            training,
        )
        outputs = _keep_input_only(
            lambda x: self.mlp_output(self.activation(x)),
            [self.mlp_output],
            hidden,
            training,
        )
        return query + self._drop(outputs, seeds[1])  # (B, N, D)

    def _drop(self, outputs, seed):
        if seed is None:
            return outputs
        # Not a Dropout layer: that draws its seed where it is called.
        return keras.random.dropout(outputs, self.dropout, seed=DrawnSeed(seed))

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


def _keep_input_only(function, layers, x, training):
    """Returns `function(x)`, whose norms and activations are not kept for the gradient.

    They cost next to nothing to compute again, and half of the memory of training. The
    products that follow are not computed twice: their results are not needed again, and
    compilers leave them out. Torch has none in eager mode, so it keeps everything.

    Args:
        function: Callable of one tensor that calls no layers but `layers`.
        layers: Layers with all weights that `function` reads.
        x: Tensor.
        training: Boolean.
    """
    if not training or keras.backend.backend() == "torch":
        return function(x)
    variables = [weight for layer in layers for weight in layer.weights]

    def run(x, *weights):
        with keras.StatelessScope(zip(variables, weights, strict=True)):
            return function(x)

    return recompute(run, x, *[ops.copy(weight) for weight in variables])


@keras.saving.register_keras_serializable(package="keras_perceiver")
class CrossAttend(_AttentionBlock):
    """Reads an array of any length into a query array of fixed length.

    Pre-norm attention from the query to the inputs, then a pre-norm MLP, each with a
    residual connection to the query. This is the layer that lets a Perceiver take
    hundreds of thousands of elements: compute and memory are linear in their number.

    With N queries of H heads and inputs of width C, an input costs
    `(C + N) * (qk_dim + v_dim)` multiplications if its key and value are computed. The
    projections can also be moved to the side of the query, which then attends to the
    normalised inputs themselves: `2 * H * N * C` multiplications, and no array of the
    size of the inputs in memory besides them. The layer takes the cheaper way; with one
    head and the paper's widths that is always the second. Weights and results are the
    same.

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
        inputs_inverse_std: Tensor of shape `(batch, num_inputs)`, what
            `inverse_std(inputs, inputs_mask)` gives. Spares the work where several
            cross-attends read the same inputs. `None` means to compute it if needed.
        seeds: What `draw_seeds` gives, to repeat the dropout of another call. `None`
            means to draw them.
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
            num_heads,
            qk_dim,
            v_dim,
            widening_factor,
            activation,
            dropout,
            # The statistics of the inputs deserve all the digits that there are; the
            # products are computed in `compute_dtype` all the same.
            **{"autocast": False, **kwargs},
        )

    def build(self, query_shape, inputs_shape):
        check_rank("query", query_shape, 3, "(batch, num_queries, query_dim)")
        check_rank("inputs", inputs_shape, 3, "(batch, num_inputs, input_dim)")
        self.query_norm = self._norm("query_norm", query_shape)
        self.inputs_norm = self._norm("inputs_norm", inputs_shape)
        self._build_block(query_shape, inputs_shape)

    def call(
        self,
        query,
        inputs,
        inputs_mask=None,
        inputs_inverse_std=None,
        seeds=None,
        training=None,
    ):
        query = ops.cast(query, self.compute_dtype)
        normed_query = self.query_norm(query)
        if self.projects_queries(query.shape[1], inputs.shape[2]):
            if inputs_inverse_std is None:
                inputs_inverse_std = inverse_std(inputs, inputs_mask)
            attended = self._attend_to_inputs(
                normed_query, inputs, inputs_mask, inputs_inverse_std
            )
        else:
            if inputs_mask is not None:
                # Before the norm, whose gradient would otherwise carry NaN from padding.
                inputs = ops.where(ops.cast(inputs_mask, "bool")[:, :, None], inputs, 0)
            normed = self.inputs_norm(inputs)
            attended = attend(
                self.query(normed_query),
                self.key(normed),
                self.value(normed),
                num_heads=self.num_heads,
                inputs_mask=inputs_mask,
            )
        seeds = self.draw_seeds(training) if seeds is None else seeds
        return self._finish(query, attended, seeds, training)

    def scores(self, query, inputs):
        """Returns the scores of a call before their softmax, to look at.

        Args:
            query: Tensor of shape `(batch, num_queries, query_dim)`.
            inputs: Tensor of shape `(batch, num_inputs, input_dim)`.

        Returns:
            Float32 tensor of shape `(batch, num_heads, num_queries, num_inputs)`.
        """
        query = self.query(self.query_norm(ops.cast(query, self.compute_dtype)))
        key = self.key(self.inputs_norm(inputs))
        return attention_scores(query, key, num_heads=self.num_heads)

    def projects_queries(self, num_queries, input_dim):
        """Tells whether projecting the queries costs less than keys and values."""
        if num_queries is None or self.key.quantization_mode is not None:
            return False  # an int8 kernel belongs to its layer's own product
        by_inputs = (input_dim + num_queries) * (self.key.units + self.value.units)
        return 2 * self.num_heads * num_queries * input_dim <= by_inputs

    def _attend_to_inputs(self, normed_query, inputs, inputs_mask, inputs_inverse_std):
        """Attention to the inputs themselves, projected on the side of the query.

        With the normalised input x^ = r (x - mean(x)) and the norm's scale g, offset b:

            q . key(x^) = r (p - mean(p)) . x + a constant of q,  p = g * (W_key q)

        The constant drops out of the softmax, and the mean of x out of the product with
        a vector of mean zero. For the same reason the values' mean comes out at the end:

            sum a value(x^) = W_value^T (g * (o - mean(o)) + b) + c_value,  o = sum a r x
        """
        num_queries, num_heads = normed_query.shape[1], self.num_heads
        input_dim = inputs.shape[2]
        scale, offset = (
            ops.cast(x, "float32")
            for x in (self.inputs_norm.gamma, self.inputs_norm.beta)
        )

        def kernel(layer):  # (C, H, d)
            shape = (input_dim, num_heads, layer.units // num_heads)
            return ops.reshape(ops.cast(layer.kernel, self.compute_dtype), shape)

        def centred(x):
            x = ops.cast(x, "float32")
            return x - ops.mean(x, axis=-1, keepdims=True)

        heads = (-1, num_queries, num_heads, self.query.units // num_heads)
        query = ops.reshape(self.query(normed_query), heads)  # (B, N, H, d)
        query = ops.einsum("bnhd,chd->bhnc", query, kernel(self.key))
        # The keys' bias has no effect, in the plain form either; with a gradient of
        # exactly zero Keras has nothing to warn of.
        no_effect = 0.0 * ops.sum(ops.cast(self.key.bias, "float32"))
        query = centred(ops.cast(query, "float32") * scale + no_effect)
        query = ops.reshape(query, (-1, num_heads * num_queries, input_dim))
        outputs = attend(
            ops.cast(query, self.compute_dtype),
            inputs,
            inputs,
            inputs_mask=inputs_mask,
            inputs_scale=inputs_inverse_std,
            scale=(self.query.units // num_heads) ** -0.5,
        )
        outputs = centred(outputs) * scale + offset
        outputs = ops.cast(outputs, self.compute_dtype)
        outputs = ops.reshape(outputs, (-1, num_heads, num_queries, input_dim))
        outputs = ops.einsum("bhnc,chd->bnhd", outputs, kernel(self.value))
        outputs = ops.reshape(outputs, (-1, num_queries, self.value.units))
        outputs = outputs + ops.cast(self.value.bias, self.compute_dtype)
        if inputs_mask is not None:
            # The sum of weights is one, but zero where all inputs are masked.
            has_inputs = ops.any(ops.cast(inputs_mask, "bool"), axis=1)
            outputs = ops.where(has_inputs[:, None, None], outputs, 0)
        return outputs  # (B, N, v_dim)

    def compute_output_shape(self, query_shape, inputs_shape):
        return tuple(query_shape)


def inverse_std(inputs, inputs_mask=None):
    """Returns 1 / (standard deviation of each input): what a LayerNorm multiplies by.

    Args:
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)` or `None`.

    Returns:
        Float32 tensor of shape `(batch, num_inputs)`.
    """
    tensors = {"inputs": inputs}
    if inputs_mask is not None:
        tensors["keep"] = ops.cast(inputs_mask, "bool")

    def step(state, chunk):
        x = ops.cast(chunk["inputs"], "float32")
        if "keep" in chunk:  # NaN in padding has no influence, on gradients either
            x = ops.where(chunk["keep"][:, :, None], x, 0)
        return state, (ops.rsqrt(ops.var(x, axis=-1) + _NORM_EPSILON),)

    _, (result,) = over_chunks(
        step, (), tensors, _STATISTICS_CHUNK, [ops.zeros((1,), "float32")]
    )
    return result


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
        seeds: What `draw_seeds` gives, to repeat the dropout of another call. `None`
            means to draw them.
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

    def call(self, latents, seeds=None, training=None):
        def project(latents):
            normed = self.attention_norm(latents)
            return self.query(normed), self.key(normed), self.value(normed)

        layers = [self.attention_norm, self.query, self.key, self.value]
        query, key, value = _keep_input_only(project, layers, latents, training)
        attended = attend(query, key, value, num_heads=self.num_heads)
        seeds = self.draw_seeds(training) if seeds is None else seeds
        return self._finish(latents, attended, seeds, training)

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
        use_remat: Boolean. `True`: training keeps only the input of each self-attend
            and computes the rest again in the backward pass, dropout included: a third
            more compute for less memory.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        seeds: What `draw_seeds` gives, to repeat the dropout of another call. `None`
            means to draw them.
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
        use_remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive(num_self_attends=num_self_attends)
        self.num_self_attends = num_self_attends
        self.use_remat = use_remat
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

    def draw_seeds(self, training):
        """Returns the seeds of one call, `(num_self_attends, 2, 2)`, or `None`."""
        seeds = [layer.draw_seeds(training) for layer in self.self_attends]
        return None if seeds[0] is None else ops.stack(seeds)

    def call(self, latents, seeds=None, training=None):
        if seeds is None:
            seeds = self.draw_seeds(training)
        for i, layer in enumerate(self.self_attends):
            seed = None if seeds is None else seeds[i]
            if self.use_remat and training:
                latents = _keep_latents_only(layer, latents, seed)
            else:
                latents = layer(latents, seeds=seed, training=training)
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
            "use_remat": self.use_remat,
        }


def _keep_latents_only(self_attend, latents, seed):
    """Returns what a self-attend in training gives, of which only its input is kept."""
    weights = [ops.copy(weight) for weight in self_attend.weights]

    def run(latents, *tensors):
        # The seed comes from outside, so that the dropout of both runs is the same.
        seed = tensors[len(weights)] if tensors[len(weights) :] else None
        return _call_with(
            self_attend, tensors[: len(weights)], latents, seeds=seed, training=True
        )

    return recompute(run, latents, *weights, *([] if seed is None else [seed]))


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
        use_remat: Boolean. `True`: training keeps only the input of each self-attend
            and computes the rest again in the backward pass, dropout included: up to a
            third more compute for less memory.
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
        use_remat=False,
        **kwargs,
    ):
        # As in CrossAttend: the inputs keep their digits.
        super().__init__(**{"autocast": False, **kwargs})
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
        self.use_remat = use_remat

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
                use_remat=use_remat,
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

    def blocks(self):
        """Returns `sequence()` cut into equal blocks, as far as they are equal."""
        blocks = []
        for layer in self.sequence():
            if blocks and isinstance(layer, LatentTransformer) and len(blocks[-1]) == 1:
                follows_read = isinstance(blocks[-1][0], CrossAttend)
                if follows_read:
                    blocks[-1] = (*blocks[-1], layer)
                    continue
            blocks.append((layer,))
        return blocks

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
        latents = ops.cast(latents, self.compute_dtype)
        reads = {"inputs": inputs, "inputs_mask": inputs_mask}
        shape = (latents.shape[1], inputs.shape[2])
        if any(layer.projects_queries(*shape) for layer in self.cross_attends):
            # Once for all cross-attends.
            reads["inputs_inverse_std"] = inverse_std(inputs, inputs_mask)
        for layers, run in itertools.groupby(self.blocks()):
            num_times = len(list(run))
            seeds = [
                tuple(layer.draw_seeds(training) for layer in layers)
                for _ in range(num_times)
            ]
            arguments = (latents, layers, reads, seeds, training)
            if num_times > 1 and _is_traced_by_jax(latents):
                latents = _repeat_jax(*arguments)
            elif num_times > 1 and keras.backend.backend() == "tensorflow":
                repeat = _repeat_tensorflow if training else _loop_tensorflow
                latents = repeat(*arguments)
            else:
                for seeds_of_block in seeds:
                    latents = _run_block(
                        latents, layers, reads, seeds_of_block, training
                    )
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
            "use_remat": self.use_remat,
        }


def _is_traced_by_jax(tensor):
    """Tells whether JAX is compiling: only then does a loop save anything."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(tensor, jax.core.Tracer)


def _run_block(latents, layers, reads, seeds, training):
    """Calls layers in order, the cross-attends with what they read."""
    for layer, seed in zip(layers, seeds, strict=True):
        extra = reads if isinstance(layer, CrossAttend) else {}
        latents = layer(latents, seeds=seed, training=training, **extra)
    return latents


def _repeat_jax(latents, layers, reads, seeds, training):
    """Runs the same layers once for each of `seeds`, as one loop.

    Backend-specific path: XLA compiles the body once, in a fraction of the time, and the
    loop keeps less in memory than the same body written out again and again.
    """
    import jax

    def step(latents, seeds):
        return _run_block(latents, layers, reads, seeds, training), None

    seeds, num_times = jax.tree.map(lambda *x: ops.stack(x), *seeds), len(seeds)
    return ops.scan(step, latents, seeds, num_times)[0]


def _repeat_tensorflow(latents, layers, reads, seeds, training):
    """Runs the same layers once for each of `seeds`, the weights handed on.

    Backend-specific path: see `hand_on`.
    """
    weights = {id(layer): [w.value for w in layer.weights] for layer in layers}
    for i, seeds_of_block in enumerate(seeds):
        for layer, seed in zip(layers, seeds_of_block, strict=True):
            extra = reads if isinstance(layer, CrossAttend) else {}
            own = weights[id(layer)]
            if i < len(seeds) - 1:
                latents, own, weights[id(layer)] = hand_on(latents, own)
            latents = _call_with(
                layer, own, latents, seeds=seed, training=training, **extra
            )
    return latents


def _loop_tensorflow(latents, layers, reads, seeds, training):
    """Runs the same layers once for each of `seeds`, which are `None`, as one loop.

    Backend-specific path: the graph holds the layers once, so a model is traced, exported
    and loaded by a server in a fraction of the time.
    """

    def step(_, latents):
        return _run_block(latents, layers, reads, seeds[0], training)

    return ops.fori_loop(0, len(seeds), step, latents)


def _call_with(layer, weights, *args, **kwargs):
    """Calls a layer with these tensors in the place of its weights."""
    with keras.StatelessScope(zip(layer.weights, weights, strict=True)):
        return layer(*args, **kwargs)
