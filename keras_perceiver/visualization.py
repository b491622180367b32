"""What a Perceiver attends to, and what it looks like."""

import math

import numpy as np
from keras import ops

from keras_perceiver.layers import CrossAttend
from keras_perceiver.modalities import Audio, MelSpectrogram, PointCloud
from keras_perceiver.models import Perceiver, PerceiverClassifier

# Inputs whose keys and scores are computed at once.
_CHUNK = 4096
# Scores that `entropy` holds at once, 64 MiB.
_MAX_SCORES = 2**24


def attention_maps(model, inputs):
    """Runs a model on some inputs, to look at what its cross-attends attend to.

    The model stays as it is and keeps nothing. What is returned has the latents before
    each cross-attend and the elements; scores and weights are computed when they are
    asked for, for one cross-attend at a time, on all backends.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), figure 3 and appendix E.

    Args:
        model: `Perceiver` or `PerceiverClassifier`.
        inputs: A batch of what the model reads: an array, or a dict of arrays.

    Returns:
        `AttentionMaps`.

    Raises:
        TypeError: if `model` is of another class.
        ValueError: if the inputs do not fit the model.

    Example:

    >>> model = PerceiverClassifier.from_preset("digits")
    >>> maps = attention_maps(model, np.zeros((2, 8, 8, 1), "float32"))
    >>> weights = maps.weights(cross_attend=0, latents=[0, 3])
    >>> weights["image"].shape  # batch, heads, latents, rows, columns
    (2, 8, 2, 8, 8)
    """
    if isinstance(model, PerceiverClassifier):
        model = model.encoder
    if not isinstance(model, Perceiver):
        raise TypeError(
            "`model` must be a `Perceiver` or a `PerceiverClassifier`. Received: "
            f"model={model!r} of type {type(model).__name__}. Pass one of these."
        )
    model.check_inputs(inputs)
    if not isinstance(inputs, dict):
        inputs = {model.inputs[0].name: inputs}
    dtypes = {x.name: x.dtype for x in model.inputs}
    tensors = {k: ops.convert_to_tensor(inputs[k], dtypes[k]) for k in dtypes}
    elements, mask = model.byte_array(tensors, training=False)
    latents = model.latent_array(elements)
    reads = []
    for layer in model.iterative_attention.sequence():
        if isinstance(layer, CrossAttend):
            reads.append((layer, latents))
            latents = layer(latents, elements, inputs_mask=mask, training=False)
        else:
            latents = layer(latents, training=False)
        # No gradient: torch would keep all activations for one.
        latents = ops.stop_gradient(latents)
    return AttentionMaps(
        modalities=model.byte_array.modalities,
        inputs={k: ops.convert_to_numpy(x) for k, x in tensors.items()},
        elements=ops.stop_gradient(elements),
        mask=None if mask is None else ops.convert_to_numpy(mask),
        reads=reads,
    )


class AttentionMaps:
    """What `attention_maps` returns: its length is the number of cross-attends.

    Attributes:
        inputs: Dict of the raw inputs and masks, NumPy arrays by name.
        grids: Dict from the name of each modality to the number of its elements along
            each axis, such as rows and columns of patches; of point clouds, the points.
    """

    def __init__(self, modalities, inputs, elements, mask, reads):
        self.modalities = modalities
        self.inputs = inputs
        self.grids = {
            name: tuple(
                modality.grid_of(inputs[name].shape[1 : 1 + len(modality.mask_shape)])
            )
            for name, modality in modalities.items()
        }
        self._elements = elements
        self._mask = mask
        self._reads = reads

    def __len__(self):
        return len(self._reads)

    def scores(self, cross_attend, latents=None):
        """Returns the scores before the softmax.

        Memory is that of what is returned: of the 50,176 elements and 512 latents of the
        paper's ImageNet model, 98 MiB an example and head.

        Args:
            cross_attend: Integer, which of the cross-attends, in the order of the calls;
                -1 is the last.
            latents: Integer or sequence of integers, which latents; `None` for all.

        Returns:
            Dict from the name of each modality to a float32 array of shape
            `(batch, heads, latents, *grid)`, minus infinity for what the mask hides.

        Raises:
            IndexError: if there is no such cross-attend or latent.
        """
        return self._by_modality(self._scores(cross_attend, latents))

    def weights(self, cross_attend, latents=None):
        """Returns the attention weights, the softmax of `scores` over all modalities.

        For each head and latent they add up to one over the modalities together, or are
        all zero where an example has no element at all.

        Args:
            cross_attend: As for `scores`.
            latents: As for `scores`.

        Returns:
            As `scores`.

        Raises:
            IndexError: if there is no such cross-attend or latent.
        """
        return self._by_modality(_softmax(self._scores(cross_attend, latents)))

    def entropy(self):
        """Returns how spread the attention is, in nats.

        From zero, all attention on one element, to the logarithm of the number of
        elements, the same attention on all.

        Returns:
            Float32 array of shape `(cross_attends, batch, heads, latents)`.
        """
        entropy = []
        for read, (layer, query) in enumerate(self._reads):
            batch_size, num_inputs = self._elements.shape[:2]
            of_a_latent = batch_size * layer.num_heads * num_inputs
            num_latents, step = query.shape[1], max(_MAX_SCORES // of_a_latent, 1)
            parts = []
            for start in range(0, num_latents, step):
                latents = range(start, min(start + step, num_latents))
                weights = _softmax(self._scores(read, latents))
                logarithms = np.log(np.maximum(weights, np.finfo("float32").tiny))
                parts.append(-np.einsum("bhnm,bhnm->bhn", weights, logarithms))
            entropy.append(np.concatenate(parts, axis=-1))
        return np.stack(entropy)

    def _scores(self, cross_attend, latents):
        """Returns the scores over all elements, `(B, H, N, M)`."""
        layer, query = self._reads[_index("cross_attend", cross_attend, len(self))]
        num_latents = query.shape[1]
        if latents is not None:
            latents = [latents] if isinstance(latents, int) else list(latents)
            chosen = [_index("latents", i, num_latents) for i in latents]
            query = ops.take(query, ops.convert_to_tensor(chosen, "int32"), axis=1)
        batch_size, num_inputs = self._elements.shape[:2]
        shape = (batch_size, layer.num_heads, query.shape[1], num_inputs)
        scores = np.empty(shape, "float32")
        for start in range(0, num_inputs, _CHUNK):
            chunk = layer.scores(query, self._elements[:, start : start + _CHUNK])
            scores[..., start : start + _CHUNK] = ops.convert_to_numpy(chunk)
        if self._mask is not None:
            hidden = np.broadcast_to(~self._mask[:, None, None], shape)
            scores[hidden] = -np.inf
        return scores

    def _by_modality(self, array):
        """Cuts the last axis, all elements, into the grids of the modalities."""
        parts, start = {}, 0
        for name, grid in self.grids.items():
            stop = start + math.prod(grid)
            parts[name] = array[..., start:stop].reshape(*array.shape[:-1], *grid)
            start = stop
        return parts


def _softmax(scores):
    """What `attend` makes of scores before it multiplies; changes them in place."""
    highest = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isfinite(highest), highest, 0)
    weights = np.exp(scores, out=scores)
    total = weights.sum(axis=-1, keepdims=True, dtype="float64")
    weights /= np.where(total > 0, total, 1)
    return weights


def _index(name, index, length):
    if not -length <= index < length:
        raise IndexError(
            f"`{name}` must be in {-length}..{length - 1}. Received: {name}={index}. "
            "Choose one that there is."
        )
    return index % length


def plot_attention(
    maps, cross_attends=None, latents=range(8), example=0, head=0, modality=None
):
    """Draws attention weights as in the figures of the paper.

    One row for each cross-attend, one column for each latent. Maps of images lie over
    the image, those of spectrograms over the spectrogram, those of waveforms under the
    samples; points have the colour of their weight, and of videos and other grids of
    more than two axes the mean over the first ones is shown.

    Args:
        maps: `AttentionMaps`.
        cross_attends: Sequence of integers, which cross-attends; `None` for all.
        latents: Sequence of integers, which latents.
        example: Integer, which example of the batch.
        head: Integer, which head.
        modality: String, which modality; may be left out if there is only one.

    Returns:
        `matplotlib.figure.Figure`. Each map has a scale of its own, from zero to the
        weight that its title gives as a multiple of the weight of even attention.

    Raises:
        ValueError: if there are several modalities and none of them is named.
        ImportError: if matplotlib is not installed.
    """
    if modality is None and len(maps.grids) == 1:
        (modality,) = maps.grids
    if modality not in maps.grids:
        raise ValueError(
            f"`modality` must be one of {sorted(maps.grids)}. Received: "
            f"modality={modality!r}. Choose one of them."
        )
    cross_attends = range(len(maps)) if cross_attends is None else cross_attends
    rows, columns = len(cross_attends), len(latents)
    draw, projection = _drawing(maps, modality, example)
    figure, axes = _pyplot().subplots(
        rows,
        columns,
        squeeze=False,
        figsize=(1.6 * columns + 0.6, 1.8 * rows + 0.4),
        layout="constrained",
        subplot_kw={"projection": projection},
    )
    num_inputs = sum(math.prod(grid) for grid in maps.grids.values())
    for row, read in zip(axes, cross_attends, strict=True):
        weights = maps.weights(read, latents)[modality][example, head]
        for axis, latent, weight in zip(row, latents, weights, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            draw(axis, weight)
            title = f"latent {latent}: {weight.max() * num_inputs:.1f}x"
            axis.set_title(title, fontsize=8)
        # Three axes have no label at the left of them all.
        row[0].annotate(
            f"cross-attend {read + 1}",
            (0, 0.5),
            (-8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            rotation=90,
            fontsize=9,
        )
    figure.suptitle(
        f"Attention to {modality}, and its maximum over even attention", fontsize=11
    )
    return figure


def _drawing(maps, name, example):
    """Returns a function `(axis, weights)` that draws a map, and its projection."""
    grid = maps.grids[name]
    modality = maps.modalities[name]
    raw = maps.inputs[name][example]
    if isinstance(modality, PointCloud):

        def draw(axis, weights):
            shown = np.isfinite(raw[:, :3]).all(axis=-1)
            mask = maps.inputs.get(f"{name}_mask")
            if mask is not None:
                shown &= mask[example]
            x, y, z = raw[shown, :3].T
            axis.scatter(x, y, z, c=weights[shown], s=4, cmap="inferno")
            axis.set_zticks([])

        return draw, "3d"
    if len(grid) == 1:

        def draw(axis, weights):
            axis.fill_between(np.linspace(0, 1, grid[0]), weights, color="tab:orange")
            if raw.ndim == 1 and np.issubdtype(raw.dtype, np.floating):
                samples = axis.twinx()
                samples.plot(np.linspace(0, 1, len(raw)), raw, color="grey", lw=0.3)
                samples.set_axis_off()
            if isinstance(modality, Audio):
                _label_seconds(axis, raw, modality)

        return draw, None
    if isinstance(modality, MelSpectrogram):
        backdrop = ops.convert_to_numpy(modality.spectrogram(raw[None]))[0]
        backdrop, transposed = backdrop.T, True
    else:
        backdrop, transposed = _picture(raw), False

    def draw(axis, weights):
        # Videos and volumes: what is left are the last two axes.
        weights = weights.reshape(-1, *grid[-2:]).mean(axis=0)
        weights = weights.T if transposed else weights
        options = {
            "extent": (0, 1, 0, 1),
            "origin": "lower" if transposed else "upper",
            "aspect": "auto" if transposed else backdrop.shape[0] / backdrop.shape[1],
        }
        axis.imshow(backdrop, cmap="grey", **options)
        axis.imshow(weights, cmap="inferno", alpha=0.65, vmin=0, **options)
        if transposed:
            _label_seconds(axis, raw, modality)

    return draw, None


def _label_seconds(axis, samples, modality):
    seconds = len(samples) / modality.sample_rate
    axis.set_xticks([0, 1], ["0", f"{seconds:.3g} s"], fontsize=8)


def _picture(raw):
    """Makes a picture of an array on a grid: the mean over the first axes, in 0..1."""
    raw = raw.reshape(-1, *raw.shape[-3:]).mean(axis=0)
    raw = raw if raw.shape[-1] == 3 else raw.mean(axis=-1)
    low, high = np.nanmin(raw), np.nanmax(raw)
    return np.nan_to_num((raw - low) / max(high - low, 1e-6))


def plot_entropy(maps, example=0):
    """Draws how spread the attention of each latent is, from read to read.

    Args:
        maps: `AttentionMaps`.
        example: Integer, which example of the batch.

    Returns:
        `matplotlib.figure.Figure` with a thin line for each latent and head, the median
        of all, and a dotted line for even attention.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    entropy = maps.entropy()[:, example].reshape(len(maps), -1)
    num_inputs = sum(math.prod(grid) for grid in maps.grids.values())
    figure, axis = _pyplot().subplots(figsize=(5, 3.5), layout="constrained")
    reads = np.arange(1, len(maps) + 1)
    marker = "o" if len(maps) == 1 else None
    axis.plot(reads, entropy, color="tab:blue", alpha=0.25, lw=0.8, marker=marker)
    median = np.median(entropy, axis=1)
    axis.plot(reads, median, color="tab:red", lw=2, marker="o", label="median")
    axis.axhline(np.log(num_inputs), color="grey", ls=":", label="even attention")
    axis.set(
        xlabel="cross-attend", ylabel="entropy, nats", xticks=reads, ylim=(0, None)
    )
    axis.legend()
    return figure


def plot_architecture(model):
    """Draws a model: what it reads, its layers in order, their widths, what is shared.

    Layers that share their weights have one colour and one number.

    Args:
        model: `Perceiver` or `PerceiverClassifier`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    plt = _pyplot()
    encoder = model.encoder if isinstance(model, PerceiverClassifier) else model
    trunk = encoder.iterative_attention
    layers = trunk.sequence()
    num_latents = encoder.latent_array.num_latents
    latent_dim = encoder.latent_array.latent_dim
    own = [*trunk.cross_attends, *trunk.latent_transformers]
    numbers = {id(layer): i for i, layer in enumerate(own)}

    width = len(layers) + 2 + isinstance(model, PerceiverClassifier)
    figure, axis = plt.subplots(figsize=(1.4 * width, 3.4), layout="constrained")

    def box(x, y, text, colour, height=0.8):
        patch = plt.Rectangle(
            (x - 0.42, y - height / 2), 0.84, height, fc=colour, ec="k"
        )
        axis.add_patch(patch)
        axis.text(x, y, text, ha="center", va="center", fontsize=9)

    def arrow(start, end):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 0.9})

    box(0, 0, f"latent array\n{num_latents:,} x {latent_dim:,}", "#dddddd")
    colours = plt.get_cmap("Pastel1")
    for x, layer in enumerate(layers, start=1):
        colour = colours(numbers[id(layer)] % colours.N)
        weights = f"weights {numbers[id(layer)] + 1}"
        arrow((x - 0.58, 0), (x - 0.42, 0))
        if isinstance(layer, CrossAttend):
            heads = _count(layer.num_heads, "head")
            box(x, 0, f"cross-attend\n{heads}\n{weights}", colour)
            arrow((x, 1.2), (x, 0.4))
        else:
            first = layer.self_attends[0]
            number = _count(len(layer.self_attends), "self-attend")
            heads = _count(first.num_heads, "head")
            box(x, 0, f"{number}\n{heads}\n{weights}", colour)
    if isinstance(model, PerceiverClassifier):
        x = len(layers) + 1
        arrow((x - 0.58, 0), (x - 0.42, 0))
        box(x, 0, f"mean, linear\n{model.num_classes:,} classes", "#dddddd")

    length = (
        "any number" if None in _lengths(encoder) else f"{sum(_lengths(encoder)):,}"
    )
    names = " + ".join(
        f"{name} ({type(modality).__name__})"
        for name, modality in encoder.byte_array.modalities.items()
    )
    last = max(x for x, y in enumerate(layers, 1) if isinstance(y, CrossAttend))
    axis.add_patch(plt.Rectangle((0.5, 1.2), last, 0.5, fc="#cfe8cf", ec="k"))
    dim = trunk.cross_attends[0].key.kernel.shape[0]
    axis.text(
        0.5 + last / 2,
        1.45,
        f"byte array: {length} x {dim:,}   {names}"
        if last > 3
        else f"byte array\n{length} x {dim:,}",
        ha="center",
        va="center",
        fontsize=8,
    )
    axis.set_title(f"{model.name}: {names}, {model.count_params():,} parameters")
    axis.set(xlim=(-0.6, width - 1.3), ylim=(-0.7, 1.9))
    axis.set_axis_off()
    return figure


def _lengths(encoder):
    return [modality.num_inputs for modality in encoder.byte_array.modalities.values()]


def _count(number, noun):
    return f"{number} {noun}{'s' * (number != 1)}"


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib, which is not installed. "
            'Install it with `pip install "keras_perceiver[demo]"`.'
        ) from error
    return plt
