"""PyTorch's own attention kernels."""

from dataclasses import dataclass, field
from typing import ClassVar

from keras import ops

from keras_perceiver.layers.attention.heads import merge_heads, split_heads
from keras_perceiver.layers.attention.masks import positions, visible, zero_padding
from keras_perceiver.layers.attention.problem import PerDevice, device_of


@dataclass(frozen=True)
class TorchFused:
    """Calls `torch.nn.functional.scaled_dot_product_attention`, which stores no scores.

    Keys and values are scaled before the call. A causal mask needs N x M booleans in
    memory if the numbers of queries and inputs differ, or if there is padding as well.

    Args:
        devices_with_scale: Tuple of strings, device types on which it supports an
            `inputs_scale`.
        max_causal_mask: Integer, maximum size N x M of a causal mask, or `None` for no
            limit.
        width_multiple: `PerDevice`, multiple to which head widths are padded with zeros.
    """

    devices_with_scale: tuple = ("cpu", "gpu", "tpu")
    max_causal_mask: int | None = None
    # The fast kernels for GPUs read 16 bytes at a time. Other widths use a slow one
    # that stores all scores. Padding with zeros does not change the result.
    width_multiple: PerDevice = field(default=PerDevice(cpu=1, gpu=8, tpu=1))

    name: ClassVar[str] = "torch_fused"
    is_fused: ClassVar[bool] = True
    needs: ClassVar[str] = "PyTorch, and the limits that its arguments set"

    def supports(self, problem):
        if problem.backend != "torch":
            return False
        if problem.has_scale and problem.device not in self.devices_with_scale:
            return False
        if not problem.is_causal or self.max_causal_mask is None:
            return True
        lengths = (problem.num_queries, problem.num_inputs)
        if None in lengths:
            return False
        is_in_memory = problem.has_mask or lengths[0] != lengths[1]
        return not is_in_memory or lengths[0] * lengths[1] <= self.max_causal_mask

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
        import torch

        multiple = getattr(self.width_multiple, device_of(query))

        def split(tensor):  # (B, L, H * d) to (B, H, L, d')
            tensor = split_heads(tensor, num_heads)
            missing = -tensor.shape[-1] % multiple
            return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor

        def load(tensor):
            if inputs_scale is not None:
                tensor = tensor.float() * inputs_scale[:, :, None]
            return split(zero_padding(tensor.to(query.dtype), inputs_mask))

        num_queries, num_inputs = query.shape[1], key.shape[1]
        # PyTorch aligns its causal mask to the left. Lengths that are traced for an
        # export are not integers.
        is_square = is_causal and inputs_mask is None and isinstance(num_inputs, int)
        is_square = is_square and num_queries == num_inputs
        keys = queries = None
        if is_causal and not is_square:
            keys, queries = positions(num_queries, num_inputs)
        is_visible = visible(inputs_mask, keys, queries)
        loaded_key = load(key)
        loaded_value = loaded_key if value is key else load(value)
        loaded_query = split(query.expand(key.shape[0], -1, -1))
        has_inputs = None
        if is_visible is not None:
            # The softmax over no inputs is NaN, so such rows attend to all inputs, and
            # their outputs are set to zero.
            has_inputs = is_visible.any(-1, keepdim=True)
            is_visible = is_visible | ~has_inputs
        outputs = torch.nn.functional.scaled_dot_product_attention(
            loaded_query,
            loaded_key,
            loaded_value,
            attn_mask=is_visible,
            is_causal=is_square,
            scale=1.0,
        )
        if has_inputs is not None:
            outputs = ops.where(has_inputs, outputs, 0)
        return merge_heads(outputs[..., : value.shape[-1] // num_heads])
