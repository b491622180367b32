"""Parameters, FLOPs and memory of a model that has not been built."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """What a trial costs.

    Attributes:
        parameters: Integer.
        flops: Integer, of the forward pass of one example, see `keras_perceiver.flops`.
        activation_bytes: Integer, an estimate of what training keeps of one batch, for
            the backward pass, and computes with at any time, besides weights.
    """

    parameters: int
    flops: int
    activation_bytes: int


def sizes_of(settings, num_inputs, input_dim, num_classes, batch_size, num_bytes):
    """Returns the `Sizes` of a classifier.

    Args:
        settings: Dict of arguments of `Perceiver`, all but the modality; those left out
            have their defaults.
        num_inputs: Integer, elements of an example.
        input_dim: Integer, width of an element.
        num_classes: Integer.
        batch_size: Integer, examples that are trained at once.
        num_bytes: Integer, of a number that is computed with.
    """
    n, d, m, c = settings["num_latents"], settings["latent_dim"], num_inputs, input_dim
    num_blocks = settings["num_blocks"]
    num_reads = settings.get("num_cross_attends") or num_blocks
    num_self_attends = num_blocks * settings["num_self_attends_per_block"]
    share = settings.get("share_weights", True)
    heads = settings.get("num_self_attend_heads", 8)

    def widths(kind, default):
        qk_dim = settings.get(f"{kind}_qk_dim") or default
        v_dim = settings.get(f"{kind}_v_dim") or qk_dim
        return qk_dim, v_dim, d * settings.get(f"{kind}_widening_factor", 1)

    qk, v, hidden = widths("cross_attend", c)
    own_qk, own_v, own_hidden = widths("self_attend", d)
    read = _parameters(d, c, qk, v, hidden, num_norms=2, num_queries=n, num_inputs=m)
    think = _parameters(
        d, d, own_qk, own_v, own_hidden, num_norms=1, num_queries=n, num_inputs=n
    )
    num_own_reads = min(num_reads, 2) if share else num_reads
    num_own_thoughts = settings["num_self_attends_per_block"] * (
        1 if share else num_blocks
    )
    parameters = (
        n * d
        + num_own_reads * read[0]
        + num_own_thoughts * think[0]
        + (d + 1) * num_classes
    )
    flops = num_reads * read[1] + num_self_attends * think[1] + 2 * d * num_classes

    # What the backward passes of this package keep: a residual stream before attention and
    # before the MLP, queries, keys, values, what attention gives, the hidden layer.
    kept = m * c
    kept += num_reads * n * (3 * d + qk + 2 * v + hidden)
    one = n * (3 * d + 2 * own_qk + 2 * own_v + own_hidden)
    use_remat = settings.get("use_remat", False)
    kept += num_self_attends * (n * d if use_remat else one)
    at_once = one + max(heads * n * n, m * c, n * min(m, 2048))
    return Sizes(parameters, flops, batch_size * num_bytes * (kept + at_once))


def _parameters(d, c, qk, v, hidden, num_norms, num_queries, num_inputs):
    """Returns parameters and FLOPs of a cross-attend or self-attend."""
    matrices_of_queries = d * qk + v * d + 2 * d * hidden
    matrices_of_inputs = c * (qk + v)
    biases = 2 * qk + v + d + hidden + d
    norms = 2 * d * 2 + (2 * c if num_norms == 2 else 0)
    macs = (
        num_queries * matrices_of_queries
        + num_inputs * matrices_of_inputs
        + num_queries * num_inputs * (qk + v)
    )
    return matrices_of_queries + matrices_of_inputs + biases + norms, 2 * macs
