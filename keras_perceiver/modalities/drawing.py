"""Weights of elements on axes of Matplotlib, which is not imported here."""

import numpy as np


def draw_line(axis, weights, samples=None, sample_rate=None):
    """Draws weights along one axis, over a waveform where there is one.

    Args:
        axis: `matplotlib.axes.Axes`.
        weights: Array of shape `(num_inputs,)`.
        samples: Array of shape `(samples,)`, or `None`.
        sample_rate: Integer, in hertz, to label the time.
    """
    axis.fill_between(np.linspace(0, 1, len(weights)), weights, color="tab:orange")
    if samples is None:
        return
    waveform = axis.twinx()
    waveform.plot(np.linspace(0, 1, len(samples)), samples, color="gray", lw=0.3)
    waveform.set_axis_off()
    label_seconds(axis, len(samples) / sample_rate)


def draw_over_picture(axis, weights, picture, is_upwards=False):
    """Draws weights over a picture.

    Args:
        axis: `matplotlib.axes.Axes`.
        weights: Array of shape `(rows, columns)`.
        picture: Array of shape `(height, width)`, or with color channels.
        is_upwards: Boolean, whether the first row is at the bottom and the picture fills
            the axes, as for spectrograms.
    """
    options = {
        "extent": (0, 1, 0, 1),
        "origin": "lower" if is_upwards else "upper",
        "aspect": "auto" if is_upwards else picture.shape[0] / picture.shape[1],
    }
    axis.imshow(picture, cmap="gray", **options)
    axis.imshow(weights, cmap="inferno", alpha=0.65, vmin=0, **options)


def label_seconds(axis, seconds):
    """Labels the ends of a horizontal axis with times."""
    axis.set_xticks([0, 1], ["0", f"{seconds:.3g} s"], fontsize=8)


def picture_of(array):
    """Returns a picture of an array on a grid: the mean over the first axes, in 0..1."""
    array = array.reshape(-1, *array.shape[-3:]).mean(axis=0)
    array = array if array.shape[-1] == 3 else array.mean(axis=-1)
    low, high = np.nanmin(array), np.nanmax(array)
    return np.nan_to_num((array - low) / max(high - low, 1e-6))
