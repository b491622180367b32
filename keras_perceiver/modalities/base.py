"""What all modalities share: positions, masks, checks of raw inputs."""

import keras
from keras import ops

from keras_perceiver.layers import FourierPositionEncoding
from keras_perceiver.layers.position import grid_size

# The paper's number of Fourier bands on ImageNet and on point clouds.
_NUM_BANDS = 64


class Modality(keras.layers.Layer):
    """A layer from raw inputs to elements, each with its position features.

    A subclass says what raw inputs look like (`input_shape`, `mask_shape`, `_fits`), how
    they become elements (`_elements`, `grid_of`, `_element_dim`), and which elements
    a mask of raw positions leaves (`elements_mask`; default: all that it has).
    `grid_of(lengths)` gives the number of elements along each axis of raw inputs of
    these lengths, `None` where the length is.

    Attributes:
        input_name: String, the name of a model's input; with `"_mask"` of its mask.
        input_dtype: String, dtype of the raw inputs.
        input_shape: Tuple, shape of one raw example, with `None` for a free length.
        mask_shape: Tuple, the same without channels.
        example_shape: Tuple, `input_shape` with a possible number for every `None`.
    """

    input_dtype = "float32"

    def __init__(
        self, num_bands, max_resolution, position_encoding, use_mask, **kwargs
    ):
        # Positions and sound need all their digits: only elements are cast.
        super().__init__(**{"autocast": False, **kwargs})
        if isinstance(max_resolution, list):
            max_resolution = tuple(max_resolution)
        self._has_own_encoding = position_encoding is not None
        if position_encoding is None:
            position_encoding = FourierPositionEncoding(
                _NUM_BANDS if num_bands is None else num_bands,
                self._default_max_resolution
                if max_resolution is None
                else max_resolution,
                dtype=self.dtype_policy,
                name="position_encoding",
            )
        elif num_bands is not None or max_resolution is not None:
            raise ValueError(
                "`num_bands` and `max_resolution` are for Fourier features only. "
                f"Received: num_bands={num_bands}, max_resolution={max_resolution}, "
                f"position_encoding={position_encoding}. "
                "Leave them out, or set them on the position encoding."
            )
        self.position_encoding = position_encoding
        self.num_bands = num_bands
        self.max_resolution = max_resolution
        self.use_mask = use_mask

    _default_max_resolution = None

    @property
    def grid(self):
        """Number of elements along each axis, `None` where it is unknown."""
        return self.grid_of(self.mask_shape)

    @property
    def num_inputs(self):
        """Number of elements of one example, the largest one; `None` if unknown."""
        return grid_size(self.grid)

    @property
    def free_lengths(self):
        """Dict from the axes of an example that have no fixed length to their limits.

        A limit is a pair: lengths must be multiples of the first and at most the
        second, which is `None` for any.
        """
        return {axis: (1, None) for axis, n in enumerate(self.input_shape) if n is None}

    def check_inputs(self, inputs_shape, mask_shape=None):
        """Raises `ValueError` unless a batch of this shape, and its mask, can be read."""
        received = _as_tuple(inputs_shape)
        if received is None or not received or not self._fits(received[1:]):
            raise ValueError(f"{self._rule()} Received: shape {received}. {self._fix}")
        if mask_shape is None:
            return
        expected = received[: 1 + len(self.mask_shape)]
        mask_shape = _as_tuple(mask_shape)
        if mask_shape is None or not _equal(mask_shape, expected):
            raise ValueError(
                f"The mask of inputs of shape {received} must have shape {expected}. "
                f"Received: shape {mask_shape}. "
                "Give every raw position one boolean, `False` for padding."
            )

    def check_values(self, inputs, inputs_mask=None):
        """Raises `ValueError` if an array holds what cannot be read."""

    def elements_mask(self, inputs_mask):
        """Returns which elements have a raw position that is no padding, `(B, M)`."""
        return ops.cast(inputs_mask, "bool")

    def random_inputs(self, rng, batch_size):
        """Returns inputs as they may come, a NumPy array."""
        return rng.uniform(-1, 1, (batch_size, *self.example_shape)).astype("float32")

    def _fits(self, sizes):
        """Tells whether these may be the sizes of one example."""
        return len(sizes) == len(self.input_shape) and all(
            expected in (None, size)
            for size, expected in zip(sizes, self.input_shape, strict=True)
        )

    def build(self, inputs_shape):
        self.check_inputs(inputs_shape)
        elements_shape = (None, *self.grid, self._element_dim)
        self._positions_shape(elements_shape)  # raises where the grid needs a setting
        if not self.position_encoding.built:  # it may be another modality's too
            self.position_encoding.build(elements_shape)

    def call(self, inputs, inputs_mask=None, training=False):
        self.check_inputs(inputs.shape, getattr(inputs_mask, "shape", None))
        if inputs_mask is not None:
            mask = ops.cast(inputs_mask, "bool")
            for _ in range(len(inputs.shape) - len(mask.shape)):
                mask = ops.expand_dims(mask, -1)
            inputs = ops.where(mask, inputs, 0)
        elements = self._elements(inputs)  # (B, *grid, E)
        if training:
            elements = self._hide(elements)
        positions = self._positions(elements, inputs)  # (B, M, P)
        shape = (*ops.shape(positions)[:2], self._element_dim)
        elements = ops.reshape(elements, shape)  # (B, M, E)
        return ops.concatenate(
            [ops.cast(x, self.compute_dtype) for x in (elements, positions)], axis=-1
        )  # (B, M, C)

    def _hide(self, elements):
        """Returns the elements without what training hides of them at random."""
        return elements

    def _positions(self, elements, inputs):
        return self.position_encoding(elements)

    def compute_output_shape(self, inputs_shape):
        positions = self._positions_shape((None, *self.grid, self._element_dim))
        num_inputs = grid_size(self.grid_of(inputs_shape[1 : 1 + len(self.mask_shape)]))
        return (inputs_shape[0], num_inputs, self._element_dim + positions[-1])

    def _positions_shape(self, elements_shape):
        return self.position_encoding.compute_output_shape(elements_shape)

    def get_config(self):
        own = self.position_encoding if self._has_own_encoding else None
        return {
            **super().get_config(),
            "num_bands": self.num_bands,
            "max_resolution": self.max_resolution,
            "position_encoding": own and keras.saving.serialize_keras_object(own),
            "use_mask": self.use_mask,
        }

    @classmethod
    def from_config(cls, config):
        encoding = config.get("position_encoding")
        if encoding is not None:
            encoding = keras.saving.deserialize_keras_object(encoding)
        return cls(**{**config, "position_encoding": encoding})


class Series(Modality):
    """A modality along time, up to a greatest length.

    Positions are those of the greatest length, so that they mean the same time in every
    batch. With a mask, batches may be shorter.
    """

    def __init__(self, max_length, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._max_length = max_length

    @property
    def input_shape(self):
        return (None if self.use_mask else self._max_length,)

    @property
    def mask_shape(self):
        return self.input_shape

    @property
    def example_shape(self):
        return (self._max_length,)

    @property
    def free_lengths(self):
        return dict.fromkeys(super().free_lengths, (1, self._max_length))

    @property
    def grid(self):
        return self.grid_of(self.example_shape)

    def _fits(self, sizes):
        return super()._fits(sizes) and (sizes[0] or 0) <= self._max_length

    def _positions(self, elements, inputs):
        whole = ops.zeros((1, *self.grid, self._element_dim), self.compute_dtype)
        positions = self.position_encoding(whole)  # (1, M of the greatest length, P)
        batch_size, num_frames, *rest = ops.shape(elements)[:-1]
        num_inputs = num_frames * (grid_size(rest) or 1)
        shape = (batch_size, num_inputs, positions.shape[-1])
        return ops.broadcast_to(positions[:, :num_inputs], shape)


def group(x, sizes):
    """Puts the positions of each patch together.

    Args:
        x: Tensor of shape `(batch, *lengths, channels)`.
        sizes: Tuple, the positions of a patch along each axis, divisors of the lengths.

    Returns:
        Tensor of shape `(batch, *(lengths / sizes), channels * prod(sizes))`.
    """
    if all(size == 1 for size in sizes):
        return x
    batch_size, *lengths, channels = ops.shape(x)
    grid = [length // size for length, size in zip(lengths, sizes, strict=True)]
    split = [n for pair in zip(grid, sizes, strict=True) for n in pair]
    # The batch size and not -1: a length that is no multiple must not pass.
    x = ops.reshape(x, (batch_size, *split, channels))  # (B, g1, s1, g2, s2, ..., C)
    last = 2 * len(sizes) + 1
    order = (0, *range(1, last, 2), *range(2, last, 2), last)
    x = ops.transpose(x, order)  # (B, *grid, *sizes, C)
    return ops.reshape(x, (batch_size, *grid, grid_size(sizes) * channels))


def pad_to_multiple(x, size, extra=0):
    """Adds zeros at the end of the second axis, up to a multiple of `size`, plus extra."""
    missing = -ops.shape(x)[1] % size + extra
    if isinstance(missing, int) and not missing:
        return x
    return ops.pad(x, [[0, 0], [0, missing]] + [[0, 0]] * (len(x.shape) - 2))


def per_axis(name, sizes, num_axes):
    """Returns one number per axis, from one for all or from as many."""
    sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,) * num_axes
    if len(sizes) != num_axes:
        raise ValueError(
            f"`{name}` must be one number, or one per axis. Received: "
            f"{name}={sizes} for {num_axes} axes. Give {num_axes} numbers."
        )
    return sizes


def _as_tuple(shape):
    # `None` is the unknown rank of a TensorFlow shape.
    return tuple(shape) if getattr(shape, "rank", 0) is not None else None


def _equal(shape, expected):
    return len(shape) == len(expected) and all(
        n is None or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )
