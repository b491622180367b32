"""Layer normalization with a fast backward pass, and input statistics."""

import keras
from keras import ops

from keras_perceiver.layers.chunks import over_chunks
from keras_perceiver.layers.portable import custom_gradient
from keras_perceiver.layers.recompute import after

# Keras' default is 1e-3; the paper's implementation uses 1e-5.
NORM_EPSILON = 1e-5
# Number of inputs whose statistics are computed at once.
_STATISTICS_CHUNK = 4096


class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis: same weights, same values.

    When Keras' layer is differentiated, XLA on CPU takes as long for the gradients of
    scale and offset as for a matrix product of the whole layer, because it recomputes
    the statistics of every row for each column sum, and TensorFlow keeps half a dozen
    arrays. Here the column sums are products with a row of ones, and the backward pass
    needs the input only. On PyTorch, whose own kernel is efficient, nothing differs
    from Keras.
    """

    def call(self, inputs):
        if keras.backend.backend() == "torch":
            return self._call_torch(inputs)
        # TensorFlow's custom gradients take tensors, but no variables.
        weights = map(ops.copy, (self.gamma, self.beta))
        outputs = _differentiable(self.epsilon)(inputs, *weights)
        return ops.cast(outputs, self.compute_dtype)

    def _call_torch(self, inputs):
        """Calls the kernel that Keras' layer calls.

        The width is that of the weights. Keras takes it from the inputs, where it is
        not a constant once an ONNX export has traced reshapes.
        """
        import torch

        outputs = torch.nn.functional.layer_norm(
            inputs.float(),
            tuple(self.gamma.shape),
            ops.cast(self.gamma, "float32"),
            ops.cast(self.beta, "float32"),
            self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)


def _differentiable(epsilon):
    def normalize(x):
        x = ops.cast(x, "float32")
        centered = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
        inverse_std = ops.rsqrt(variance + epsilon)
        return centered * inverse_std, inverse_std

    @custom_gradient
    def run(inputs, scale, offset):
        normed, _ = normalize(inputs)
        outputs = normed * ops.cast(scale, "float32") + ops.cast(offset, "float32")

        def backward(gradient):
            normed, inverse_std = normalize(after(gradient, inputs))
            d_normed = gradient * ops.cast(scale, "float32")
            d_inputs = inverse_std * (
                d_normed
                - ops.mean(d_normed, axis=-1, keepdims=True)
                - normed * ops.mean(d_normed * normed, axis=-1, keepdims=True)
            )
            return (
                ops.cast(d_inputs, inputs.dtype),
                ops.cast(_sum_columns(gradient * normed), scale.dtype),
                ops.cast(_sum_columns(gradient), offset.dtype),
            )

        return outputs, backward

    return run


def _sum_columns(x):
    rows = ops.reshape(x, (-1, x.shape[-1]))  # (B * L, D)
    ones = ops.ones_like(rows[:, :1])
    return ops.reshape(ops.matmul(ops.transpose(ones), rows), (-1,))  # (D,)


def inverse_std(inputs, inputs_mask=None):
    """Returns the inverse standard deviation of each input, the factor of a LayerNorm.

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
        if "keep" in chunk:  # NaN in padding must not affect gradients
            x = ops.where(chunk["keep"][:, :, None], x, 0)
        if 0 in x.shape:  # PyTorch warns of the variance of an empty tensor
            return state, (x[:, :, 0],)
        return state, (ops.rsqrt(ops.var(x, axis=-1) + NORM_EPSILON),)

    _, (result,) = over_chunks(
        step, (), tensors, _STATISTICS_CHUNK, [ops.zeros((1,), "float32")]
    )
    return result
