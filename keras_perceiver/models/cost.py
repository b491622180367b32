"""Cost of a model: FLOPs by the paper's convention, parameters, training memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import keras

from keras_perceiver._checks import check_positive
from keras_perceiver.layers import CrossAttend
from keras_perceiver.models.decoder import PerceiverDecoder
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.tasks.base import check_model

if TYPE_CHECKING:
    from keras_perceiver.models.tasks.base import Task


def flops(model: Perceiver | Task, num_inputs: int | None = None) -> int:
    """Counts the floating-point operations of a forward pass per example.

    They are counted as in the tables of the paper: two per multiply-accumulate of every
    matrix product of the plain algorithm, which computes all keys and values, and none
    for biases, norms, activations, softmax, position features, and what turns raw inputs
    into elements (the convolution of `ConvImage`: 0.06 % of that preset). The
    implementation of attention in this package may need fewer.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), tables 5 and 6.

    Args:
        model: `Perceiver`, or a task such as `PerceiverClassifier`.
        num_inputs: Integer, number of input elements of the example. Defaults to the
            maximum, and is required if the model has none.

    Returns:
        Integer, number of floating-point operations.

    Raises:
        TypeError: if `model` is of another class.
        ValueError: if the number of inputs is unknown.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> flops(model) > flops(model.encoder)
    True
    """
    check_model(model)
    encoder = model if isinstance(model, Perceiver) else model.encoder
    if num_inputs is None:
        lengths = {k: m.num_inputs for k, m in encoder.byte_array.modalities.items()}
        unknown = [name for name, length in lengths.items() if length is None]
        if unknown:
            raise ValueError(
                "`num_inputs` is required for inputs of any length. Received: "
                f"num_inputs=None, and {unknown} may have any length. "
                "Pass the number of elements of all modalities together."
            )
        num_inputs = sum(lengths.values())
    check_positive(num_inputs=num_inputs)
    macs = encoder.macs(num_inputs)
    if model is not encoder:
        macs += sum(
            _head_macs(layer, encoder, num_inputs)
            for layer in model.layers
            if layer is not encoder
        )
    return 2 * macs


def _head_macs(layer, encoder, num_inputs):
    """Returns the multiply-accumulates per example of a layer of a head."""
    if isinstance(layer, PerceiverDecoder):
        return layer.macs(*encoder.output_shape[1:], num_inputs, encoder.input_dim)
    if isinstance(layer, keras.layers.Dense):
        # Not from the shape of the kernel, which is packed in a quantized layer.
        return math.prod(layer.input.shape[1:]) * layer.units
    return 0


class Sizes(NamedTuple):
    """Cost of training a model, which need not have been created.

    Attributes:
        parameters: Integer, number of parameters.
        flops: Integer, FLOPs of the forward pass per example, see `flops`.
        activation_bytes: Integer, estimated memory of a training step without weights:
            activations that are kept for the backward pass, and temporary ones.
    """

    parameters: int
    flops: int
    activation_bytes: int


def sizes_of(
    trunk, num_latents, latent_dim, num_inputs, input_dim, num_outputs, batch_bytes
):
    """Returns the `Sizes` of an encoder with a linear head on its mean latent.

    Args:
        trunk: `IterativeAttention`, which need not be built.
        num_latents: Integer, number of latents.
        latent_dim: Integer, width of each latent.
        num_inputs: Integer, elements per example.
        input_dim: Integer, width of an element.
        num_outputs: Integer, width of the head.
        batch_bytes: Integer, examples per training step times the number of bytes of the
            compute dtype.

    Raises:
        ValueError: if a width is not divisible by its number of heads.
    """
    n, d, m, c = num_latents, latent_dim, num_inputs, input_dim
    parameters = n * d + trunk.num_parameters(d, c) + (d + 1) * num_outputs
    flops = 2 * trunk.macs(n, m, d, c) + 2 * d * num_outputs

    # Kept for the backward pass: the residual stream before attention and before the
    # MLP, queries, keys, values, the output of attention, and the hidden layer.
    kept, at_once = m * c, 0
    for layer in trunk.sequence():
        if isinstance(layer, CrossAttend):
            qk_dim, v_dim, hidden_dim = layer.widths(d, c)
            kept += n * (3 * d + qk_dim + 2 * v_dim + hidden_dim)
            continue
        for self_attend in layer.self_attends:
            qk_dim, v_dim, hidden_dim = self_attend.widths(d, d)
            one = n * (3 * d + 2 * qk_dim + 2 * v_dim + hidden_dim)
            kept += n * d if trunk.use_remat else one
            scores = self_attend.num_heads * n * n
            at_once = max(at_once, one + max(scores, m * c, n * min(m, 2048)))
    return Sizes(parameters, flops, batch_bytes * (kept + at_once))
