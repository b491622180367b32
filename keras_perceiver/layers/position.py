"""Position encodings: what tells the Perceiver where an element stands."""

import math

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive, check_rank
from keras_perceiver.layers.arrays import learned_array_initializer


@keras.saving.register_keras_serializable(package="keras_perceiver")
class FourierPositionEncoding(keras.layers.Layer):
    """Sines and cosines of positions, at frequencies up to the sampling limit.

    Every axis of length n has positions x evenly spaced from -1 to 1. Each position
    gives `sin(pi f_k x)` and `cos(pi f_k x)` for `num_bands` frequencies evenly spaced
    from 1 to `max_resolution / 2`, and x itself: in all
    `num_axes * (2 * num_bands + 1)` channels in the order positions of all axes, sines
    of all axes, cosines of all axes. For a grid the table of each axis is computed in
    float64, whatever the dtype of the layer.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.2 and
        appendix D; channel order of DeepMind's implementation.

    Args:
        num_bands: Integer, number of frequencies K per axis.
        max_resolution: Integer or tuple of one integer per axis, the resolution mu whose
            Nyquist frequency mu / 2 is the highest frequency. Defaults to the shape of
            the grid; must be given for `positions`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, *grid, channels)` with a fully known grid of any
            rank, read for its shape only.
        positions: Tensor of shape `(batch, num_inputs, num_axes)` with coordinates in
            [-1, 1] of each example's own elements, or `None` for those of the grid.

    Returns:
        Tensor of shape `(batch, num_inputs, num_axes * (2 * num_bands + 1))`, where
        `num_inputs` is the number of grid points, last axis fastest.

    Raises:
        ValueError: if a size is not positive, if `max_resolution` has another number of
            axes than the grid or the positions, or if the grid is not fully known.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(FourierPositionEncoding(num_bands=6)(images).shape)
    (2, 1536, 26)
    >>> points = keras.random.uniform((2, 100, 3), -1, 1)
    >>> encoding = FourierPositionEncoding(num_bands=6, max_resolution=64)
    >>> tuple(encoding(points, positions=points).shape)
    (2, 100, 39)
    """

    def __init__(self, num_bands, max_resolution=None, **kwargs):
        # In bfloat16 the sine of a coordinate is off by up to 1.7: no casting of the
        # arguments, only of the result.
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

    def call(self, inputs, positions=None):
        if positions is None:
            features = self._grid_features(_grid_of(inputs.shape))  # (1, M, P)
            batch_size = ops.shape(inputs)[0]
            features = ops.cast(features, self.compute_dtype)
            return ops.broadcast_to(features, (batch_size, *features.shape[1:]))
        check_rank("positions", positions.shape, 3, "(batch, num_inputs, num_axes)")
        return ops.cast(self._coordinate_features(positions), self.compute_dtype)

    def _frequencies(self, num_axes, grid=None):
        """Returns the frequencies of every axis in units of pi, `(num_axes, K)`."""
        resolution = self.max_resolution
        if resolution is None:
            if grid is None:
                raise ValueError(
                    "`max_resolution` must be given to encode `positions`. Received: "
                    "max_resolution=None. Set it to twice the highest frequency."
                )
            resolution = grid
        elif not isinstance(resolution, tuple):
            resolution = (resolution,) * num_axes
        if len(resolution) != num_axes:
            raise ValueError(
                "`max_resolution` must have one number per axis. Received: "
                f"max_resolution={resolution} for {num_axes} axes. "
                f"Give {num_axes} numbers, or one for all axes."
            )
        return np.stack([np.linspace(1.0, r / 2, self.num_bands) for r in resolution])

    def _grid_features(self, grid):
        frequencies = self._frequencies(len(grid), grid)
        raw, sines, cosines = [], [], []
        for axis, (length, bands) in enumerate(zip(grid, frequencies, strict=True)):
            positions = np.linspace(-1.0, 1.0, length)[:, None]  # (n, 1)
            angles = math.pi * positions * bands  # (n, K)
            shape = [1] * len(grid)
            shape[axis] = length
            for tables, table in (
                (raw, positions),
                (sines, np.sin(angles)),
                (cosines, np.cos(angles)),
            ):
                # Only these tables, one per axis, are stored in a graph.
                table = table.astype("float32").reshape(*shape, -1)
                tables.append(ops.broadcast_to(table, (*grid, table.shape[-1])))
        features = ops.concatenate([*raw, *sines, *cosines], axis=-1)  # (*grid, P)
        return ops.reshape(features, (1, math.prod(grid), features.shape[-1]))

    def _coordinate_features(self, positions):
        num_axes = positions.shape[-1]
        frequencies = self._frequencies(num_axes)
        frequencies = ops.convert_to_tensor(frequencies, "float32")  # (d, K)
        positions = ops.cast(positions, "float32")  # (B, M, d)
        angles = math.pi * positions[..., None] * frequencies  # (B, M, d, K)
        shape = (-1, ops.shape(positions)[1], num_axes * self.num_bands)
        angles = ops.reshape(angles, shape)  # (B, M, d * K)
        return ops.concatenate([positions, ops.sin(angles), ops.cos(angles)], axis=-1)

    def compute_output_shape(self, inputs_shape, positions_shape=None):
        if positions_shape is None:
            grid = _grid_of(inputs_shape)
            num_inputs, num_axes = math.prod(grid), len(grid)
        else:
            _, num_inputs, num_axes = positions_shape
        return (inputs_shape[0], num_inputs, num_axes * (2 * self.num_bands + 1))

    def get_config(self):
        return {
            **super().get_config(),
            "num_bands": self.num_bands,
            "max_resolution": self.max_resolution,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LearnedPositionEncoding(keras.layers.Layer):
    """One learned vector for every point of a grid: no prior on space at all.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.1 and table 2
        (learned positions on ImageNet).

    Args:
        dim: Integer, width of each vector.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, *grid, channels)` with a fully known grid of any
            rank, read for its shape only.

    Returns:
        Tensor of shape `(batch, num_inputs, dim)`, where `num_inputs` is the number of
        grid points, last axis fastest.

    Raises:
        ValueError: if `dim` is not positive or the grid is not fully known.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(LearnedPositionEncoding(dim=16)(images).shape)
    (2, 1536, 16)
    """

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        check_positive(dim=dim)
        self.dim = dim

    def build(self, inputs_shape):
        self.positions = self.add_weight(
            shape=(*_grid_of(inputs_shape), self.dim),
            initializer=learned_array_initializer(),
            name="positions",
        )

    def call(self, inputs):
        shape = self.compute_output_shape(inputs.shape)
        positions = ops.reshape(self.positions, (1, *shape[1:]))  # (1, M, dim)
        return ops.broadcast_to(positions, (ops.shape(inputs)[0], *shape[1:]))

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], math.prod(_grid_of(inputs_shape)), self.dim)

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


def _grid_of(inputs_shape):
    grid = tuple(inputs_shape[1:-1])
    if not grid or None in grid:
        raise ValueError(
            "`inputs` must have shape `(batch, *grid, channels)` with a fully known grid. "
            f"Received: inputs.shape={tuple(inputs_shape)}. "
            "Give every axis but the first a length."
        )
    return grid
