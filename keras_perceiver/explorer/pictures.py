"""Pictures of examples, attention and outputs, as PNG images that fill their axes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_perceiver._matplotlib import matplotlib
from keras_perceiver.explorer.sources import picture_pixels
from keras_perceiver.modalities.drawing import (
    draw_lines,
    draw_over_picture,
    picture_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_perceiver.modalities import Modality

_WIDTH, _DPI = 4.0, 100  # inches, and pixels per inch
_CURVE_RATIO = 0.35  # height by width
_MAX_COLORS = 20  # of Matplotlib's map for classes
_DARK = "0.25"  # on which the darkest and the brightest color are visible
_LINES = "0.45"


class Picture(NamedTuple):
    """A picture, and the axes that fill it.

    Attributes:
        png: Bytes of a PNG image.
        axis: `matplotlib.axes.Axes`.
        has_colors: Boolean, whether weights are colors, rather than heights of a curve.
    """

    png: bytes
    axis: Axes
    has_colors: bool = False


def example_picture(modality: Modality, example: np.ndarray) -> Picture:
    """Returns the picture of a raw input.

    Args:
        modality: Modality layer.
        example: NumPy array.
    """
    return _drawn(modality, None, example)


def attention_picture(
    modality: Modality,
    example: np.ndarray,
    weights: np.ndarray,
    maximum: float,
    inputs_mask: np.ndarray | None = None,
    hidden: np.ndarray | bool = False,
) -> Picture:
    """Returns the picture of a raw input with a weight per element.

    Args:
        modality: Modality layer.
        example: NumPy array.
        weights: NumPy array, one weight per element.
        maximum: Float, the weight at the end of the scale.
        inputs_mask: NumPy array, the mask of the raw input, or `None`.
        hidden: Boolean NumPy array of the elements that are hidden, or a boolean for all
            elements.
    """
    weights = weights.reshape(-1).astype("float64")
    if isinstance(hidden, bool):
        hidden = np.full(len(weights), hidden)
    weights[: len(hidden)][hidden] = np.nan  # those at the end are padding
    return _drawn(modality, weights, example, inputs_mask, maximum)


def _drawn(modality, weights, example, inputs_mask=None, maximum=None):
    figure = matplotlib("figure").Figure(dpi=_DPI)
    axis = figure.add_axes((0, 0, 1, 1), projection=modality.drawing_projection)
    if weights is not None and axis.name == "3d":
        # All maps have one scale, whose small weights are dark.
        axis.set_facecolor(_DARK)
        for each in (axis.xaxis, axis.yaxis, axis.zaxis):
            each.set_pane_color((0, 0, 0, 0))
            each.line.set_color(_LINES)
    drawn = modality.draw(axis, weights, example, inputs_mask, maximum)
    return _finished(figure, axis)._replace(has_colors=drawn is not None)


def output_picture(output: np.ndarray) -> Picture:
    """Returns the picture of outputs on a grid.

    Args:
        output: NumPy array `(*grid, channels)` of values, or integer array `(*grid,)` of
            classes.
    """
    figure = matplotlib("figure").Figure(dpi=_DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    if np.issubdtype(output.dtype, np.integer):
        output = class_colors(output)
    if output.ndim > 2:
        draw_over_picture(axis, None, picture_of(output))
    else:
        draw_lines(axis, output)
    return _finished(figure, axis)


def class_colors(classes: np.ndarray) -> np.ndarray:
    """Returns the colors of classes, `(..., 3)` in 0..1."""
    colors = np.array(matplotlib("cm").tab20.colors)
    return colors[classes % _MAX_COLORS]


def _finished(figure, axis):
    """Returns the picture of axes that fill a figure of their aspect ratio."""
    aspect = axis.get_aspect()
    if axis.name == "3d":
        ratio = 1.0
        limits = (axis.get_xlim(), axis.get_ylim(), axis.get_zlim())
        axis.set_box_aspect(np.ptp(limits, axis=1), zoom=0.95)  # nothing is cut off
    else:
        is_picture = bool(axis.images)
        ratio = _CURVE_RATIO if aspect == "auto" else float(aspect)
        if is_picture and aspect == "auto":
            ratio = 0.5  # spectrograms
        axis.set_aspect("auto")  # that of the figure
        axis.set_xlim(0, 1)  # without margins
        axis.set_axis_off()
    figure.set_size_inches(_WIDTH, _WIDTH * min(max(ratio, 0.1), 3.0))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return Picture(content.getvalue(), axis)


def elements_under(
    modality: Modality, picture: Picture, example: np.ndarray, brush: bytes
) -> np.ndarray:
    """Returns which elements are under a brush.

    Args:
        modality: Modality layer.
        picture: `Picture` of the example.
        example: NumPy array.
        brush: Bytes of an image over the whole picture, opaque where something is hidden.

    Returns:
        Boolean NumPy array of shape `(num_inputs,)`.

    Raises:
        ValueError: if the image is invalid.
    """
    pixels = picture_pixels(brush)
    return modality.elements_at(picture.axis, pixels[..., -1] > 127, example)
