"""The attention block: pre-norm attention and a pre-norm MLP, of which all is made."""

import contextlib
import contextvars
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_perceiver._checks import check_divisible, check_fraction, check_positive
from keras_perceiver.layers.attention import attend
from keras_perceiver.layers.composite import CompositeLayer, without_seed
from keras_perceiver.layers.norm import NORM_EPSILON, LayerNorm, inverse_std
from keras_perceiver.layers.recompute import keep_input_only
from keras_perceiver.layers.seeds import DrawnSeed, draw_seed

_absorbs = contextvars.ContextVar("absorbs_projections", default=None)


@contextlib.contextmanager
def use_absorbed_projections(is_absorbed):
    """Decides where blocks traced in this context project, in place of their own rule.

    For tests and measurements; see `AttentionBlock.absorbs_projections`.

    Args:
        is_absorbed: Boolean. `True`: keys and values are absorbed into the queries and
            the outputs. `False`: keys and values are computed.
    """
    token = _absorbs.set(is_absorbed)
    try:
        yield
    finally:
        _absorbs.reset(token)


class KeysValues(NamedTuple):
    """What queries attend to: computed once, attended to any number of times.

    Attributes:
        key: Tensor of shape `(batch, num_inputs, qk_dim)`, the keys; or the inputs
            themselves, of shape `(batch, num_inputs, input_dim)`, where the block has
            absorbed its projections.
        value: Tensor of shape `(batch, num_inputs, v_dim)`, the values; or the inputs.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)` or `None`.
        inputs_inverse_std: Float32 tensor of shape `(batch, num_inputs)` where `key` and
            `value` are the inputs themselves, else `None`.
    """

    key: Any
    value: Any
    inputs_mask: Any = None
    inputs_inverse_std: Any = None


class AttentionBlock(CompositeLayer):
    """Pre-norm attention, then a pre-norm MLP, each with a residual connection.

    The one block of the Perceiver family; `CrossAttend` and `SelfAttend` are two ways to
    call it. It works in two steps: `keys_values` turns inputs into what can be attended
    to, and `attend_to` computes the outputs of queries. A decoder calls the first once
    and the second for one group of queries after the other; a cache of keys and values
    stands between the two, and rotary positions act on what the first one projects.

    With N queries of H heads and M inputs of width C, keys and values cost
    `M * C * (qk_dim + v_dim)` multiplications and attention `N * M * (qk_dim + v_dim)`.
    Both projections can be absorbed into the queries and the outputs instead:
    `N * C * (qk_dim + v_dim)` and `2 * H * N * M * C` multiplications, and no array of
    the size of the inputs in memory besides them. The block takes the cheaper way; weights
    and results are the same.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1;
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), appendix E, for a block
        without the residual connection of the query.

    Args:
        num_heads: Integer, number of attention heads.
        qk_dim: Integer, total width of queries and keys over all heads. Defaults to
            the width of the inputs, as in the paper.
        v_dim: Integer, total width of values over all heads. Defaults to `qk_dim`.
        widening_factor: Integer, hidden width of the MLP over the query's width.
        activation: Activation of the MLP. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of both residual branches. The
            paper uses none.
        use_query_residual: Boolean, whether the query is added to the attention's
            outputs, as in the paper. Decoders of Perceiver IO may do without.
        is_causal: Boolean. `True`: of N queries, query i attends to inputs j of M with
            `j <= i + M - N` only, so that the last query attends to all inputs.
        use_bias: Boolean, whether the linear layers have a bias.
        kernel_initializer: Initializer of the kernels of the linear layers. Every kernel
            draws its own values.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.
    """

    def __init__(
        self,
        num_heads=1,
        qk_dim=None,
        v_dim=None,
        widening_factor=1,
        activation="gelu",
        dropout=0.0,
        use_query_residual=True,
        is_causal=False,
        use_bias=True,
        kernel_initializer="lecun_normal",
        **kwargs,
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
        self.use_query_residual = use_query_residual
        self.is_causal = is_causal
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def widths(self, query_dim, input_dim):
        """Returns the widths of queries and keys, of values, and of the MLP.

        Args:
            query_dim: Integer, width of the queries.
            input_dim: Integer, width of the inputs.

        Raises:
            ValueError: if a width is not divisible by the number of heads.
        """
        qk_dim = self.qk_dim or input_dim
        v_dim = self.v_dim or qk_dim
        check_divisible("num_heads", self.num_heads, qk_dim=qk_dim, v_dim=v_dim)
        return qk_dim, v_dim, self.widening_factor * query_dim

    def macs(self, num_queries, num_inputs, query_dim, input_dim):
        """Returns the multiplications-and-additions of the matrix products per example.

        Those of the plain algorithm, which computes all keys and values, as the paper
        counts. Needs no weights.

        Args:
            num_queries: Integer, number of queries.
            num_inputs: Integer, number of inputs.
            query_dim: Integer, width of the queries.
            input_dim: Integer, width of the inputs.
        """
        qk_dim, v_dim, hidden_dim = self.widths(query_dim, input_dim)
        return (
            num_queries * query_dim * (qk_dim + v_dim + 2 * hidden_dim)
            + num_inputs * input_dim * (qk_dim + v_dim)
            + num_queries * num_inputs * (qk_dim + v_dim)
        )

    def num_parameters(self, query_dim, input_dim):
        """Returns the number of parameters, without building the layer.

        Args:
            query_dim: Integer, width of the queries.
            input_dim: Integer, width of the inputs.
        """
        qk_dim, v_dim, hidden_dim = self.widths(query_dim, input_dim)
        kernels = query_dim * (qk_dim + v_dim + 2 * hidden_dim)
        kernels += input_dim * (qk_dim + v_dim)
        biases = 2 * qk_dim + v_dim + hidden_dim + 2 * query_dim
        norms = 2 * query_dim + 2 * query_dim  # scale and offset
        return kernels + norms + self.use_bias * biases

    def build_block(self, query_shape, inputs_shape):
        """Creates and builds all sublayers but the norm of the inputs."""
        query_dim = query_shape[-1]
        qk_dim, v_dim, hidden_dim = self.widths(query_dim, inputs_shape[-1])
        self.query_norm = self._norm("query_norm", query_shape)
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
        layer = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=without_seed(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer

    def _norm(self, name, shape):
        layer = LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype_policy, name=name)
        layer.build(shape)
        return layer

    def draw_seeds(self, training):
        """Returns the seeds of one call, of shape `(2, 2)`, or `None` without dropout.

        Drawn before the call and given to it, they make its randomness repeatable:
        rematerialization and loops need that.
        """
        if not (training and self.dropout):
            return None
        return ops.stack([draw_seed(self.seed_generator) for _ in range(2)])

    def absorbs_projections(self, num_queries, num_inputs, input_dim):
        """Returns whether the block absorbs the projections of keys and values.

        Args:
            num_queries: Integer, or `None` if it is unknown.
            num_inputs: Integer, or `None` if it is unknown: then there are many.
            input_dim: Integer, width of the inputs.
        """
        # The kernel of a quantized layer is for this layer's own product. With a causal
        # mask every query has inputs, and perhaps none, of its own.
        is_quantized = any(x.quantization_mode for x in (self.key, self.value))
        if is_quantized or self.is_causal or not isinstance(num_queries, int):
            return False
        if (override := _absorbs.get()) is not None:
            return override
        total_dim = self.key.units + self.value.units
        # Multiplications per input; those per query count for many queries or few inputs.
        absorbed = 2 * self.num_heads * num_queries * input_dim
        projected = (input_dim + num_queries) * total_dim
        if isinstance(num_inputs, int):
            absorbed = absorbed * num_inputs + num_queries * input_dim * total_dim
            projected = projected * num_inputs
        return absorbed <= projected

    def keys_values(
        self, inputs, inputs_mask=None, num_queries=None, inputs_inverse_std=None
    ):
        """Returns the `KeysValues` of inputs, for `attend_to`.

        Args:
            inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
            inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for
                padding, or `None`.
            num_queries: Integer, how many queries will attend to them in all. `None`
                where it is unknown: keys and values are projected then.
            inputs_inverse_std: What `inverse_std` returns for the inputs, or `None`.
        """
        if self.absorbs_projections(num_queries, inputs.shape[1], inputs.shape[2]):
            if inputs_inverse_std is None:
                inputs_inverse_std = inverse_std(inputs, inputs_mask)
            return KeysValues(inputs, inputs, inputs_mask, inputs_inverse_std)
        if inputs_mask is not None:
            # Before the norm, whose gradient would otherwise carry NaN from padding.
            inputs = ops.where(ops.cast(inputs_mask, "bool")[:, :, None], inputs, 0)
        normed = self.norm_inputs(inputs)
        return KeysValues(self.key(normed), self.value(normed), inputs_mask)

    def norm_inputs(self, inputs):
        """Returns the inputs as the keys' and values' projections take them."""
        return self.inputs_norm(inputs)

    def attend_to(self, query, keys_values, seeds=None, training=None):
        """Returns the block's outputs, of shape `(batch, num_queries, query_dim)`.

        Args:
            query: Tensor of shape `(batch, num_queries, query_dim)`. With a batch of 1,
                the same queries are for all examples, and projected once.
            keys_values: `KeysValues`.
            seeds: What `draw_seeds` returns, or `None` to draw them.
            training: Boolean, whether dropout is active.
        """
        query = ops.cast(query, self.compute_dtype)
        projected = self.query(self.query_norm(query))
        attended = self._attended(projected, keys_values)
        return self._outputs(query, attended, seeds, training)

    def _attended(self, query, keys_values):
        """Returns the averages of values, `(B, N, v_dim)`, for projected queries."""
        if keys_values.inputs_inverse_std is not None:
            return self._attend_to_inputs(query, keys_values)
        return attend(
            query,
            keys_values.key,
            keys_values.value,
            num_heads=self.num_heads,
            inputs_mask=keys_values.inputs_mask,
            is_causal=self.is_causal,
        )

    def _attend_to_inputs(self, query, keys_values):
        """Attention to the inputs themselves: the projections are absorbed.

        With the normalized input x^ = r (x - mean(x)) and the norm's scale g, offset b:

            q . key(x^) = r (p - mean(p)) . x + a constant of q,  p = g * (W_key q)

        The constant drops out of the softmax, and the mean of x out of the product with
        a vector of mean zero. For the same reason the values' mean comes out at the end:

            sum a value(x^) = W_value^T (g * (o - mean(o)) + b) + c_value,  o = sum a r x
        """
        inputs, _, inputs_mask, inputs_scale = keys_values
        num_queries, num_heads = query.shape[1], self.num_heads
        input_dim, head_dim = inputs.shape[2], self.query.units // num_heads
        scale, offset = (
            ops.cast(x, "float32")
            for x in (self.inputs_norm.gamma, self.inputs_norm.beta)
        )

        def kernel(layer):  # (C, H, d)
            shape = (input_dim, num_heads, layer.units // num_heads)
            return ops.reshape(ops.cast(layer.kernel, self.compute_dtype), shape)

        def centered(x):
            x = ops.cast(x, "float32")
            return x - ops.mean(x, axis=-1, keepdims=True)

        query = ops.reshape(
            query, (-1, num_queries, num_heads, head_dim)
        )  # (B, N, H, d)
        query = ops.einsum("bnhd,chd->bhnc", query, kernel(self.key))
        query = ops.cast(query, "float32") * scale
        if self.use_bias:
            # The keys' bias has no effect, in the plain form either; with a gradient of
            # exactly zero Keras has nothing to warn of.
            query = query + 0.0 * ops.sum(ops.cast(self.key.bias, "float32"))
        query = ops.reshape(centered(query), (-1, num_heads * num_queries, input_dim))
        query = ops.cast(query, self.compute_dtype)
        outputs = attend(
            query,
            inputs,
            inputs,
            inputs_mask=inputs_mask,
            inputs_scale=inputs_scale,
            scale=head_dim**-0.5,
        )
        outputs = centered(outputs) * scale + offset
        outputs = ops.cast(outputs, self.compute_dtype)
        outputs = ops.reshape(outputs, (-1, num_heads, num_queries, input_dim))
        outputs = ops.einsum("bhnc,chd->bnhd", outputs, kernel(self.value))
        outputs = ops.reshape(outputs, (-1, num_queries, self.value.units))
        if self.use_bias:
            outputs = outputs + ops.cast(self.value.bias, self.compute_dtype)
        if inputs_mask is not None:
            # The sum of weights is one, but zero where all inputs are masked.
            has_inputs = ops.any(ops.cast(inputs_mask, "bool"), axis=1)
            outputs = ops.where(has_inputs[:, None, None], outputs, 0)
        return outputs  # (B, N, v_dim)

    def _outputs(self, query, attended, seeds, training):
        """Returns the block's outputs for what attention gives, `(B, N, v_dim)`."""
        seeds = self.draw_seeds(training) if seeds is None else seeds
        seeds = (None, None) if seeds is None else (seeds[0], seeds[1])
        attended = self._dropout(self.output_projection(attended), seeds[0])
        query = query + attended if self.use_query_residual else attended
        hidden = keep_input_only(
            lambda x: self.mlp_hidden(self.mlp_norm(x)),
            [self.mlp_norm, self.mlp_hidden],
            query,
            training,
        )
        outputs = keep_input_only(
            lambda x: self.mlp_output(self.activation(x)),
            [self.mlp_output],
            hidden,
            training,
        )
        return query + self._dropout(outputs, seeds[1])  # (B, N, D)

    def _dropout(self, outputs, seed):
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
            "use_query_residual": self.use_query_residual,
            "is_causal": self.is_causal,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
