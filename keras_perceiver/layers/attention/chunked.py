"""Attention over many inputs in chunks, without storing an N x M array.

The forward pass keeps the largest score so far, the sum of exponentials and the sum of
weighted values. A larger score rescales both sums. The backward pass recomputes the
weights of each chunk from the logarithm of the final sum.

Reference:
    [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682);
    [Dao et al., 2022](https://arxiv.org/abs/2205.14135), algorithms 1 and 2.
"""

from dataclasses import dataclass, field
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
from keras_perceiver.layers.attention.problem import PerDevice, device_of
from keras_perceiver.layers.chunks import over_chunks
from keras_perceiver.layers.two_passes import run_two_passes


@dataclass(frozen=True)
class Chunked:
    """Computes attention in memory linear in the number of inputs.

    Args:
        chunk_size: Integer, inputs per chunk, or `None` to derive it from
            `scores_per_chunk`.
        scores_per_chunk: `PerDevice`, scores of one example in a chunk (heads x queries
            x inputs).
    """

    chunk_size: int | None = None
    # CPU: 8 MiB, which fits into the caches of a few cores (measured). The self-attends
    # of the paper, 8 x 512 x 512, are one chunk. GPU: 32 MiB, so that each product
    # keeps the device busy: on an H100 four times as many save a third of the time of
    # training and double its memory. TPU: as on GPU (estimated).
    scores_per_chunk: PerDevice = field(
        default=PerDevice(cpu=2**21, gpu=2**23, tpu=2**23)
    )

    name: ClassVar[str] = "chunked"
    is_fused: ClassVar[bool] = False
    needs: ClassVar[str] = "known lengths on JAX, and no export from PyTorch"

    def supports(self, problem):
        if problem.backend == "jax":  # the number of chunks is part of the program
            return problem.num_scores is not None
        # The backward pass and the loop are written in Python on PyTorch.
        return not (problem.backend == "torch" and problem.is_portable)

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
        dtype = query.dtype
        chunk_size = self.chunk_size
        if chunk_size is None:
            # If the number of queries is unknown, assume the paper's number of latents.
            scores_per_input = num_heads * (query.shape[1] or 512)
            scores = getattr(self.scores_per_chunk, device_of(query))
            chunk_size = max(scores // scores_per_input, 64)
        tensors = {
            "key": key,
            "value": None if value is key else value,
            "scale": inputs_scale,
            "mask": inputs_mask,
        }
        tensors = {name: x for name, x in tensors.items() if x is not None}
        passes = _Passes(tuple(tensors), num_heads, chunk_size, is_causal)
        query = split_heads(query, num_heads)
        outputs = run_two_passes(passes, query, *tensors.values())
        return merge_heads(ops.cast(outputs, dtype))  # (B, N, H * e)


@dataclass(frozen=True)
class _Passes:
    """Forward and backward pass over the chunks.

    Args:
        names: Tuple of strings, names of the tensors other than the query: "key"
            `(B, M, H * d)`, "value" `(B, M, H * e)` unless the keys are the values,
            "scale" and "mask" `(B, M)`, if there are any.
        num_heads: Integer, number of heads H.
        chunk_size: Integer, inputs per chunk.
        is_causal: Boolean.
    """

    names: tuple
    num_heads: int
    chunk_size: int
    is_causal: bool

    def forward(self, query, *tensors):
        """Returns the outputs `(B, H, N, e)` and the log-sums `(B, H, N, 1)`, float32.

        Args:
            query: Tensor of shape `(B, H, N, d)` or `(1, H, N, d)`, scaled already.
            *tensors: The tensors of `names`.
        """
        tensors, query_positions = self._named(query, tensors)
        width = tensors.get("value", tensors["key"]).shape[-1] // self.num_heads
        # One number per query and example, computed from tensors of unknown batch size.
        rows = ops.cast(query[..., :1], "float32")  # (B, H, N, 1)
        if query.shape[0] == 1:
            batch = ops.shape(tensors["key"])[0]
            rows = ops.broadcast_to(rows, (batch, *ops.shape(rows)[1:]))
        outputs = ops.zeros_like(rows) * ops.zeros((width,))  # (B, H, N, e)

        def step(state, chunk):
            shift, total, outputs = state
            key, value = self._load(chunk, query.dtype)
            scores = _scores(query, key, chunk, query_positions)  # (B, H, N, m)
            new_shift = ops.maximum(shift, max_of_rows(scores))
            decay = ops.exp(shift - new_shift)
            weights = ops.exp(scores - new_shift)
            total = total * decay + ops.sum(weights, -1, keepdims=True)
            weights = ops.cast(weights, value.dtype)
            outputs = outputs * decay + matmul_float32(weights, value)
            return (new_shift, total, outputs), ()

        start = (ops.full_like(rows, LOWEST_SHIFT), ops.zeros_like(rows), outputs)
        (shift, total, outputs), _ = over_chunks(step, start, tensors, self.chunk_size)
        total = ops.maximum(total, LOWEST_TOTAL)
        return outputs / total, shift + ops.log(total)

    def backward(self, query, tensors, outputs, log_total, gradient, wanted):
        """Returns the gradients of the query and of the tensors named in `wanted`."""
        named, query_positions = self._named(query, tensors)
        delta = ops.sum(gradient * outputs, -1, keepdims=True)  # (B, H, N, 1)
        gradient = ops.cast(gradient, query.dtype)  # (B, H, N, e)
        is_broadcast = query.shape[0] == 1

        def step(state, chunk):
            key, value = self._load(chunk, query.dtype)
            scores = _scores(query, key, chunk, query_positions)
            weights = ops.exp(scores - log_total)  # (B, H, N, m)
            d_weights = matmul_float32(gradient, ops.swapaxes(value, -1, -2))
            d_scores = ops.cast(weights * (d_weights - delta), query.dtype)
            d_query_of_chunk = matmul_float32(d_scores, key)
            if is_broadcast:
                d_query_of_chunk = ops.sum(d_query_of_chunk, 0, keepdims=True)
            d_query = state[0] + d_query_of_chunk
            if not wanted:
                return (d_query,), ()
            d_scores = ops.swapaxes(d_scores, -1, -2)
            weights = ops.swapaxes(ops.cast(weights, query.dtype), -1, -2)
            d_key = matmul_float32(d_scores, query)  # (B, H, m, d)
            d_value = matmul_float32(weights, gradient)  # (B, H, m, e)
            return (d_query,), self._unload(chunk, d_key, d_value, wanted)

        start = (ops.zeros_like(ops.cast(query, "float32")),)
        (d_query,), gradients = over_chunks(
            step, start, named, self.chunk_size, [named[name] for name in wanted]
        )
        return ops.cast(d_query, query.dtype), gradients

    @property
    def names_with_gradient(self):
        return tuple(name for name in self.names if name != "mask")

    def _named(self, query, tensors):
        """Returns the tensors to chunk by name, and the positions of the queries."""
        named = dict(zip(self.names, tensors, strict=True))
        if not self.is_causal:
            return named, None
        num_queries, num_inputs = ops.shape(query)[2], ops.shape(named["key"])[1]
        named["positions"], query_positions = positions(num_queries, num_inputs)
        return named, query_positions

    def _load(self, chunk, dtype):
        """Scales and masks a chunk, and returns keys and values split into heads."""

        def load(tensor):  # (B, m, H * d)
            if "scale" in chunk:
                tensor = ops.cast(tensor, "float32") * chunk["scale"][..., None]
            tensor = zero_padding(ops.cast(tensor, dtype), chunk.get("mask"))
            return split_heads(tensor, self.num_heads)

        key = load(chunk["key"])
        return key, load(chunk["value"]) if "value" in chunk else key

    def _unload(self, chunk, d_key, d_value, wanted):
        """Returns the gradients of a chunk's tensors from those of keys and values."""
        d_key, d_value = merge_heads(d_key), merge_heads(d_value)
        if "value" in chunk:
            loaded = {"key": d_key, "value": d_value}
        else:
            loaded = {"key": d_key + d_value}
        mask = chunk.get("mask")
        gradients = {"scale": 0.0}
        for name, gradient in loaded.items():
            gradient = zero_padding(gradient, mask)  # (B, m, H * d), float32
            if "scale" in chunk:
                tensor = zero_padding(ops.cast(chunk[name], "float32"), mask)
                gradients["scale"] += ops.sum(gradient * tensor, -1)
                gradient = gradient * chunk["scale"][..., None]
            gradients[name] = ops.cast(gradient, chunk[name].dtype)
        return tuple(gradients[name] for name in wanted)


def _scores(query, key, chunk, query_positions):
    scores = matmul_float32(query, ops.swapaxes(key, -1, -2))  # (B, H, N, m)
    key_positions = chunk.get("positions")
    return mask_scores(
        scores, visible(chunk.get("mask"), key_positions, query_positions)
    )
