"""Figures of attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.modalities.drawing import scale_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_perceiver.visualization.maps import AttentionMaps


def plot_attention(
    maps: AttentionMaps,
    cross_attends: Sequence[int] | None = None,
    latents: Sequence[int] | None = None,
    example: int = 0,
    head: int = 0,
    modality: str | None = None,
) -> Figure:
    """Draws attention weights as in the figures of the paper.

    There is one row per cross-attend: the example, then a column per latent. Weights are
    drawn over images and spectrograms, under waveforms, and as the colors of points. For
    videos and other grids with more than two axes, the mean over the first axes is shown.

    Args:
        maps: `AttentionMaps`.
        cross_attends: Sequence of integers, indices of cross-attends. Defaults to all.
        latents: Sequence of integers, indices of latents. Defaults to the first six.
        example: Integer, index of the example in the batch.
        head: Integer, index of the head.
        modality: String, name of the modality. It is optional if there is only one.

    Returns:
        `matplotlib.figure.Figure`. The maps of a row have the same scale, in multiples of
        uniform attention: equal weights on all elements that are not padding. Titles have
        the maximum of each map on this scale. Colors are linear up to `1x` and
        logarithmic above, as the color bar shows. Curves have an axis instead.

    Raises:
        ValueError: if `modality` is unknown, or missing with several modalities.
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
    latents = range(min(6, maps.num_latents)) if latents is None else latents
    rows, columns = len(cross_attends), 1 + len(latents)
    layer = maps.modalities[modality]
    inputs, mask = (
        None if array is None else array[example]
        for array in (maps.inputs[modality], maps.inputs.get(f"{modality}_mask"))
    )
    figure, axes = matplotlib("pyplot").subplots(
        rows,
        columns,
        squeeze=False,
        figsize=(1.25 * columns + 0.8, 1.5 * rows + 0.4),
        layout="constrained",
        subplot_kw={"projection": layer.drawing_projection},
    )
    num_inputs = max(maps.num_inputs[example], 1)
    for row, read in zip(axes, cross_attends, strict=True):
        weights = maps.weights(read, latents)[modality][example, head] * num_inputs
        maximum = max(weights.max(), 1e-6)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
        layer.draw(row[0], None, inputs, mask)
        row[0].set_title("inputs", fontsize=9)
        drawn = None
        for axis, latent, weight in zip(row[1:], latents, weights, strict=True):
            drawn = layer.draw(axis, weight, inputs, mask, maximum)
            axis.set_title(f"latent {latent}: {weight.max():.1f}x", fontsize=9)
        if drawn is not None:
            scale = figure.colorbar(
                drawn, ax=list(row), aspect=12, pad=0.01, ticks=scale_ticks(maximum)
            )
            scale.minorticks_off()
            scale.ax.tick_params(labelsize=8)
            scale.ax.yaxis.set_major_formatter("{x:.3g}x")
        else:  # curves, whose height is the weight
            row[-1].yaxis.tick_right()
            row[-1].set_yticks([0, maximum], ["0x", f"{maximum:.3g}x"], fontsize=8)
        # Three-dimensional axes have no label on their left side.
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
        f"Attention to {modality}, in multiples of uniform attention", fontsize=11
    )
    return figure


def plot_entropy(maps: AttentionMaps, example: int = 0) -> Figure:
    """Draws the entropy of the attention of each latent over the cross-attends.

    Args:
        maps: `AttentionMaps`.
        example: Integer, index of the example in the batch.

    Returns:
        `matplotlib.figure.Figure` with a thin line per latent and head, their median, and
        a dashed line for uniform attention over all elements that are not padding.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    entropy = maps.entropy()[:, example].reshape(len(maps), -1)
    num_inputs = max(maps.num_inputs[example], 1)
    uniform = np.log(num_inputs)
    figure, axis = matplotlib("pyplot").subplots(figsize=(6, 3.5), layout="constrained")
    reads = np.arange(1, len(maps) + 1)
    marker = "o" if len(maps) == 1 else None
    lines = axis.plot(reads, entropy, color="tab:blue", alpha=0.3, lw=1, marker=marker)
    lines[0].set_label("one latent and head")
    median = np.median(entropy, axis=1)
    axis.plot(reads, median, color="tab:red", lw=2, marker="o", label="median")
    axis.axhline(
        uniform,
        color="black",
        ls="--",
        lw=1.5,
        label=f"uniform attention to {num_inputs:,} inputs",
    )
    axis.set(
        xlabel="cross-attend",
        ylabel="entropy of the attention, nats",
        xticks=reads,
        ylim=(0, max(1.08 * uniform, 0.1)),
    )
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure
