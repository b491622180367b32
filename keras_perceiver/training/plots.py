"""Plots of training and evaluation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver._names import one_line
from keras_perceiver.models.dense_reports import Agreement, Maps
from keras_perceiver.models.reports import Calibration, Confusion, ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Predictions of a bin, for its frequency to be more than chance.
_MIN_FOR_LINE = 10
_MAX_CHANNELS = 4


def plot_history(history, metrics, score, path):
    """Plots the loss and the score of every epoch, and those of the test.

    Args:
        history: Dict of lists, one value per epoch.
        metrics: Dict, as in `metrics.json`.
        score: String, the score's name in both.
        path: Path of the image.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    figure = matplotlib("figure").Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("loss", score), strict=True):
        epochs = range(1, len(history[name]) + 1)
        marker = "o" if len(epochs) == 1 else None
        axis.plot(epochs, history[name], marker=marker, label="train")
        axis.plot(epochs, history[f"val_{name}"], marker=marker, label="validation")
        test = metrics[f"test_{name}"]
        axis.axhline(test, color="gray", linestyle=":", label=f"test {test:.4f}")
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(
        f"{metrics['recipe']} on {metrics['backend']}, seed {metrics['seed']}"
    )
    figure.savefig(path, dpi=120)


@functools.singledispatch
def draw_report(data: Any) -> Figure:
    """Draws a figure of a report, such as `report.figures()["confusion"]`.

    Args:
        data: `Calibration` or `Confusion` of `keras_perceiver.models.reports`, or
            `Agreement` or `Maps` of `keras_perceiver.models.dense_reports`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: if Matplotlib is not installed.
        TypeError: if there is no figure of `data`.
    """
    raise TypeError(
        f"There is no plot of {type(data).__name__}. Register one in "
        "`keras_perceiver.training.plots`."
    )


@draw_report.register(Calibration)
def _(data: Calibration) -> Figure:
    figure = matplotlib("figure").Figure(figsize=(5, 6), layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes[0].plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
    # Bins with few predictions are noisy, so they are small and not connected.
    is_shown = data.counts >= _MIN_FOR_LINE
    points = np.stack([data.confidence, data.frequency], axis=-1)
    if is_shown.any():  # an empty line without clipping breaks the layout
        axes[0].plot(*points[is_shown].T, marker="o", label="model", clip_on=False)
    if not is_shown.all():
        axes[0].plot(
            *points[~is_shown].T,
            color="silver",
            linestyle="",
            marker=".",
            label=f"fewer than {_MIN_FOR_LINE} {data.unit}",
            clip_on=False,
        )
    axes[0].set(ylabel=data.frequency_label, xlim=(0, 1), ylim=(0, 1))
    total = data.counts.sum()
    axes[0].set_title(
        f"expected calibration error {data.error:.3f}, {total:,} {data.unit}"
    )
    axes[0].legend(loc="upper left")
    axes[1].bar(data.confidence, data.share, width=0.8 / 15)
    axes[1].set(xlabel="predicted probability", ylabel=f"share of\n{data.unit}")
    return figure


@draw_report.register(Confusion)
def _(data: Confusion) -> Figure:
    size = len(data.class_names)
    shares = ratio(data.counts, data.counts.sum(axis=1, keepdims=True))
    side = min(4 + 0.3 * size, 14)
    # The color bar needs more width than the title needs height.
    figure = matplotlib("figure").Figure(
        figsize=(side, side - 0.6), layout="constrained"
    )
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.7)
    if size <= 40:  # more names than this cannot be read
        names = list(map(one_line, data.class_names))
        # `$` must not start a formula.
        axis.set_xticks(range(size), names, rotation=90, parse_math=False)
        axis.set_yticks(range(size), names, parse_math=False)
    if size <= 20:
        for (row, column), count in np.ndenumerate(data.counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, count, ha="center", va="center", color=color)
    accuracy = ratio(np.trace(data.counts), data.counts.sum())
    axis.set_title(f"accuracy {accuracy:.1%} of {data.counts.sum():,} examples")
    axis.set(xlabel="predicted", ylabel="true")
    return figure


@draw_report.register(Agreement)
def _(data: Agreement) -> Figure:
    size = min(len(data.counts), _MAX_CHANNELS)
    figure = matplotlib("figure").Figure(
        figsize=(1 + 3 * size, 3.4), layout="constrained"
    )
    axes = figure.subplots(1, size, squeeze=False)[0]
    maximum = max(int(data.counts[:size].max()), 2)
    norm = matplotlib("colors").LogNorm(1, maximum)
    for i, axis in enumerate(axes):
        edges = data.edges[i]
        counts = np.ma.masked_equal(data.counts[i].T, 0)
        image = axis.pcolormesh(edges, edges, counts, norm=norm, cmap="Blues")
        axis.plot(edges[[0, -1]], edges[[0, -1]], color="gray", linestyle=":")
        channel = "" if len(data.counts) == 1 else f"channel {i}\n"
        axis.set(
            title=f"{channel}R2 {data.r2[i]:.3f}, {data.counts[i].sum():,} values",
            xlabel="true value",
            aspect="equal",
        )
    axes[0].set_ylabel("predicted value")
    figure.colorbar(image, ax=axes, label="values", shrink=0.8)
    return figure


@draw_report.register(Maps)
def _(data: Maps) -> Figure:
    size = len(data.targets)
    figure = matplotlib("figure").Figure(
        figsize=(1.5 + 1.3 * size, 3.2), layout="constrained"
    )
    axes = figure.subplots(2, size, squeeze=False)
    rows = {"true": data.targets, "predicted": data.predictions}
    if data.class_names is None:
        low, high = data.targets.min(), data.targets.max()
        style = {"cmap": "gray", "vmin": low, "vmax": high}
    else:
        colors = matplotlib("cm").tab20.resampled(len(data.class_names))
        style = {"cmap": colors, "vmin": -0.5, "vmax": len(data.class_names) - 0.5}
    for axes_of_row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(axes_of_row, images, strict=True):
            if data.ignore_class is not None and name == "true":
                image = np.ma.masked_equal(image, data.ignore_class)  # left blank
            drawn = axis.imshow(image, interpolation="nearest", **style)
            axis.set(xticks=[], yticks=[])
        axes_of_row[0].set_ylabel(name)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    if data.class_names is not None and len(data.class_names) <= 20:
        names = list(map(one_line, data.class_names))
        bar.set_ticks(range(len(names)), labels=names, parse_math=False)
    return figure
