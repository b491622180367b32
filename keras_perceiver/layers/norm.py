"""Layer normalisation with a backward pass that costs what it should."""

import keras
from keras import ops

from keras_perceiver.layers.recompute import after


class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis: same weights, same values.

    Left to differentiate Keras' layer, XLA on CPU takes as long for the gradients of
    scale and offset as for a matrix product of the whole layer (it sums columns with the
    statistics of every row computed again for each), and TensorFlow keeps half a dozen
    arrays. Here the column sums are products with a row of ones, and the backward pass
    starts from the input alone. On torch, whose own kernel does all that, nothing
    differs from Keras.
    """

    def call(self, inputs):
        if keras.backend.backend() == "torch":
            return self._call_torch(inputs)
        # TensorFlow's custom gradients take tensors for arguments, and not variables.
        weights = map(ops.copy, (self.gamma, self.beta))
        outputs = _differentiable(self.epsilon)(inputs, *weights)
        return ops.cast(outputs, self.compute_dtype)

    def _call_torch(self, inputs):
        """Calls the kernel that Keras' layer calls.

        The width comes from the weights: Keras takes it from the inputs, where it is no
        constant once an ONNX export has traced reshapes.
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
    def normalise(x):
        x = ops.cast(x, "float32")
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        inverse_std = ops.rsqrt(variance + epsilon)
        return centred * inverse_std, inverse_std

    @ops.custom_gradient
    def run(inputs, scale, offset):
        normed, _ = normalise(inputs)
        outputs = normed * ops.cast(scale, "float32") + ops.cast(offset, "float32")

        def backward(gradient):
            normed, inverse_std = normalise(after(gradient, inputs))
            of_normed = gradient * ops.cast(scale, "float32")
            of_inputs = inverse_std * (
                of_normed
                - ops.mean(of_normed, axis=-1, keepdims=True)
                - normed * ops.mean(of_normed * normed, axis=-1, keepdims=True)
            )
            return (
                ops.cast(of_inputs, inputs.dtype),
                ops.cast(_sum_columns(gradient * normed), scale.dtype),
                ops.cast(_sum_columns(gradient), offset.dtype),
            )

        return outputs, backward

    return run


def _sum_columns(x):
    rows = ops.reshape(x, (-1, x.shape[-1]))  # (B * L, D)
    ones = ops.ones_like(rows[:, :1])
    return ops.reshape(ops.matmul(ops.transpose(ones), rows), (-1,))  # (D,)
