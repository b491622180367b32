"""The Perceiver in float64 NumPy, written from the equations of the paper.

Jaegle et al., 2021, section 3.1 and appendix. Layer normalization of Ba et al., 2016,
and GELU of Hendrycks and Gimpel, 2016. Nothing here uses the package, except that
weights are read from a model by name.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def weights_of(layer):
    """Maps the name of every sublayer of a block to its float64 weights."""
    names = {"kernel": "kernel", "bias": "bias", "gamma": "scale", "beta": "offset"}
    tables = {}
    for weight in layer.weights:
        path = weight.path.split("/")
        value = np.asarray(weight.numpy(), dtype="float64")
        tables.setdefault(path[-2], {})[names[path[-1]]] = value
    return tables


def layer_norm(x, w):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w["scale"] + w["offset"]


def linear(x, w):
    return x @ w["kernel"] + w.get("bias", 0)


def gelu(x):
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def attention(
    q, k, v, num_heads=1, mask=None, inputs_scale=None, scale=None, is_causal=False
):
    """Attention in a loop over heads and examples."""
    return _attention(q, k, v, num_heads, mask, inputs_scale, scale, is_causal)[0]


def attention_gradients(q, k, v, num_heads=1, mask=None, inputs_scale=None, **options):
    """Gradients of the sum of the squares of `attention`.

    Returns:
        Gradients of `q`, `k`, `v`, and of `inputs_scale` if it is not `None`.
    """
    outputs, kept = _attention(q, k, v, num_heads, mask, inputs_scale, **options)
    d_q, d_k, d_v = (np.zeros_like(x, dtype="float64") for x in (q, k, v))
    factor = np.ones(k.shape[:2]) if inputs_scale is None else inputs_scale
    d_factor = np.zeros(k.shape[:2])
    for b, qk, vs, i, j, weights, scale in kept:
        d_output = 2 * outputs[b, i, vs]
        # Derivative of the softmax: of each weight by each score.
        softmax = np.diag(weights) - np.outer(weights, weights)
        key = k[b, j, qk] * factor[b, j, None]
        value = v[b, j, vs] * factor[b, j, None]
        d_scores = softmax @ (value @ d_output)
        d_q[min(b, len(q) - 1), i, qk] += scale * d_scores @ key
        d_key = scale * np.outer(d_scores, q[min(b, len(q) - 1), i, qk])
        d_value = np.outer(weights, d_output)
        d_k[b, j, qk] += d_key * factor[b, j, None]
        d_v[b, j, vs] += d_value * factor[b, j, None]
        d_factor[b, j] += (d_key * k[b, j, qk]).sum(-1) + (d_value * v[b, j, vs]).sum(
            -1
        )
    return [d_q, d_k, d_v] + [d_factor] * (inputs_scale is not None)


def _attention(q, k, v, num_heads, mask, inputs_scale, scale=None, is_causal=False):
    batch, num_inputs, qk_dim = k.shape
    num_queries, v_dim = q.shape[1], v.shape[-1]
    scale = 1 / math.sqrt(qk_dim // num_heads) if scale is None else scale
    outputs, kept = np.zeros((batch, num_queries, v_dim)), []
    for b in range(batch):
        query = q[b] if len(q) == batch else q[0]
        for h in range(num_heads):
            qk = slice(h * qk_dim // num_heads, (h + 1) * qk_dim // num_heads)
            vs = slice(h * v_dim // num_heads, (h + 1) * v_dim // num_heads)
            for i in range(num_queries):
                last = i + num_inputs - num_queries if is_causal else num_inputs - 1
                j = np.array(
                    [
                        j
                        for j in range(num_inputs)
                        if j <= last and (mask is None or mask[b, j])
                    ],
                    int,
                )
                if not len(j):
                    continue
                factor = 1 if inputs_scale is None else inputs_scale[b, j, None]
                scores = (k[b, j, qk] * factor) @ query[i, qk] * scale
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                outputs[b, i, vs] = weights @ (v[b, j, vs] * factor)
                kept.append((b, qk, vs, i, j, weights, scale))
    return outputs, kept


def _block(x, q_in, kv_in, w, num_heads, mask, use_query_residual=True):
    attended = attention(
        linear(q_in, w["query"]),
        linear(kv_in, w["key"]),
        linear(kv_in, w["value"]),
        num_heads,
        mask,
    )
    x = x * use_query_residual + linear(attended, w["output_projection"])
    hidden = gelu(linear(layer_norm(x, w["mlp_norm"]), w["mlp_hidden"]))
    return x + linear(hidden, w["mlp_output"])


def cross_attend(latents, inputs, w, num_heads=1, mask=None, use_query_residual=True):
    query = layer_norm(latents, w["query_norm"])
    normed = layer_norm(inputs, w["inputs_norm"])
    return _block(latents, query, normed, w, num_heads, mask, use_query_residual)


def self_attend(latents, w, num_heads):
    normed = layer_norm(latents, w["query_norm"])
    return _block(latents, normed, normed, w, num_heads, None)


def fourier_features(grid, num_bands, max_resolution):
    """Position features of a grid, `(prod(grid), len(grid) * (2 * num_bands + 1))`."""
    axes = [np.linspace(-1, 1, n) for n in grid]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(grid))
    return fourier_features_of(x, num_bands, max_resolution)


def fourier_features_of(x, num_bands, max_resolution):
    """Position features of coordinates `(..., axes)`: x, sines, cosines."""
    sines, cosines = [], []
    for axis in range(x.shape[-1]):
        for k in range(num_bands):
            top = max_resolution[axis] / 2
            f = 1 + (top - 1) * k / (num_bands - 1) if num_bands > 1 else 1.0
            sines.append(np.sin(np.pi * f * x[..., axis]))
            cosines.append(np.cos(np.pi * f * x[..., axis]))
    return np.concatenate([x, np.stack(sines + cosines, -1)], -1)


def classifier(images, model, num_heads, share_weights, mask=None):
    """Logits of a `PerceiverClassifier` with two blocks on Fourier-encoded images."""
    encoder = model.encoder
    height, width, channels = encoder.modality.shape
    positions = fourier_features(
        (height, width), encoder.modality.num_bands, (height, width)
    )
    pixels = images.astype("float64").reshape(len(images), -1, channels)
    positions = np.broadcast_to(positions, (*pixels.shape[:2], positions.shape[-1]))
    inputs = np.concatenate([pixels, positions], -1)
    latents = np.asarray(encoder.latent_array.latents.numpy(), "float64")
    latents = np.broadcast_to(latents, (len(images), *latents.shape))
    trunk = encoder.iterative_attention
    cross_heads, self_heads = num_heads
    for block in range(2):
        latents = cross_attend(
            latents, inputs, weights_of(trunk.cross_attends[block]), cross_heads, mask
        )
        transformer = trunk.latent_transformers[0 if share_weights else block]
        for layer in transformer.self_attends:
            latents = self_attend(latents, weights_of(layer), self_heads)
    head = {
        "kernel": np.asarray(model.head.kernel.numpy(), "float64"),
        "bias": np.asarray(model.head.bias.numpy(), "float64"),
    }
    return linear(latents.mean(1), head)


def mel_spectrogram(sounds, sample_rate, num_mel_bins, length, step, lowest, highest):
    """Decibels / 40 + 1 of shape `(B, frames, bins)`, computed frame by frame.

    It uses HTK's mel scale (Young et al., The HTK Book), triangular filters of height
    1, and a Hann window.
    """

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    num_frames = math.ceil(sounds.shape[1] / step)
    padded = np.pad(sounds.astype("float64"), [(0, 0), (0, num_frames * step + length)])
    times = np.arange(length)
    result = np.zeros((len(sounds), num_frames, num_mel_bins))
    for frame in range(num_frames):
        cut = padded[:, frame * step : frame * step + length] * window
        for line in range(1, length // 2 + 1):  # without the mean
            wave = np.exp(-2j * np.pi * line * times / length)
            power = abs(cut @ wave) ** 2 / (window.sum() / 2) ** 2
            where = mel(line * sample_rate / length)
            for b in range(num_mel_bins):
                left, middle, right = (
                    mel(lowest) + (mel(highest) - mel(lowest)) * i / (num_mel_bins + 1)
                    for i in (b, b + 1, b + 2)
                )
                rise = (where - left) / (middle - left)
                fall = (right - where) / (right - middle)
                result[:, frame, b] += max(0, min(rise, fall)) * power
    return 10 * np.log10(result + 1e-8) / 40 + 1
