"""The base class of modalities: elements, positions, masks, checks of raw inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_perceiver._checks import check_positive, not_defined
from keras_perceiver.layers.composite import CompositeLayer
from keras_perceiver.layers.position import encoding_of, grid_size
from keras_perceiver.modalities.drawing import (
    covered_cells,
    draw_line,
    draw_lines,
    draw_over_picture,
    picture_of,
)
from keras_perceiver.modalities.numbers import read_numbers


class Modality(CompositeLayer):
    """Base class of modalities, which turn raw inputs into elements with positions.

    An element is a vector that consists of its features and those of its position. To
    write a new modality, create a subclass, register it with
    `keras.saving.register_keras_serializable`, and define

    - `input_name`, and `input_dtype` if raw inputs are not float32;
    - `input_shape`, and `mask_shape` and `example_shape` if they differ from the
      defaults;
    - `element_dim` and `elements`, which returns the elements of raw inputs on a grid;
    - `grid_of` and `elements_mask` if there is not one element per raw position.

    Everything else has a default that may be overridden: `positions` and
    `positions_shape`, `augment`, `is_valid_shape`, `shape_rule`, `shape_fix`,
    `input_range`, `check_values`, `random_inputs`, `draw`, `elements_at`, `from_text`,
    `file_preprocessor`. `keras_perceiver.Series` is the base class of modalities along
    time. `keras_perceiver.Preprocessor` is the base class of preprocessors, which turn
    files into raw inputs.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.2.

    Args:
        num_bands: Integer, number of Fourier frequencies per axis. Defaults to 64. Only
            for Fourier features, so not with `position_encoding`.
        max_resolution: Integer or tuple of one integer per axis, see
            `FourierPositionEncoding`. Defaults to the number of elements along each
            axis, and to 2240 (frequencies up to 1120) for `PointCloud`. For an axis of
            dynamic length, pass the maximum length.
        position_encoding: Layer that is called on a tensor of shape
            `(batch, *grid, channels)` and returns position features of shape
            `(batch, num_inputs, features)`, such as `LearnedPositionEncoding`. For
            `PointCloud` it is called with the coordinates `(batch, points, 3)` as
            `positions` as well. It must have `compute_output_shape`. Defaults to
            `FourierPositionEncoding(num_bands, max_resolution)`.
        use_mask: Boolean. `True`: a model has a second input, the `inputs_mask` of the
            call, named after the modality with the suffix `"_mask"`.
        projection_dim: Integer, width to which a learned linear layer projects the
            elements before positions are concatenated or added. Defaults to no
            projection.
        use_added_positions: Boolean. `True`: positions are added to the elements, which
            must have the same width. `False`: they are concatenated.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Attributes:
        input_name: String, the name of a model's input. With the suffix `"_mask"` it is
            the name of its mask.
        input_dtype: String, dtype of the raw inputs.
        input_shape: Tuple, shape of a raw example, with `None` for a dynamic length.
        mask_shape: Tuple, shape of its mask. Defaults to `input_shape` without the last
            axis.
        example_shape: Tuple, `input_shape` with a valid number for every `None`.
        element_dim: Integer, width of an element without positions, before the
            projection.
        shape_rule: String, the sentence of errors that describes valid shapes.
        shape_fix: String, the sentence in errors that states how to fix an invalid shape.
        scale_fix: String, the sentence in warnings that states how to scale inputs.
        input_range: Pair of numbers, the minimum and maximum of valid raw values, or
            `None` if all finite values are valid.
        drawing_projection: String, projection of the Matplotlib axes for `draw`, or
            `None` for two-dimensional axes.

    Call arguments:
        inputs: Tensor of shape `(batch, *input_shape)`.
        inputs_mask: Boolean tensor of shape `(batch, *mask_shape)`, `False` for padding,
            which is set to zero, or `None`.
        training: Boolean, whether `augment` is applied.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, where `num_inputs` is the
        number of elements, and `input_dim` is the width of an element with its position
        features.

    Raises:
        ValueError: if Fourier settings and `position_encoding` are both given, if
            `projection_dim` is not positive, if added positions differ in width from
            the elements, or if `inputs` or `inputs_mask` have an invalid shape.

    Example:

    >>> class Readings(Modality):
    ...     input_name = "readings"
    ...     input_shape = (24, 3)  # hours, sensors
    ...     element_dim = 3
    ...
    ...     def elements(self, inputs):
    ...         return inputs
    >>> readings = keras.random.normal((2, 24, 3))
    >>> tuple(Readings(num_bands=4)(readings).shape)
    (2, 24, 12)
    """

    input_name: str | None = None
    input_dtype = "float32"
    input_range: str | None = None
    shape_fix = "Change the inputs, or create the modality for this shape."
    scale_fix = (
        "Subtract the mean and divide by the standard deviation of the training data."
    )
    default_max_resolution: int | None = None
    drawing_projection: str | None = None

    def __init__(
        self,
        num_bands: int | None = None,
        max_resolution: int | tuple[int, ...] | None = None,
        position_encoding: keras.Layer | None = None,
        use_mask: bool = False,
        projection_dim: int | None = None,
        use_added_positions: bool = False,
        **kwargs: Any,
    ) -> None:
        # Positions and audio need full precision, so only elements are cast.
        super().__init__(autocast=False, **kwargs)
        if isinstance(max_resolution, list):
            max_resolution = tuple(max_resolution)
        self._has_own_encoding = position_encoding is not None
        if projection_dim is not None:
            check_positive(projection_dim=projection_dim)
        self.position_encoding = encoding_of(
            position_encoding,
            num_bands,
            max_resolution,
            self.dtype_policy,
            default=self.default_max_resolution,
        )
        self.num_bands = num_bands
        self.max_resolution = max_resolution
        self.use_mask = use_mask
        self.projection_dim = projection_dim
        self.use_added_positions = use_added_positions

    def elements(self, inputs):
        """Returns the elements of raw inputs, `(batch, *grid, element_dim)`."""
        raise not_defined(
            self, "a modality", "elements", "a tensor `(batch, *grid, element_dim)`"
        )

    def grid_of(self, lengths):
        """Returns the number of elements along each axis of raw inputs.

        Args:
            lengths: Tuple, lengths of the axes of a mask, `None` if unknown.

        Returns:
            Tuple of integers, `None` if unknown.
        """
        return tuple(lengths)

    def elements_mask(self, inputs_mask):
        """Returns which elements have a raw position that is not padding, `(B, M)`."""
        mask = ops.cast(inputs_mask, "bool")
        if len(mask.shape) == 2:
            return mask
        return ops.reshape(mask, (ops.shape(mask)[0], -1))

    def positions(self, elements, inputs):
        """Returns the position features of the elements, `(B, M, P)`.

        Args:
            elements: Tensor of shape `(batch, *grid, element_dim)`.
            inputs: Tensor, the raw inputs of the elements.
        """
        return self.position_encoding(elements)

    def positions_shape(self, elements_shape):
        """Returns the shape of the result of `positions` for elements of a shape."""
        return self.position_encoding.compute_output_shape(elements_shape)

    def augment(self, elements):
        """Returns augmented elements for training. By default, they are unchanged."""
        return elements

    def random_inputs(self, rng, batch_size):
        """Returns valid random raw inputs as a NumPy array.

        Args:
            rng: `numpy.random.Generator`.
            batch_size: Integer, number of examples.
        """
        shape = (batch_size, *self.example_shape)
        low, high = self.input_range or (-1, 1)
        if np.issubdtype(self.input_dtype, np.integer):
            return rng.integers(low, high + 1, shape).astype(self.input_dtype)
        return rng.uniform(low, high, shape).astype(self.input_dtype)

    def draw(self, axis, weights, inputs, inputs_mask=None, maximum=None):
        """Draws an example and a weight per element, such as attention weights.

        Args:
            axis: `matplotlib.axes.Axes`, with `drawing_projection`.
            weights: NumPy array of shape `(num_inputs,)`, NaN for hidden elements, or
                `None` for the example only.
            inputs: NumPy array, the raw example.
            inputs_mask: NumPy array, its mask, or `None`.
            maximum: Float, the weight at the end of the scale. Defaults to the maximum
                of the weights.

        Returns:
            The Matplotlib artist whose colors are the weights, or `None`.
        """
        grid = self.grid_of(inputs.shape[: len(self.mask_shape)])
        if len(grid) > 1:
            # With more than two axes, the mean over the first ones is shown.
            if weights is not None:
                weights = weights.reshape(-1, *grid[-2:]).mean(axis=0)
            return draw_over_picture(axis, weights, picture_of(inputs), maximum=maximum)
        if weights is None:
            draw_lines(axis, inputs.reshape(len(inputs), -1))
        else:
            draw_line(axis, weights, maximum=maximum)
        return None

    def elements_at(self, axis, places, inputs):
        """Returns which elements are at some places of a drawing.

        Args:
            axis: `matplotlib.axes.Axes` on which `draw` has drawn the example.
            places: Boolean NumPy array of shape `(height, width)` over the axes, with
                the first row at the top.
            inputs: NumPy array, the raw example.

        Returns:
            Boolean NumPy array of shape `(num_inputs,)`.
        """
        grid = self.grid_of(inputs.shape[: len(self.mask_shape)])
        if len(grid) == 1:  # the height of a curve has no meaning
            places, grid = places.any(axis=0, keepdims=True), (1, *grid)
        covered = covered_cells(places, *grid[-2:])
        return np.broadcast_to(covered, grid).reshape(-1)

    @property
    def text_hint(self):
        """String, the sentence that describes a text for `from_text`."""
        return "Type numbers, one row per line."

    def from_text(self, text):
        """Returns the raw example that a user has typed: numbers, one row per line.

        Args:
            text: String.

        Returns:
            NumPy array.

        Raises:
            ValueError: if the text is invalid.
        """
        return read_numbers(
            text, self.input_name, tuple(self.input_shape), self.input_dtype
        )

    def file_preprocessor(self):
        """Returns a `Preprocessor` for models without one, or `None`."""
        return None

    @property
    def mask_shape(self):
        return tuple(self.input_shape)[:-1]

    @property
    def example_shape(self):
        # Five is long enough for a sequence, and unlikely to be another size of the
        # model.
        return tuple(5 if n is None else n for n in self.input_shape)

    @property
    def grid(self):
        """Number of elements along each axis, `None` if it is unknown."""
        return self.grid_of(self.mask_shape)

    @property
    def num_inputs(self):
        """Maximum number of elements of an example, `None` if it is unknown."""
        return grid_size(self.grid)

    @property
    def dynamic_lengths(self):
        """Dict from the axes of an example with a dynamic length to their limits.

        Limits are a pair: lengths must be multiples of the first number, and at most the
        second one unless that is `None`.
        """
        return {axis: (1, None) for axis, n in enumerate(self.input_shape) if n is None}

    @property
    def shape_rule(self):
        shape = ", ".join(str(n or "any") for n in self.input_shape)
        return f"Inputs `{self.input_name}` must have shape `(batch, {shape})`."

    def is_valid_shape(self, sizes):
        """Returns whether an example may have these sizes, `None` if unknown."""
        return _equal(sizes, self.input_shape)

    def check_inputs(self, inputs_shape, mask_shape=None):
        """Raises `ValueError` unless inputs and their mask have valid shapes."""
        received = _as_tuple(inputs_shape)
        if received is None or not received or not self.is_valid_shape(received[1:]):
            raise ValueError(
                f"{self.shape_rule} Received: shape {received}. "
                f"{self._axis_fix(received) or self.shape_fix}"
            )
        if mask_shape is None:
            return
        expected = received[: 1 + len(self.mask_shape)]
        mask_shape = _as_tuple(mask_shape)
        if mask_shape is None or not _equal(mask_shape, expected):
            raise ValueError(
                f"The mask of inputs of shape {received} must have shape {expected}. "
                f"Received: shape {mask_shape}. "
                "Pass one boolean per raw position, `False` for padding."
            )

    def _axis_fix(self, received):
        """Returns the fix for an axis that is missing or misplaced, or `None`."""
        if not received:
            return None
        sizes = received[1:]
        if self.is_valid_shape(received):
            return "Add an axis of examples: `inputs[None]`, or `dataset.batch(32)`."
        if self.is_valid_shape((*sizes, 1)):
            return "Add an axis of one channel: `inputs[..., None]`."
        if sizes and sizes[-1] == 1 and self.is_valid_shape(sizes[:-1]):
            return "Remove the last axis: `inputs[..., 0]`."
        if len(sizes) > 2 and self.is_valid_shape((*sizes[:-1], 3 * sizes[-1])):
            return "Repeat the channel of gray images: `np.repeat(inputs, 3, axis=-1)`."
        if len(sizes) > 2 and self.is_valid_shape((*sizes[1:], sizes[0])):
            return "Move the channels to the last axis: `np.moveaxis(inputs, 1, -1)`."
        return None

    def check_values(self, inputs, inputs_mask=None):
        """Raises `ValueError` if an array has values outside of `input_range`.

        Args:
            inputs: NumPy array.
            inputs_mask: NumPy array. Values where it is `False` are not checked.
        """
        if self.input_range is None:
            return
        low, high = self.input_range
        if inputs_mask is not None:
            inputs = inputs[np.asarray(inputs_mask, "bool")]
        lowest, highest = np.min(inputs, initial=low), np.max(inputs, initial=low)
        if not (low <= lowest and highest <= high):
            raise ValueError(
                f"Values of `{self.input_name}` must be in [{low}, {high}]. Received: "
                f"values from {lowest} to {highest}. Correct the inputs, or create the "
                "modality for these values."
            )

    def build(self, inputs_shape):
        self.check_inputs(inputs_shape)
        elements_shape = (None, *self.grid, self.element_dim)
        # Raises if the encoding lacks a setting for this grid.
        num_features = self.positions_shape(elements_shape)[-1]
        if not self.position_encoding.built:  # modalities may share it
            self.position_encoding.build(elements_shape)
        if self.projection_dim is not None:
            if not self.element_dim:
                raise ValueError(
                    "`projection_dim` needs elements with features. Received: "
                    f"projection_dim={self.projection_dim}, element_dim=0. Remove it: "
                    "these elements consist of positions only."
                )
            self.projection = keras.layers.Dense(
                self.projection_dim,
                kernel_initializer="lecun_normal",
                dtype=self.dtype_policy,
                name="projection",
            )
            self.projection.build((None, None, self.element_dim))
        if self.use_added_positions and self._projected_dim != num_features:
            raise ValueError(
                "Added positions must be as wide as the elements. Received: "
                f"use_added_positions=True, elements of width {self._projected_dim}, "
                f"positions of width {num_features}. Set `projection_dim={num_features}`, "
                f"or use a position encoding of width {self._projected_dim}."
            )
        self.restore_inner_settings()

    @property
    def separately_stored(self):
        return (self.position_encoding,) if self._has_own_encoding else ()

    @property
    def _projected_dim(self):
        return self.projection_dim or self.element_dim

    def call(self, inputs, inputs_mask=None, training=False):
        self.check_inputs(inputs.shape, getattr(inputs_mask, "shape", None))
        if inputs_mask is not None:
            mask = ops.cast(inputs_mask, "bool")
            for _ in range(len(inputs.shape) - len(mask.shape)):
                mask = ops.expand_dims(mask, -1)
            inputs = ops.where(mask, inputs, 0)
        elements = self._elements(inputs, training)  # (B, *grid, E)
        positions = self.positions(elements, inputs)  # (B, M, P)
        if len(elements.shape) > 3:  # ONNX cannot reshape elements of width zero
            shape = (*ops.shape(positions)[:2], self.element_dim)
            elements = ops.reshape(elements, shape)  # (B, M, E)
        if self.projection_dim is not None:
            elements = self.projection(elements)  # (B, M, D)
        elements = ops.cast(elements, self.compute_dtype)
        positions = ops.cast(positions, self.compute_dtype)
        if self.use_added_positions:
            return elements + positions  # (B, M, C)
        return ops.concatenate([elements, positions], axis=-1)  # (B, M, C)

    def _elements(self, inputs, training):
        elements = self.elements(inputs)
        return self.augment(elements) if training else elements

    def compute_output_shape(self, inputs_shape):
        num_inputs = grid_size(self.grid_of(inputs_shape[1 : 1 + len(self.mask_shape)]))
        width = self._projected_dim
        if not self.use_added_positions:
            width += self.positions_shape((None, *self.grid, self.element_dim))[-1]
        return (inputs_shape[0], num_inputs, width)

    @property
    def stored_arguments(self):
        own = self.position_encoding if self._has_own_encoding else None
        return {"position_encoding": own and keras.saving.serialize_keras_object(own)}


def _as_tuple(shape):
    # `None` is the unknown rank of a TensorFlow shape.
    return tuple(shape) if getattr(shape, "rank", 0) is not None else None


def _equal(shape, expected):
    # Sizes that are not integers are unknown: `None`, or symbols of an export.
    return len(shape) == len(expected) and all(
        n == m
        for n, m in zip(shape, expected, strict=True)
        if isinstance(n, int) and isinstance(m, int)
    )
