"""Output queries: what a decoder asks the latents for, one vector per output."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_grid, check_positive, check_rank, not_defined
from keras_perceiver.layers.arrays import learned_array_initializer
from keras_perceiver.layers.composite import CompositeLayer
from keras_perceiver.layers.position import encoding_of


class Queries(CompositeLayer):
    """Base of the query arrays of a decoder.

    A layer that returns the queries of some outputs, so that a decoder never needs all
    of them at once. A subclass has `num_queries`, `query_dim` and `call`, and
    `uses_inputs` where its queries depend on the example.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2.

    Attributes:
        uses_inputs: Boolean, whether the queries are made of the inputs of the encoder.
            Others are the same for all examples and computed once per batch.

    Call arguments:
        indices: Integer tensor of shape `(batch, num_outputs)`, the numbers of the
            outputs, or `(1, num_outputs)` for the same ones in all examples. `None` for
            all, where queries are made of inputs.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`, what the encoder has
            attended to, or `None` where `uses_inputs` is `False`.

    Returns:
        Tensor of shape `(batch, num_outputs, query_dim)`, or with a batch of 1 for the
        same queries in all examples.
    """

    uses_inputs = False

    def build(self, indices_shape, inputs_shape=None):
        self.built = True

    def num_queries(self, num_inputs):
        """Returns the number of outputs, or `None` if it is unknown.

        Args:
            num_inputs: Integer, number of inputs of the encoder, or `None`.
        """
        raise not_defined(self, "a query layer", "num_queries", "an integer")

    def query_dim(self, input_dim):
        """Returns the width of the queries.

        Args:
            input_dim: Integer, width of the inputs of the encoder, or `None`.
        """
        raise not_defined(self, "a query layer", "query_dim", "an integer")

    def compute_output_shape(self, indices_shape, inputs_shape=None):
        input_dim = None if inputs_shape is None else inputs_shape[-1]
        batch_size = indices_shape[0]
        if self.uses_inputs and batch_size == 1:
            batch_size = inputs_shape[0]
        return (batch_size, indices_shape[1], self.query_dim(input_dim))


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LearnedQueries(Queries):
    """One learned vector per output, such as the only one of a classifier.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2.

    Args:
        num_queries: Integer, number of outputs.
        query_dim: Integer, width of the queries.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        indices: See `Queries`.

    Returns:
        Tensor of shape `(batch, num_outputs, query_dim)`, with the batch of `indices`.

    Raises:
        ValueError: if a size is not positive.

    Example:

    >>> tuple(LearnedQueries(num_queries=10, query_dim=64)(np.array([[0, 3]])).shape)
    (1, 2, 64)
    """

    def __init__(self, num_queries: int, query_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(num_queries=num_queries, query_dim=query_dim)
        self._num_queries = num_queries
        self._query_dim = query_dim

    def build(self, indices_shape):
        self.queries = self.add_weight(
            shape=(self._num_queries, self._query_dim),
            initializer=learned_array_initializer(),
            name="queries",
        )

    @property
    def stored_arguments(self):
        return {"num_queries": self._num_queries, "query_dim": self._query_dim}

    def num_queries(self, num_inputs=None):
        return self._num_queries

    def query_dim(self, input_dim=None):
        return self._query_dim

    def call(self, indices, inputs=None):
        return ops.take(ops.convert_to_tensor(self.queries), indices, axis=0)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PositionQueries(Queries):
    """The position features of an output grid, such as the pixels of an image.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 3.2 and
        appendix E.

    Args:
        grid: Tuple of integers, number of outputs along each axis.
        num_bands: Integer, number of Fourier frequencies per axis. Defaults to 64. Only
            for Fourier features, so not together with `position_encoding`.
        max_resolution: Integer or tuple of one integer per axis, see
            `FourierPositionEncoding`. Defaults to `grid`.
        position_encoding: `FourierPositionEncoding`, `LearnedPositionEncoding` or another
            layer with a method `at(grid, indices)`. Defaults to
            `FourierPositionEncoding(num_bands, max_resolution)`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        indices: See `Queries`; the last axis of the grid is the fastest.

    Returns:
        Tensor of shape `(batch, num_outputs, query_dim)`, with the batch of `indices`.

    Raises:
        TypeError: if `grid` is not a tuple.
        ValueError: if a size is not positive, or if Fourier settings and
            `position_encoding` are both given.

    Example:

    >>> queries = PositionQueries((32, 48), num_bands=6)
    >>> queries.num_queries()
    1536
    >>> tuple(queries(np.array([[0, 47, 48]])).shape)
    (1, 3, 26)
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        num_bands: int | None = None,
        max_resolution: int | tuple[int, ...] | None = None,
        position_encoding: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        grid = check_grid(grid)
        if isinstance(max_resolution, list):
            max_resolution = tuple(max_resolution)
        self._has_own_encoding = position_encoding is not None
        self.grid = grid
        self.num_bands = num_bands
        self.max_resolution = max_resolution
        self.position_encoding = encoding_of(
            position_encoding, num_bands, max_resolution, self.dtype_policy
        )

    def build(self, indices_shape):
        self.query_dim()  # raises where the grid needs a setting
        if not self.position_encoding.built:
            self.position_encoding.build((None, *self.grid, 1))
        self.restore_inner_settings()

    @property
    def separately_stored(self):
        return (self.position_encoding,) if self._has_own_encoding else ()

    @property
    def stored_arguments(self):
        own = self.position_encoding if self._has_own_encoding else None
        return {"position_encoding": own and keras.saving.serialize_keras_object(own)}

    def num_queries(self, num_inputs=None):
        return math.prod(self.grid)

    def query_dim(self, input_dim=None):
        shape = (None, *self.grid, 1)
        return self.position_encoding.compute_output_shape(shape)[-1]

    def call(self, indices, inputs=None):
        queries = self.position_encoding.at(self.grid, indices)
        return ops.cast(queries, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class InputQueries(Queries):
    """The inputs of the encoder themselves: one output for each of them.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 4.2 (optical
        flow).

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        indices: See `Queries`, or `None` for all outputs.
        inputs: See `Queries`.

    Returns:
        Tensor of shape `(batch, num_outputs, input_dim)`.

    Raises:
        ValueError: if `inputs` is not of rank 3.

    Example:

    >>> inputs = keras.random.normal((2, 100, 16))
    >>> tuple(InputQueries()(np.array([[0, 3, 5]]), inputs).shape)
    (2, 3, 16)
    """

    uses_inputs = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def num_queries(self, num_inputs):
        return num_inputs

    def query_dim(self, input_dim):
        return input_dim

    def call(self, indices, inputs):
        check_rank("inputs", inputs.shape, 3, "(batch, num_inputs, input_dim)")
        if indices is None:
            return inputs
        if indices.shape[0] == 1:
            return ops.take(inputs, indices[0], axis=1)
        return ops.take_along_axis(inputs, indices[:, :, None], axis=1)
