"""Point clouds, whose elements have positions of their own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.base import Modality
from keras_perceiver.modalities.drawing import COLOR_MAP, COLOR_SCALE, HIDDEN_COLOR
from keras_perceiver.modalities.preprocessors.point_cloud import PointCloudPreprocessor

_NUM_COORDINATES = 3  # x, y, z
# Matplotlib takes seconds for more points, which cover each other anyway.
_MAX_DRAWN, _MAX_ATTENDED = 20_000, 1_000


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PointCloud(Modality):
    """Point clouds as elements: the features and the position of each point.

    The Fourier features contain the coordinates themselves. The order of the points
    does not matter.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.3: about 2,000
        points, 64 bands, a maximum frequency of 1120.

    Args:
        num_points: Integer, number of points per example. `None` means that it may
            differ from batch to batch.
        num_features: Integer, number of additional values per point, such as its color.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, points, 3 + num_features)`: coordinates from -1
            to 1, then features.
        inputs_mask: Boolean tensor of shape `(batch, points)`, `False` for padding,
            which is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, points, input_dim)`, where `input_dim` is the number of
        features plus that of position features.

    Raises:
        ValueError: if a size is not positive, if both Fourier settings and
            `position_encoding` are given, or if `inputs` has another shape.

    Example:

    >>> points = keras.random.uniform((2, 100, 3), -1, 1)
    >>> tuple(PointCloud(num_bands=6)(points).shape)
    (2, 100, 39)
    """

    input_name = "points"
    default_max_resolution = 2240  # twice the paper's maximum frequency
    drawing_projection = "3d"
    shape_fix = (
        "Pass the coordinates x, y, z of every point, then its features. For clouds of "
        "any size, create the modality without `num_points`."
    )
    scale_fix = (
        "Scale the coordinates, such as by `keras_perceiver.data.scale_to_unit_cube`."
    )

    def __init__(
        self, num_points: int | None = None, num_features: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_points is not None:
            check_positive(num_points=num_points)
        if num_features:
            check_positive(num_features=num_features)
        self.num_points = num_points
        self.num_features = num_features

    @property
    def input_shape(self):
        return (self.num_points, _NUM_COORDINATES + self.num_features)

    @property
    def element_dim(self):
        return self.num_features

    @property
    def shape_rule(self):
        shape = ", ".join(str(n or "points") for n in self.input_shape)
        return f"Point clouds must have shape `(batch, {shape})`."

    def elements(self, inputs):
        return inputs[..., _NUM_COORDINATES:]

    def positions(self, elements, inputs):
        coordinates = inputs[..., :_NUM_COORDINATES]
        return self.position_encoding(elements, positions=coordinates)

    def positions_shape(self, elements_shape):
        coordinates_shape = (*elements_shape[:-1], _NUM_COORDINATES)
        return self.position_encoding.compute_output_shape(
            elements_shape, coordinates_shape
        )

    def draw(self, axis, weights, inputs, inputs_mask=None, maximum=None):
        shown = np.isfinite(inputs[:, :_NUM_COORDINATES]).all(axis=-1)
        if inputs_mask is not None:
            shown &= inputs_mask
        points = inputs[shown, :_NUM_COORDINATES]
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_zticks([])
        if shown.any():  # the same scale along all axes
            sizes = np.maximum(np.ptp(points, axis=0), 1e-6)
            axis.set_box_aspect(np.maximum(sizes, sizes.max() / 50), zoom=1.2)
        weights = None if weights is None else weights[shown]
        drawn = _sample(len(points), weights)
        artist = _scatter(
            axis, points[drawn], None if weights is None else weights[drawn], maximum
        )
        if shown.any():
            axis.auto_scale_xyz(*points.T, had_data=True)  # also those not drawn
        return artist

    def elements_at(self, axis, places, inputs):
        axis.figure.canvas.draw()  # which places the axes
        points = np.nan_to_num(inputs[:, :_NUM_COORDINATES])
        points = np.insert(points, _NUM_COORDINATES, 1, axis=1)
        x, y, _, w = axis.get_proj() @ points.T
        pixels = axis.transData.transform(np.stack([x / w, y / w], axis=-1))
        columns, rows = ((pixels - axis.bbox.p0) / axis.bbox.size).T
        height, width = places.shape
        rows, columns = (1 - rows) * height, columns * width  # the first row is the top
        is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        rows, columns = np.where(is_inside, (rows, columns), 0).astype(int)
        return is_inside & places[rows, columns]

    def file_preprocessor(self):
        return PointCloudPreprocessor(
            self.num_points, self.num_features, use_mask=self.use_mask or None
        )


def _scatter(axis, points, weights, maximum):
    """Draws points, and returns the artist whose colors are the weights, or `None`."""
    if weights is None:
        axis.scatter(*points.T, c="tab:gray", s=3)
        return None
    is_hidden = np.isnan(weights)
    if is_hidden.any():
        axis.scatter(*points[is_hidden].T, c=HIDDEN_COLOR, s=4)
    # On a light background reversed, so that small weights are near the background.
    is_light = np.mean(axis.get_facecolor()[:3]) > 0.5
    return axis.scatter(
        *points[~is_hidden].T,
        c=weights[~is_hidden],
        s=4,
        vmin=0,
        vmax=maximum,
        cmap=f"{COLOR_MAP}_r" if is_light else COLOR_MAP,
        norm=COLOR_SCALE,
    )


def _sample(num_points, weights):
    """Returns the indices of the points to draw: random ones, and the most attended."""
    if num_points <= _MAX_DRAWN:
        return np.arange(num_points)
    chosen = np.random.default_rng(0).choice(num_points, _MAX_DRAWN, replace=False)
    if weights is not None:
        order = np.argsort(np.nan_to_num(weights), kind="stable")
        chosen = np.union1d(chosen, order[-_MAX_ATTENDED:])
    return np.sort(chosen)
