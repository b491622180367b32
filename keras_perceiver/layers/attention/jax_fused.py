"""JAX's attention function, which calls cuDNN on NVIDIA GPUs."""

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from keras_perceiver.layers.attention.masks import positions, visible, zero_padding

# cuDNN's kernels take head widths that are multiples of this.
_WIDTH_MULTIPLE = 8


@dataclass(frozen=True)
class JaxFused:
    """Calls `jax.nn.dot_product_attention`.

    Head widths are padded with zeros to the same multiple of 8, which does not change
    the result. A mask needs N x M numbers per example in memory.

    Args:
        implementation: String, `"cudnn"` (on GPU, float16 or bfloat16), or `"xla"`,
            which stores all scores and runs everywhere.
        max_mask: Integer, maximum size N x M of a mask.
    """

    implementation: str = "cudnn"
    max_mask: int = 2**26  # 128 MiB per example

    name: ClassVar[str] = "jax_fused"
    is_fused: ClassVar[bool] = True
    needs: ClassVar[str] = (
        "JAX and, for cuDNN, an NVIDIA GPU (Ampere or later), float16 or bfloat16, known "
        "even lengths, heads of at most 128 (256 from Hopper on), and no export"
    )

    def supports(self, problem):
        if problem.backend != "jax" or problem.num_scores is None:
            return False
        if self.implementation == "xla":
            return True
        if problem.device != "gpu" or problem.is_portable:
            return False
        lengths = (problem.num_queries, problem.num_inputs)
        if any(n % 2 for n in lengths):  # JAX 0.11 cannot differentiate these
            return False
        if (
            _needs_mask(problem.has_mask, problem.is_causal, *lengths)
            and lengths[0] * lengths[1] > self.max_mask
        ):
            return False
        width = _padded(max(problem.qk_head_dim, problem.v_head_dim))
        is_half = problem.dtype in ("float16", "bfloat16")
        return is_half and width <= _max_head_dim()

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
        import jax
        import jax.numpy as jnp

        v_head_dim = value.shape[-1] // num_heads
        width = _padded(max(query.shape[-1] // num_heads, v_head_dim))

        def split(tensor):  # (B, L, H * d) to (B, L, H, d')
            heads = tensor.shape[-1] // num_heads
            tensor = tensor.reshape(*tensor.shape[:2], num_heads, heads)
            return jnp.pad(tensor, [(0, 0)] * 3 + [(0, width - heads)])

        def load(tensor):
            if inputs_scale is not None:
                tensor = tensor.astype("float32") * inputs_scale[:, :, None]
            return split(zero_padding(tensor.astype(query.dtype), inputs_mask))

        batch, num_inputs, _ = key.shape
        num_queries = query.shape[1]
        is_visible = None
        if _needs_mask(inputs_mask is not None, is_causal, num_queries, num_inputs):
            keys = queries = None
            if is_causal:
                keys, queries = positions(num_queries, num_inputs)
            is_visible = visible(inputs_mask, keys, queries)
            is_visible = jnp.broadcast_to(
                is_visible, (is_visible.shape[0], 1, num_queries, num_inputs)
            )
        outputs = jax.nn.dot_product_attention(
            split(jnp.broadcast_to(query, (batch, *query.shape[1:]))),
            load(key),
            load(value),
            mask=is_visible,
            scale=1.0,
            # JAX aligns its causal mask to the left.
            is_causal=is_causal and is_visible is None,
            implementation=self.implementation,
        )
        if is_visible is not None:
            # Otherwise rows without visible inputs would be the average of all values.
            has_inputs = is_visible.any(-1)  # (B, 1, N)
            outputs = ops.where(has_inputs[:, 0, :, None, None], outputs, 0)
        outputs = outputs[..., :v_head_dim]
        return outputs.reshape(batch, num_queries, num_heads * v_head_dim)


def _needs_mask(has_mask, is_causal, num_queries, num_inputs):
    return has_mask or (is_causal and num_queries != num_inputs)


def _padded(width):
    return -(-width // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE


def _max_head_dim():
    """Returns the maximum head width that cuDNN supports on this GPU."""
    import jax

    # "9.0", for example, is Hopper. "gfx942" and the like are GPUs without cuDNN.
    capability = getattr(jax.devices()[0], "compute_capability", "8.0")
    generation = capability.partition(".")[0]
    if not generation.isdigit() or int(generation) < 8:
        return 0
    return 256 if int(generation) >= 9 else 128
