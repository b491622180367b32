"""The decoder of Perceiver IO: output queries attend to the latents."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers import CrossAttend
from keras_perceiver.layers.attention.problem import PerDevice, device_of
from keras_perceiver.layers.attention_block import KeysValues
from keras_perceiver.layers.chunk_map import map_chunks
from keras_perceiver.layers.composite import CompositeLayer, check_template, clone_layer
from keras_perceiver.models.queries import Queries

# Scores of one example in a chunk of outputs (heads x outputs x latents): as many as
# `Chunked` computes at once, for the same reason.
_SCORES_PER_CHUNK = PerDevice(cpu=2**21, gpu=2**23, tpu=2**23)


def decoder_of(template, output_dim, dtype):
    """Returns a new decoder with the settings of a template, for a task.

    Args:
        template: `PerceiverDecoder`, not built.
        output_dim: Integer, width of the outputs of the task.
        dtype: Dtype policy of the task.
    """
    config = {
        **template.get_config(),
        "output_dim": output_dim,
        "name": "decoder",
        "dtype": dtype,
    }
    return type(template).from_config(config)


def assign_body(decoder, other):
    """Assigns the weights of another decoder of the same settings, but for the head."""
    for name in ("queries", "cross_attend"):
        weights = getattr(decoder, name).weights
        for weight, value in zip(weights, getattr(other, name).weights, strict=True):
            weight.assign(value)


def serialized_template(decoder):
    """Returns the config of a decoder, or `None`, for a task: Keras does not build it."""
    config = keras.saving.serialize_keras_object(decoder)
    if config is not None:
        config.pop("build_config", None)
        # Included in those of the task.
        config["config"].pop("inner_settings", None)
    return config


def check_indices(shape, dtype):
    """Raises `ValueError` unless indices of outputs have the right shape and dtype.

    Args:
        shape: Tuple of integers, or `None` for an unknown length.
        dtype: Dtype of any library.
    """
    dtype = keras.backend.standardize_dtype(dtype)
    is_integer = keras.backend.is_int_dtype(dtype)
    if not is_integer or len(shape) != 2 or shape[1] == 0:
        raise ValueError(
            "`indices` must be integers of shape `(batch, num_outputs)`, with at least "
            f"one output. Received: indices of shape {tuple(shape)} and dtype {dtype}. "
            "Pass for example `[[0, 6]]`, two outputs of one example."
        )


def _checked(indices):
    """Returns indices as a tensor, after `check_indices`."""
    indices = ops.convert_to_tensor(indices)
    check_indices(indices.shape, indices.dtype)
    return ops.cast(indices, "int32")


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverDecoder(CompositeLayer):
    """Decodes latents to any number of outputs, one for each query.

    A cross-attend from the queries to the latents, its MLP and a linear layer. An output
    depends on its query and the latents only, so any part of the outputs can be computed
    by itself. Very many are computed chunk by chunk, forward and backward: neither the
    queries nor the scores are ever all in memory. Keys and values of the latents are
    computed once, and queries that do not depend on the example once per batch.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2 and
        appendix E.

    Args:
        queries: `Queries`, such as `LearnedQueries(num_queries=1, query_dim=1024)`.
        cross_attend: `CrossAttend`, not built, with the settings of the cross-attend;
            name and dtype are set by this layer. Defaults to `CrossAttend(num_heads=1)`.
        output_dim: Integer, width of the outputs. Defaults to no linear layer at the end,
            so that outputs have the width of the queries. A task sets it.
        chunk_size: Integer, outputs that are computed at once. Defaults to as many as
            have 2 million attention scores per example, 8 million on GPUs and TPUs.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`, what the encoder has
            attended to, where the queries are made of it; else `None`.
        indices: Integer tensor of shape `(batch, num_outputs)`, the numbers of the outputs
            that are wanted, or `(1, num_outputs)` for the same ones in all examples.
            `None` for all.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_outputs, output_dim)`, float32 if there is an
        `output_dim`.

    Raises:
        TypeError: if `queries` is no query layer, or if `cross_attend` is of another
            class.
        ValueError: if a size is not positive, if `cross_attend` is built, if `inputs`
            are missing, or if `indices` are not integers of the documented shape.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> decoder = PerceiverDecoder(PositionQueries((16, 16), num_bands=6), output_dim=3)
    >>> tuple(decoder(latents).shape)
    (2, 256, 3)
    >>> tuple(decoder(latents, indices=[[0, 255]]).shape)
    (2, 2, 3)
    """

    def __init__(
        self,
        queries: Queries,
        cross_attend: CrossAttend | None = None,
        output_dim: int | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        # As in CrossAttend: the latents keep their digits.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(queries, Queries):
            raise TypeError(
                f"`queries` must be a query layer. Received: queries={queries!r} of type "
                f"{type(queries).__name__}. Pass for example "
                "`keras_perceiver.LearnedQueries(1, 1024)`."
            )
        for name, size in (("output_dim", output_dim), ("chunk_size", chunk_size)):
            if size is not None:
                check_positive(**{name: size})
        cross_attend = CrossAttend() if cross_attend is None else cross_attend
        check_template("cross_attend", cross_attend, CrossAttend)
        self.queries = queries
        self.output_dim = output_dim
        self.chunk_size = chunk_size
        # Serialized, so that the template is no layer inside this one.
        self._template = keras.saving.serialize_keras_object(cross_attend)
        self.cross_attend = clone_layer(cross_attend, "cross_attend", self.dtype_policy)

    def build(self, latents_shape, inputs_shape=None, indices_shape=None):
        input_dim = None if inputs_shape is None else inputs_shape[-1]
        self._check_has_inputs(inputs_shape)
        if not self.queries.built:
            shapes = (inputs_shape,) if self.queries.uses_inputs else ()
            self.queries.build((1, None), *shapes)
        query_dim = self.queries.query_dim(input_dim)
        self.cross_attend.build((None, None, query_dim), latents_shape)
        self.head = None
        if self.output_dim is not None:
            self.head = keras.layers.Dense(
                self.output_dim,
                kernel_initializer="lecun_normal",
                dtype="float32",  # losses need it
                name="head",
            )
            self.head.build((None, None, query_dim))
        self.restore_inner_settings()

    def _check_has_inputs(self, inputs):
        if self.queries.uses_inputs and inputs is None:
            raise ValueError(
                "`inputs` are needed for queries that are made of them. Received: "
                "inputs=None. Pass those that `Perceiver.encode` returns."
            )

    def call(self, latents, inputs=None, indices=None, training=None):
        self._check_has_inputs(inputs)
        layers = [self.cross_attend] + ([] if self.head is None else [self.head])
        rows = {}
        if indices is not None:
            indices = _checked(indices)
        if self.queries.uses_inputs:  # as many as there are inputs, or fewer
            rows["query"] = query = self.queries(indices, inputs)
            num_outputs = ops.shape(query)[1]
        else:
            layers.append(self.queries)
            num_outputs = self.queries.num_queries()
        if indices is None:
            indices = ops.arange(num_outputs, dtype="int32")[None]
        rows["indices"] = indices
        keys_values = self.cross_attend.keys_values(
            latents, num_queries=rows["indices"].shape[1]
        )
        shared = keys_values._asdict()
        is_value_key = keys_values.value is keys_values.key
        if is_value_key:
            del shared["value"]
        shared["seeds"] = self.cross_attend.draw_seeds(training)
        shared = {name: x for name, x in shared.items() if x is not None}

        def decode(rows, shared):
            shared, indices = dict(shared), rows["indices"]
            if (seeds := shared.pop("seeds", None)) is not None:
                # Every chunk draws its own.
                seeds = seeds + ops.cast(indices[0, 0], seeds.dtype)
            if is_value_key:
                shared["value"] = shared["key"]
            query = rows["query"] if "query" in rows else self.queries(indices)
            outputs = self.cross_attend.attend_to(
                query, KeysValues(**shared), seeds, training
            )
            return outputs if self.head is None else self.head(outputs)

        return map_chunks(
            decode,
            rows,
            shared,
            layers,
            self._chunk_size(latents),
            self.compute_dtype if self.head is None else self.head.compute_dtype,
            training,
        )

    def _chunk_size(self, latents):
        if self.chunk_size is not None:
            return self.chunk_size
        scores = getattr(_SCORES_PER_CHUNK, device_of(latents))
        return max(scores // (self.cross_attend.num_heads * latents.shape[1]), 64)

    @property
    def stored_arguments(self):
        return {"cross_attend": dict(self._template)}

    @property
    def separately_stored(self):
        return (self.queries,)

    def scores(self, latents, indices, inputs=None):
        """Returns the attention scores of some outputs before their softmax.

        Args:
            latents: Tensor of shape `(batch, num_latents, latent_dim)`.
            indices: Integer tensor of shape `(1, num_outputs)`.
            inputs: As for a call.

        Returns:
            Float32 tensor of shape `(batch, num_heads, num_outputs, num_latents)`.
        """
        self._check_has_inputs(inputs)
        arguments = (inputs,) if self.queries.uses_inputs else ()
        return self.cross_attend.scores(self.queries(indices, *arguments), latents)

    def macs(self, num_latents, latent_dim, num_inputs=None, input_dim=None):
        """Returns the multiplications-and-additions per example, see `AttentionBlock`.

        Args:
            num_latents: Integer.
            latent_dim: Integer.
            num_inputs: Integer, number of inputs of the encoder, where queries are made
                of them.
            input_dim: Integer, their width.
        """
        num_queries = self.queries.num_queries(num_inputs)
        query_dim = self.queries.query_dim(input_dim)
        block = self.cross_attend.macs(num_queries, num_latents, query_dim, latent_dim)
        return block + num_queries * query_dim * (self.output_dim or 0)

    def compute_output_spec(self, latents, inputs=None, indices=None, training=None):
        input_dim = num_inputs = None
        if self.queries.uses_inputs:
            _, num_inputs, input_dim = inputs.shape
        if indices is not None:
            check_indices(indices.shape, indices.dtype)
        num_outputs = (
            self.queries.num_queries(num_inputs)
            if indices is None
            else indices.shape[1]
        )
        width, dtype = self.queries.query_dim(input_dim), self.compute_dtype
        if self.output_dim is not None:
            width, dtype = self.output_dim, "float32"
        return keras.KerasTensor((latents.shape[0], num_outputs, width), dtype)
