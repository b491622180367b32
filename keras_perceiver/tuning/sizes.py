"""Parameters, FLOPs and memory of a model that has not been built."""

from typing import NamedTuple

from keras_perceiver.layers import CrossAttend


class Sizes(NamedTuple):
    """What a trial costs.

    Attributes:
        parameters: Integer.
        flops: Integer, of the forward pass per example, see `keras_perceiver.flops`.
        activation_bytes: Integer, an estimate of what training keeps of one batch, for
            the backward pass, and computes with at any time, besides weights.
    """

    parameters: int
    flops: int
    activation_bytes: int


def sizes_of(
    trunk, num_latents, latent_dim, num_inputs, input_dim, num_classes, batch_bytes
):
    """Returns the `Sizes` of a classifier.

    Args:
        trunk: `IterativeAttention`, which need not be built.
        num_latents: Integer.
        latent_dim: Integer.
        num_inputs: Integer, elements per example.
        input_dim: Integer, width of an element.
        num_classes: Integer.
        batch_bytes: Integer, examples that are trained at once times the bytes of a
            number that is computed with.

    Raises:
        ValueError: if a width is not divisible by its number of heads.
    """
    n, d, m, c = num_latents, latent_dim, num_inputs, input_dim
    parameters = n * d + trunk.num_parameters(d, c) + (d + 1) * num_classes
    flops = 2 * trunk.macs(n, m, d, c) + 2 * d * num_classes

    # What the backward passes of this package keep: a residual stream before attention and
    # before the MLP, queries, keys, values, what attention gives, the hidden layer.
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
