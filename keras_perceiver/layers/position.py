"""Encodings of element positions."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive, check_rank
from keras_perceiver.layers.arguments import ArgumentsConfig


@keras.saving.register_keras_serializable(package="keras_perceiver")
class FourierPositionEncoding(ArgumentsConfig, keras.layers.Layer):
    """Sines and cosines of positions, at frequencies up to the sampling limit.

    The positions x along each axis are evenly spaced from -1 to 1. Each position is
    encoded as `sin(pi f_k x)` and `cos(pi f_k x)` for `num_bands` frequencies evenly
    spaced from 1 to `max_resolution / 2`, and x itself. This gives
    `num_axes * (2 * num_bands + 1)` channels: the positions of all axes, then the sines
    of all axes, then the cosines of all axes. For a grid, the table of each axis is
    computed in float64, whatever the dtype of the layer. A layer encodes grids of any
    size.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.2 and
        appendix D. The order of the channels is that of DeepMind's implementation.

    Args:
        num_bands: Integer, number of frequencies K per axis.
        max_resolution: Integer or tuple of one integer per axis, the resolution mu
            whose Nyquist frequency mu / 2 is the highest frequency. Defaults to the
            shape of the grid. It is required for a grid with unknown axes and for
            `positions`.
        use_endpoint: Boolean. `True`: the positions of an axis of the grid end at 1.
            `False`: they are `-1 + 2 i / n`, as in the queries of the published
            Perceiver IO for multimodal autoencoding.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, *grid, channels)` with a grid of any rank, of
            which only the shape is used.
        positions: Tensor of shape `(batch, num_inputs, num_axes)` with the coordinates
            of each example's elements in [-1, 1], or `None` for those of the grid.

    Returns:
        Tensor of shape `(batch, num_inputs, num_axes * (2 * num_bands + 1))`, where
        `num_inputs` is the number of grid points, last axis fastest.

    Raises:
        ValueError: if a size is not positive, or if `max_resolution` differs in the
            number of axes from the grid or the positions, or is missing where it is
            required.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(FourierPositionEncoding(num_bands=6)(images).shape)
    (2, 1536, 26)
    >>> points = keras.random.uniform((2, 100, 3), -1, 1)
    >>> encoding = FourierPositionEncoding(num_bands=6, max_resolution=64)
    >>> tuple(encoding(points, positions=points).shape)
    (2, 100, 39)
    """

    def __init__(
        self,
        num_bands: int,
        max_resolution: int | tuple[int, ...] | None = None,
        use_endpoint: bool = True,
        **kwargs: Any,
    ) -> None:
        # In bfloat16 the sine of a coordinate is off by up to 1.7, so only the result
        # is cast, and not the arguments.
        super().__init__(autocast=False, **kwargs)
        check_positive(num_bands=num_bands)
        if isinstance(max_resolution, (tuple, list)):
            max_resolution = tuple(max_resolution)
            check_positive(
                **{f"max_resolution[{i}]": r for i, r in enumerate(max_resolution)}
            )
        elif max_resolution is not None:
            check_positive(max_resolution=max_resolution)
        self.num_bands = num_bands
        self.max_resolution = max_resolution
        self.use_endpoint = use_endpoint

    def call(self, inputs, positions=None):
        if positions is None:
            features = self._grid_features(inputs)  # (1, M, P)
            shape = (ops.shape(inputs)[0], *ops.shape(features)[1:])
            return ops.broadcast_to(ops.cast(features, self.compute_dtype), shape)
        check_rank("positions", positions.shape, 3, "(batch, num_inputs, num_axes)")
        return ops.cast(self._coordinate_features(positions), self.compute_dtype)

    def _frequencies(self, num_axes, grid=(None,)):
        """Returns the frequencies of every axis in units of pi, `(num_axes, K)`."""
        resolution = self.max_resolution
        if resolution is None:
            if None in grid:
                raise ValueError(
                    "`max_resolution` is required to encode `positions` or a grid with "
                    "unknown axes. Received: max_resolution=None. "
                    "Set it to twice the highest frequency."
                )
            resolution = grid
        elif not isinstance(resolution, tuple):
            resolution = (resolution,) * num_axes
        if len(resolution) != num_axes:
            raise ValueError(
                "`max_resolution` must have one number per axis. Received: "
                f"max_resolution={resolution} for {num_axes} axes. "
                f"Pass {num_axes} numbers, or one for all axes."
            )
        return np.stack([np.linspace(1.0, r / 2, self.num_bands) for r in resolution])

    def at(self, grid, indices):
        """Returns the features of some points of a grid, those of a call bit for bit.

        Args:
            grid: Tuple of integers.
            indices: Integer tensor of shape `(batch, num_points)`, the numbers of the
                points, last axis of the grid fastest.

        Returns:
            Tensor of shape `(batch, num_points, num_axes * (2 * num_bands + 1))`.
        """
        tables = self._axis_tables(grid, grid)
        features = [
            [ops.take(table, index, axis=0) for table in tables_of_axis]
            for index, tables_of_axis in zip(
                unravel_index(indices, grid), tables, strict=True
            )
        ]
        return ops.cast(_joined(features), self.compute_dtype)

    def _axis_tables(self, grid, lengths):
        """Returns positions `(n, 1)`, sines and cosines `(n, K)` of every axis, float32.

        Args:
            grid: Tuple of integers, `None` where unknown.
            lengths: The same with tensors where unknown.
        """
        tables = []
        frequencies = self._frequencies(len(grid), grid)
        for length, bands in zip(lengths, frequencies, strict=True):
            fractions = fractions_of(length, self.use_endpoint)  # float64
            positions = 2 * fractions[:, None] - 1  # (n, 1)
            sine, cosine = np.sin, np.cos
            if not isinstance(length, int):
                sine, cosine, bands = ops.sin, ops.cos, ops.convert_to_tensor(bands)
            angles = math.pi * positions * bands  # (n, K)
            tables.append(
                [
                    ops.cast(x, "float32")
                    for x in (positions, sine(angles), cosine(angles))
                ]
            )
        return tables

    def _grid_features(self, inputs):
        grid = grid_of(inputs.shape)
        lengths = ops.shape(inputs)[1:-1]
        features = []
        for axis, tables in enumerate(self._axis_tables(grid, lengths)):
            shape = [1] * len(grid)
            shape[axis] = lengths[axis]
            # Only these tables, one per axis, are stored in a graph.
            tables = [ops.reshape(x, (*shape, x.shape[-1])) for x in tables]
            features.append(
                [ops.broadcast_to(x, (*lengths, x.shape[-1])) for x in tables]
            )
        features = _joined(features)  # (*grid, P)
        return ops.reshape(features, (1, -1, features.shape[-1]))

    def _coordinate_features(self, positions):
        num_axes = positions.shape[-1]
        positions = ops.cast(positions, "float32")  # (B, M, d)
        angles = _angles(positions[..., None], self._frequencies(num_axes))
        shape = (-1, ops.shape(positions)[1], num_axes * self.num_bands)
        angles = ops.reshape(angles, shape)  # (B, M, d * K)
        return ops.concatenate([positions, ops.sin(angles), ops.cos(angles)], axis=-1)

    def compute_output_shape(self, inputs_shape, positions_shape=None):
        if positions_shape is None:
            grid = grid_of(inputs_shape)
            self._frequencies(len(grid), grid)  # checks the settings
            num_inputs, num_axes = grid_size(grid), len(grid)
        else:
            _, num_inputs, num_axes = positions_shape
        return (inputs_shape[0], num_inputs, num_axes * (2 * self.num_bands + 1))


def encoding_of(position_encoding, num_bands, max_resolution, dtype, default=None):
    """Returns the position encoding of a layer whose user gives one, or its settings.

    Args:
        position_encoding: Layer, or `None` for Fourier features.
        num_bands: Integer, or `None` for 64, the paper's on images and point clouds.
        max_resolution: Integer, tuple of integers, or `None` for `default`.
        dtype: Dtype policy of the Fourier features.
        default: Integer, or `None` for the lengths of the grid.

    Raises:
        ValueError: if Fourier settings and `position_encoding` are both given.
    """
    if position_encoding is None:
        return FourierPositionEncoding(
            64 if num_bands is None else num_bands,
            default if max_resolution is None else max_resolution,
            dtype=dtype,
            name="position_encoding",
        )
    if num_bands is not None or max_resolution is not None:
        raise ValueError(
            "`num_bands` and `max_resolution` are for Fourier features only. "
            f"Received: num_bands={num_bands}, max_resolution={max_resolution}, "
            f"position_encoding={position_encoding}. "
            "Remove them, or set them on the position encoding."
        )
    return position_encoding


def grid_size(grid):
    """Returns the number of points of a grid, or `None` if an axis is unknown."""
    return None if None in grid else math.prod(grid)


def _angles(positions, frequencies):
    """Returns `pi * positions * frequencies` modulo 2 pi, to float32's precision.

    At the frequencies of the paper's point clouds, up to 560, the plain product is off
    by 2e-4 in float32, differently on each backend. Here the products of integer
    frequencies up to 2,048 and multiples of 1 / 4096 are exact, and the remainders of
    both are small.

    Args:
        positions: Tensor of shape `(B, M, d, 1)` with numbers in [-1, 1], float32.
        frequencies: Array of shape `(d, K)`, float64.

    Returns:
        Tensor of shape `(B, M, d, K)`, float32.
    """
    whole = np.round(frequencies)
    rest = ops.convert_to_tensor(frequencies - whole, "float32")
    whole = ops.convert_to_tensor(whole, "float32")
    coarse = ops.round(positions * 4096.0) / 4096.0
    half_turns = whole * coarse
    half_turns = half_turns - 2.0 * ops.round(half_turns / 2.0)
    half_turns = half_turns + whole * (positions - coarse) + rest * positions
    return math.pi * half_turns


def grid_of(inputs_shape):
    grid = tuple(inputs_shape[1:-1])
    if not grid:
        raise ValueError(
            "`inputs` must have shape `(batch, *grid, channels)`. "
            f"Received: inputs.shape={tuple(inputs_shape)}. "
            "Reshape the inputs to at least one axis between batch and channels."
        )
    return grid


def _joined(features):
    """Joins positions, sines and cosines of each axis: all of one kind come first."""
    return ops.concatenate(
        [x for kind in zip(*features, strict=True) for x in kind], -1
    )


def unravel_index(indices, grid):
    """Returns the indices along each axis of a grid of points with flat indices.

    Args:
        indices: Integer tensor.
        grid: Tuple of integers, last axis fastest.

    Returns:
        List of integer tensors like `indices`, one per axis.
    """
    found = []
    for length in reversed(grid):
        found.insert(0, indices % length)
        indices = indices // length
    return found


def fractions_of(length, use_endpoint=True):
    """Returns `length` numbers evenly spaced from 0 to 1, in float64.

    The result is a tensor if the length is unknown in a TensorFlow graph, otherwise an
    array.
    """
    if isinstance(length, int):
        return np.linspace(0.0, 1.0, length, endpoint=use_endpoint)
    steps = ops.cast(ops.maximum(length - int(use_endpoint), 1), "float64")
    return ops.cast(ops.arange(length), "float64") / steps
