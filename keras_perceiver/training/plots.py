"""Plots of training and evaluation."""

import functools

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver._names import one_line
from keras_perceiver.models.reports import Calibration, Confusion, ratio


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
def _draw(data):
    raise TypeError(
        f"There is no plot of {type(data).__name__}. Register one in "
        "`keras_perceiver.training.plots`."
    )


def plot_figure(data, path):
    """Plots the data of a figure of a report.

    Args:
        data: `Calibration` or `Confusion` of `keras_perceiver.models.reports`.
        path: Path of the image.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    _draw(data).savefig(path, dpi=120)


@_draw.register
def _(data: Calibration):
    figure = matplotlib("figure").Figure(figsize=(5, 6), layout="constrained")
    axes = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes[0].plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
    # Bins with few examples are noisy, so their points are small.
    axes[0].plot(data.confidence, data.frequency, color="tab:blue", lw=0.8)
    axes[0].scatter(
        data.confidence,
        data.frequency,
        s=15 + 300 * data.share,
        color="tab:blue",
        label="predictions (size: share)",
        zorder=3,
        clip_on=False,
    )
    axes[0].set(ylabel="fraction correct", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_title(f"expected calibration error {data.error:.4f}")
    axes[0].legend()
    axes[1].bar(data.confidence, data.share, width=0.8 / 15)
    axes[1].set(xlabel="predicted probability", ylabel="share of\npredictions")
    return figure


@_draw.register
def _(data: Confusion):
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
    right, total = np.trace(data.counts), data.counts.sum()
    axis.set_title(f"{right:,} of {total:,} correct: {ratio(right, total):.1%}")
    axis.set(xlabel="predicted class", ylabel="true class")
    return figure
