"""The base class of modalities along time."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.position import grid_size
from keras_perceiver.modalities.base import Modality


class Series(Modality):
    """Base class of modalities along time, up to a maximum length.

    Positions are those of the maximum length, so that they mean the same time in every
    batch. With a mask, batches may be shorter. In contrast, a plain `Modality` spaces
    the positions of an axis of dynamic length over the length of the current batch.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.2.

    Args:
        max_length: Integer, length along time. With `use_mask`, it is the maximum
            length.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Attributes:
        step_shape: Tuple, shape of the raw values at one time, `()` for scalars.

    Call arguments:
        inputs: Tensor of shape `(batch, length, *step_shape)`.
        inputs_mask: Boolean tensor of shape `(batch, length)`, `False` for padding, which
            is set to zero, or `None`.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, as `Modality`.

    Raises:
        ValueError: if `max_length` is not positive, and as `Modality`.

    Example:

    >>> class Readings(Series):
    ...     input_name, step_shape, element_dim = "readings", (3,), 3
    ...
    ...     def elements(self, inputs):
    ...         return inputs
    >>> layer = Readings(24, num_bands=4, use_mask=True)
    >>> tuple(layer(keras.random.normal((2, 10, 3))).shape)
    (2, 10, 12)
    """

    step_shape = ()

    def __init__(self, max_length: int, **kwargs: Any) -> None:
        check_positive(max_length=max_length)
        super().__init__(**kwargs)
        self._max_length = max_length

    @property
    def input_shape(self):
        return (None if self.use_mask else self._max_length, *self.step_shape)

    @property
    def mask_shape(self):
        return self.input_shape[:1]

    @property
    def example_shape(self):
        return (self._max_length, *self.step_shape)

    @property
    def dynamic_lengths(self):
        return dict.fromkeys(super().dynamic_lengths, (1, self._max_length))

    @property
    def grid(self):
        return self.grid_of((self._max_length,))

    def is_valid_shape(self, sizes):
        if not super().is_valid_shape(sizes):
            return False
        length = sizes[0]
        return not isinstance(length, int) or length <= self._max_length

    def positions(self, elements, inputs):
        whole = ops.zeros((1, *self.grid, self.element_dim), self.compute_dtype)
        positions = self.position_encoding(whole)  # (1, M of the maximum length, P)
        batch_size, num_frames, *rest = ops.shape(elements)[:-1]
        num_inputs = num_frames * (grid_size(rest) or 1)
        shape = (batch_size, num_inputs, positions.shape[-1])
        return ops.broadcast_to(positions[:, :num_inputs], shape)
