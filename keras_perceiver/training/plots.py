"""Plots of training and evaluation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver._names import one_line
from keras_perceiver.models.reports import Calibration, Confusion, ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Predictions of a bin, for its frequency to be more than chance.
_MIN_FOR_LINE = 10


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
        data: `Calibration` or `Confusion` of `keras_perceiver.models.reports`.

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
    figure = matplotlib("figure").Figure(figsize=(side, side), layout="constrained")
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
