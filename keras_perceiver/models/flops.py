"""FLOPs of a model by the paper's convention."""

import math

from keras_perceiver.layers import CrossAttend
from keras_perceiver.models.classifier import PerceiverClassifier
from keras_perceiver.models.perceiver import Perceiver


def flops(model):
    """Counts the floating-point operations of one forward pass of one example.

    The convention of the paper's tables: two per multiplication-and-addition of every
    matrix product of the plain algorithm (all keys and values computed), nothing for
    biases, norms, activations, softmax and position features. It measures the work a
    model asks for; the forms of attention in this package may do less.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), tables 5 and 6.

    Args:
        model: `Perceiver` or `PerceiverClassifier`.

    Returns:
        Integer, number of floating-point operations.

    Raises:
        TypeError: if `model` is of another class.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> flops(model) > flops(model.encoder)
    True
    """
    if isinstance(model, PerceiverClassifier):
        return flops(model.encoder) + 2 * math.prod(model.head.kernel.shape)
    if not isinstance(model, Perceiver):
        raise TypeError(
            "`model` must be a `Perceiver` or a `PerceiverClassifier`. Received: "
            f"model={model!r} of type {type(model).__name__}. Pass one of these."
        )
    num_latents = model.latent_array.num_latents
    num_inputs = math.prod(model.modality.grid)
    macs = 0
    for layer in model.iterative_attention.sequence():
        if isinstance(layer, CrossAttend):
            macs += _block_macs(layer, num_latents, num_inputs)
        else:
            for self_attend in layer.self_attends:
                macs += _block_macs(self_attend, num_latents, num_latents)
    return 2 * macs


def _block_macs(block, num_queries, num_inputs):
    """Multiplications-and-additions of one cross-attend or self-attend."""
    of_queries = (
        block.query,
        block.output_projection,
        block.mlp_hidden,
        block.mlp_output,
    )
    of_inputs = (block.key, block.value)
    qk_dim, v_dim = block.query.units, block.value.units
    return (
        num_queries * sum(math.prod(layer.kernel.shape) for layer in of_queries)
        + num_inputs * sum(math.prod(layer.kernel.shape) for layer in of_inputs)
        + num_queries * num_inputs * (qk_dim + v_dim)
    )
