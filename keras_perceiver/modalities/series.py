"""The base of modalities along time."""

from keras import ops

from keras_perceiver.layers.position import grid_size
from keras_perceiver.modalities.base import Modality


class Series(Modality):
    """Base of modalities along time, up to a maximum length.

    Positions are those of the maximum length, so that they mean the same time in every
    batch. With a mask, batches may be shorter.
    """

    def __init__(self, max_length, **kwargs):
        super().__init__(**kwargs)
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
    def dynamic_lengths(self):
        return dict.fromkeys(super().dynamic_lengths, (1, self._max_length))

    @property
    def grid(self):
        return self.grid_of(self.example_shape)

    def is_valid_shape(self, sizes):
        if not super().is_valid_shape(sizes):
            return False
        (length,) = sizes
        return not isinstance(length, int) or length <= self._max_length

    def positions(self, elements, inputs):
        whole = ops.zeros((1, *self.grid, self.element_dim), self.compute_dtype)
        positions = self.position_encoding(whole)  # (1, M of the maximum length, P)
        batch_size, num_frames, *rest = ops.shape(elements)[:-1]
        num_inputs = num_frames * (grid_size(rest) or 1)
        shape = (batch_size, num_inputs, positions.shape[-1])
        return ops.broadcast_to(positions[:, :num_inputs], shape)
