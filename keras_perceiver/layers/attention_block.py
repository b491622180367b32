"""The attention block that all models are built from: pre-norm attention and MLP."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
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
    """Overrides where blocks that are traced in this context apply their projections.

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
    """Keys and values, which are computed once and attended to any number of times.

    Attributes:
        key: Tensor of shape `(batch, num_inputs, qk_dim)`, the keys, or the inputs
            themselves, of shape `(batch, num_inputs, input_dim)`, if the block has
            absorbed its projections.
        value: Tensor of shape `(batch, num_inputs, v_dim)`, the values, or the inputs.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)` or `None`.
        inputs_inverse_std: Float32 tensor of shape `(batch, num_inputs)` if `key` and
            `value` are the inputs themselves, `None` otherwise.
    """

    key: Any
    value: Any
    inputs_mask: Any = None
    inputs_inverse_std: Any = None


class AttentionBlock(CompositeLayer):
    """Pre-norm attention, then a pre-norm MLP, each with a residual connection.

    The base class of `CrossAttend` and `SelfAttend`. `keys_values` computes keys and
    values from inputs, and `attend_to` computes the outputs of queries. A decoder calls
    the first once and the second for each chunk of queries.

    With N queries, H heads and M inputs of width C, keys and values cost
    `M * C * (qk_dim + v_dim)` multiplications, and attention costs
    `N * M * (qk_dim + v_dim)`. Instead, both projections can be absorbed into the
    queries and the outputs. That costs `N * C * (qk_dim + v_dim)` and
    `2 * H * N * M * C` multiplications, and needs no further array of the size of the
    inputs. The block uses the cheaper form. Weights and results are the same.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1;
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), appendix E, for decoders.

    Args:
        num_heads: Integer, number of attention heads.
        qk_dim: Integer, total width of queries and keys over all heads. Defaults to the
            width of the inputs, as in the paper.
        v_dim: Integer, total width of values over all heads. Defaults to `qk_dim`.
        widening_factor: Integer, ratio of the MLP's hidden width to the query's width.
        activation: Activation of the MLP. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of both branches, 0 in the paper.
        use_query_residual: Boolean, whether the query is added to the outputs of
            attention, as in the paper. Decoders of Perceiver IO may not do so.
        is_causal: Boolean. `True`: query i of N attends only to the inputs j of M with
            `j <= i + M - N`, so that the last query attends to all inputs.
        use_bias: Boolean, whether the linear layers have a bias.
        kernel_initializer: Initializer of each kernel of the linear layers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.
    """

    def __init__(
        self,
        num_heads: int = 1,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        widening_factor: int = 1,
        activation: str | Callable = "gelu",
        dropout: float = 0.0,
        use_query_residual: bool = True,
        is_causal: bool = False,
        use_bias: bool = True,
        kernel_initializer: str | keras.Initializer = "lecun_normal",
        **kwargs: Any,
    ) -> None:
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
        """Returns the multiply-accumulates (MACs) of the matrix products per example.

        They are counted as in the paper, for the plain algorithm that computes all keys
        and values. The layer need not be built.

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
        """Creates and builds all sublayers except the norm of the inputs."""
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
        """Returns the seeds of a call, of shape `(2, 2)`, or `None` without dropout.

        With seeds that are drawn before a call and passed to it, its dropout can be
        repeated, as rematerialization and loops need.
        """
        if not (training and self.dropout):
            return None
        return ops.stack([draw_seed(self.seed_generator) for _ in range(2)])

    def absorbs_projections(self, num_queries, num_inputs, input_dim):
        """Returns whether the block absorbs the projections of keys and values.

        Args:
            num_queries: Integer, or `None` if it is unknown.
            num_inputs: Integer, or `None` if it is unknown, which counts as many.
            input_dim: Integer, width of the inputs.
        """
        # The kernel of a quantized layer can only be used by that layer. With a causal
        # mask, the visible inputs, perhaps none, differ from query to query.
        is_quantized = any(x.quantization_mode for x in (self.key, self.value))
        if is_quantized or self.is_causal or not isinstance(num_queries, int):
            return False
        if (override := _absorbs.get()) is not None:
            return override
        total_dim = self.key.units + self.value.units
        # Multiplications per input. Those per query matter with many queries or few
        # inputs.
        absorbed = 2 * self.num_heads * num_queries * input_dim
        projected = (input_dim + num_queries) * total_dim
        if isinstance(num_inputs, int):
            absorbed = absorbed * num_inputs + num_queries * input_dim * total_dim
            projected = projected * num_inputs
        return absorbed <= projected

    def keys_values(
        self, inputs, inputs_mask=None, num_queries=None, inputs_inverse_std=None
    ):
        """Returns the `KeysValues` of the inputs, for `attend_to`.

        Args:
            inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
            inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for
                padding, or `None`.
            num_queries: Integer, total number of queries that will attend to them. If it is
                `None`, keys and values are projected.
            inputs_inverse_std: Result of `inverse_std` for the inputs, or `None`.
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
        """Returns the normalized inputs, which keys and values are projections of."""
        return self.inputs_norm(inputs)

    def attend_to(self, query, keys_values, seeds=None, training=None):
        """Returns the block's outputs, of shape `(batch, num_queries, query_dim)`.

        Args:
            query: Tensor of shape `(batch, num_queries, query_dim)`. If its batch size
                is 1, it is broadcast to all examples, and projected once.
            keys_values: `KeysValues`.
            seeds: Result of `draw_seeds`, or `None` to draw new seeds.
            training: Boolean, whether dropout is active.
        """
        query = ops.cast(query, self.compute_dtype)
        projected = self.query(self.query_norm(query))
        attended = self._attended(projected, keys_values)
        return self._outputs(query, attended, seeds, training)

    def _attended(self, query, keys_values):
        """Returns the attention outputs of projected queries, `(B, N, v_dim)`."""
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
        """Attends to the inputs themselves, with absorbed projections.

        With the normalized input x^ = r (x - mean(x)), and scale g and offset b of the
        norm:

            q . key(x^) = r (p - mean(p)) . x + a constant of q,  p = g * (W_key q)

        The constant cancels in the softmax, and the mean of x in the product with a
        vector of mean zero. For the same reason the mean of the values is subtracted at
        the end:

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
            # The bias of the keys has no effect, as in the plain form. A gradient of
            # exactly zero avoids Keras' warning of missing gradients.
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
            # The weights sum to one, or to zero if all inputs are masked.
            has_inputs = ops.any(ops.cast(inputs_mask, "bool"), axis=1)
            outputs = ops.where(has_inputs[:, None, None], outputs, 0)
        return outputs  # (B, N, v_dim)

    def _outputs(self, query, attended, seeds, training):
        """Returns the outputs of the block from those of attention, `(B, N, v_dim)`."""
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
        # A Dropout layer would draw its seed where it is called.
        return keras.random.dropout(outputs, self.dropout, seed=DrawnSeed(seed))
