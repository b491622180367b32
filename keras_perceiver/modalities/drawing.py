"""Drawings of raw inputs and weights on Matplotlib axes, without importing Matplotlib."""

import numpy as np

COLOR_MAP = "inferno"
# Linear up to 1, which is uniform attention, and logarithmic above: a few elements may
# have hundreds of times that.
COLOR_SCALE = "asinh"
# Blue gray for elements whose weight is NaN: neither in the map, nor in gray pictures.
HIDDEN_COLOR = "#6f8799"
# Share of a cell that must be covered, so that a brush need not fill large cells.
_MIN_COVERED = 0.25


def draw_line(axis, weights, samples=None, sample_rate=None, maximum=None):
    """Draws weights along one axis, with the waveform if there is one.

    Args:
        axis: `matplotlib.axes.Axes`.
        weights: Array of shape `(num_inputs,)`, NaN for hidden elements, or `None` to
            draw the waveform only.
        samples: Array of shape `(samples,)`, or `None`.
        sample_rate: Integer, in hertz, to label the time.
        maximum: Float, the weight at the top. Defaults to the maximum of the weights.
    """
    if weights is not None:
        places = np.linspace(0, 1, len(weights))
        axis.fill_between(places, weights, color="tab:orange")
        axis.set(xlim=(0, 1), ylim=(0, maximum))
        edges = np.linspace(0, 1, len(weights) + 1)
        is_hidden = np.isnan(np.append(weights, weights[-1:]))
        axis.fill_between(
            edges,
            0,
            1,
            where=is_hidden,
            step="post",
            transform=axis.get_xaxis_transform(),
            color=HIDDEN_COLOR,
        )
        axis.set_xticks([0, 1], ["0", f"{len(weights):,}"], fontsize=8)
    if samples is None:
        return
    waveform = axis if weights is None else axis.twinx()
    waveform.plot(np.linspace(0, 1, len(samples)), samples, color="gray", lw=0.4)
    if waveform is not axis:
        waveform.set_axis_off()
    label_seconds(axis, len(samples) / sample_rate)


def draw_lines(axis, series):
    """Draws the channels of a series, of shape `(length, channels)`."""
    axis.plot(np.linspace(0, 1, len(series)), series, lw=0.6)
    axis.set_xticks([0, 1], ["0", f"{len(series):,}"], fontsize=8)


def draw_over_picture(axis, weights, picture, is_upwards=False, maximum=None):
    """Draws weights over a picture, which is visible where weights are small.

    Args:
        axis: `matplotlib.axes.Axes`.
        weights: Array of shape `(rows, columns)`, NaN for hidden elements, which cover
            the picture, or `None` to draw the picture only.
        picture: Array of shape `(height, width)`, or with color channels.
        is_upwards: Boolean, whether the first row is at the bottom and the picture fills
            the axes, as for spectrograms.
        maximum: Float, the weight of the brightest color. Defaults to the maximum of
            the weights.

    Returns:
        `matplotlib.image.AxesImage` of the weights, or `None`.
    """
    options = {
        "extent": (0, 1, 0, 1),
        "origin": "lower" if is_upwards else "upper",
        "aspect": "auto" if is_upwards else picture.shape[0] / picture.shape[1],
    }
    axis.imshow(picture, cmap="gray", **options)
    if weights is None:
        return None
    maximum = np.nanmax(weights, initial=0) if maximum is None else maximum
    shares = np.arcsinh(weights) / np.arcsinh(max(maximum, 1e-30))
    alpha = np.where(np.isnan(shares), 1, np.clip(0.35 + 0.65 * shares, 0, 1))
    options |= {"cmap": COLOR_MAP, "norm": COLOR_SCALE, "vmin": 0, "vmax": maximum}
    drawn = axis.imshow(weights, alpha=alpha, **options)
    drawn.set_cmap(drawn.get_cmap().with_extremes(bad=HIDDEN_COLOR))
    return drawn


def scale_ticks(maximum, factors=(1, 3)):
    """Returns the labeled weights of a scale that is logarithmic above 1.

    Args:
        maximum: Float, the weight at the end of the scale.
        factors: Tuple of integers, the labeled multiples of powers of ten.
    """
    powers = (factor * 10**i for i in range(7) for factor in factors)
    return [0, *([power for power in powers if power <= maximum] or [maximum])]


def label_seconds(axis, seconds):
    """Labels the ends of a horizontal axis with times."""
    axis.set_xticks([0, 1], ["0", f"{seconds:.3g} s"], fontsize=8)


def picture_of(array):
    """Returns an array on a grid as a picture in 0..1: the mean over the first axes."""
    array = array.reshape(-1, *array.shape[-3:]).mean(axis=0)
    array = array if array.shape[-1] == 3 else array.mean(axis=-1)
    low, high = np.nanmin(array), np.nanmax(array)
    return np.nan_to_num((array - low) / max(high - low, 1e-6))


def covered_cells(places, rows, columns):
    """Returns which cells of a grid are covered by places of a drawing.

    Args:
        places: Boolean array of shape `(height, width)`.
        rows: Integer, number of rows of the grid.
        columns: Integer, number of columns of the grid.

    Returns:
        Boolean array of shape `(rows, columns)`.
    """
    for axis, number in enumerate((rows, columns)):
        # At least one place per cell.
        places = places.repeat(-(-number // places.shape[axis]), axis)
    height, width = places.shape
    row, column = (
        np.arange(height) * rows // height,
        np.arange(width) * columns // width,
    )
    cells = (row[:, None] * columns + column).ravel()
    num_places = np.bincount(cells, minlength=rows * columns)
    num_covered = np.bincount(cells, places.ravel(), rows * columns)
    return (num_covered >= _MIN_COVERED * num_places).reshape(rows, columns)
