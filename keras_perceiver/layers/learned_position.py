"""Learned positions: a vector for every point of a grid."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.arrays import learned_array_initializer
from keras_perceiver.layers.composite import CompositeLayer
from keras_perceiver.layers.position import grid_of, grid_size

_CUBIC = -0.75  # PyTorch's parameter of the cubic convolution


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LearnedPositionEncoding(CompositeLayer):
    """Learned position vectors, one for every point of a grid.

    They have no spatial prior. On a grid of another size, the vectors are interpolated
    by a cubic convolution along each axis, with the edges of both grids aligned, as in
    Hugging Face's Perceiver and PyTorch's `interpolate(mode="bicubic")`.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.1 and table 2
        (learned positions on ImageNet). The projection is Hugging Face's
        `project_pos_dim`.

    Args:
        dim: Integer, width of each vector.
        grid: Tuple of integers, number of vectors along each axis. Defaults to the grid
            that the layer is built on.
        projected_dim: Integer, width to which a learned linear layer projects the
            vectors. Defaults to no projection.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, *grid, channels)` with a grid of the same rank,
            of which only the shape is used.

    Returns:
        Tensor of shape `(batch, num_inputs, dim)`, or `(batch, num_inputs,
        projected_dim)`, where `num_inputs` is the number of grid points, last axis
        fastest.

    Raises:
        ValueError: if a size is not positive, if `grid` is missing and the layer is
            built on a grid with unknown axes, or if it has another rank.

    Example:

    >>> images = keras.random.normal((2, 32, 48, 3))
    >>> tuple(LearnedPositionEncoding(dim=16)(images).shape)
    (2, 1536, 16)
    >>> encoding = LearnedPositionEncoding(16, grid=(8, 8), projected_dim=5)
    >>> tuple(encoding(images).shape)
    (2, 1536, 5)
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, ...] | None = None,
        projected_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(dim=dim)
        if grid is not None:
            grid = tuple(grid)
            check_positive(**{f"grid[{i}]": n for i, n in enumerate(grid)})
        if projected_dim is not None:
            check_positive(projected_dim=projected_dim)
        self.dim = dim
        self.grid = grid
        self.projected_dim = projected_dim

    def build(self, inputs_shape):
        built_on = grid_of(inputs_shape)
        grid = self.grid or built_on
        if None in grid or len(grid) != len(built_on):
            raise ValueError(
                "`grid` must have a length for every axis of the inputs. Received: "
                f"grid={self.grid}, inputs.shape={tuple(inputs_shape)}. "
                f"Set `grid` to {len(built_on)} integers."
            )
        self.positions = self.add_weight(
            shape=(*grid, self.dim),
            initializer=learned_array_initializer(),
            name="positions",
        )
        if self.projected_dim is not None:
            self.projection = keras.layers.Dense(
                self.projected_dim,
                kernel_initializer="lecun_normal",
                dtype=self.dtype_policy,
                name="projection",
            )
            self.projection.build((1, None, self.dim))
        self.restore_inner_settings()

    def call(self, inputs):
        positions = self._vectors(grid_of(inputs.shape), ops.shape(inputs)[1:-1])
        shape = (ops.shape(inputs)[0], *ops.shape(positions)[1:])
        return ops.broadcast_to(positions, shape)

    def at(self, grid, indices):
        """Returns the vectors of some points of a grid, bitwise equal to those of a call.

        Args:
            grid: Tuple of integers.
            indices: Integer tensor of shape `(batch, num_points)`, numbers of the points,
                last axis of the grid fastest.

        Returns:
            Tensor of shape `(batch, num_points, dim)`, or `(batch, num_points,
            projected_dim)`.
        """
        # All are projected: a product of fewer rows may round differently.
        return ops.take(self._vectors(grid, grid)[0], indices, axis=0)

    def _vectors(self, grid, lengths):
        """Returns the vectors of a grid, `(1, M, dim)`.

        Args:
            grid: Tuple of integers, `None` where unknown.
            lengths: The same with tensors where unknown.
        """
        table = ops.convert_to_tensor(self.positions)  # (*grid, dim)
        if tuple(grid) != tuple(table.shape[:-1]):
            for length in lengths:
                # Contracts the first axis and appends the new one.
                matrix = _interpolation(table.shape[0], length)
                matrix = ops.cast(matrix, table.dtype)
                table = ops.tensordot(table, matrix, [[0], [1]])
            table = ops.moveaxis(table, 0, -1)
        positions = ops.reshape(table, (1, -1, self.dim))  # (1, M, dim)
        if self.projected_dim is not None:
            positions = self.projection(positions)
        return positions

    def compute_output_shape(self, inputs_shape):
        dim = self.projected_dim or self.dim
        return (inputs_shape[0], grid_size(grid_of(inputs_shape)), dim)


def _interpolation(old_length, new_length):
    """Returns the matrix `(new, old)` of cubic interpolation along one axis.

    It is a tensor if `new_length` is one.
    """
    is_static = isinstance(new_length, int)
    array = np if is_static else ops
    steps = np.arange(new_length) if is_static else ops.arange(new_length)
    to_float = np.asarray if is_static else ops.cast
    scale = old_length / to_float(new_length, "float64")
    points = (to_float(steps, "float64") + 0.5) * scale - 0.5
    start = array.floor(points)
    matrix = 0.0
    for offset in (-1, 0, 1, 2):
        distance = array.abs(points - (start + offset))
        weights = array.where(
            distance <= 1,
            ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1,
            ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC,
        )
        # Points beyond the edge have the vector of the edge.
        index = array.clip(start + offset, 0, old_length - 1)
        is_at = index[:, None] == np.arange(old_length, dtype="float64")
        matrix = matrix + weights[:, None] * to_float(is_at, "float64")
    return matrix
