"""Sequences of ids: tokens, bytes, events."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.numbers import read_numbers
from keras_perceiver.modalities.series import Series

_NUM_BYTES = 256  # different values of a byte, so that ids are those of text as UTF-8


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Sequence(Series):
    """Sequences of ids as elements: learned embeddings with position features.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 4.1 (text as
        UTF-8 bytes).

    Args:
        max_length: Integer, number of ids. With `use_mask`, it is the maximum length:
            batches may be shorter, and positions are those of the maximum length.
        vocabulary_size: Integer, number of different ids.
        embedding_dim: Integer, width of the embedding of an id.
        **kwargs: Arguments of `Modality` (`num_bands`, `max_resolution`,
            `position_encoding`, `use_mask`, `projection_dim` and `use_added_positions`)
            and of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer tensor of shape `(batch, length)` with ids in
            `[0, vocabulary_size)`. For other ids, a model raises an error if they are
            in a NumPy array. In tensors they give an error, NaN or arbitrary values,
            depending on the backend.
        inputs_mask: Boolean tensor of shape `(batch, length)`, `False` for padding,
            which is set to id 0, or `None`.

    Returns:
        Tensor of shape `(batch, length, input_dim)`, where `input_dim` is
        `embedding_dim` plus the number of position features.

    Raises:
        ValueError: if a size is not positive, if both Fourier settings and
            `position_encoding` are given, or if `inputs` has another length.

    Example:

    >>> ids = np.array([[72, 105, 33, 0], [72, 111, 33, 10]])
    >>> tuple(Sequence(4, vocabulary_size=256, embedding_dim=8, num_bands=2)(ids).shape)
    (2, 4, 13)
    """

    input_name = "sequence"
    input_dtype = "int32"
    shape_fix = "Crop or pad the sequences, or create the modality for this length."

    def __init__(
        self, max_length: int, vocabulary_size: int, embedding_dim: int, **kwargs: Any
    ) -> None:
        check_positive(
            max_length=max_length,
            vocabulary_size=vocabulary_size,
            embedding_dim=embedding_dim,
        )
        super().__init__(max_length, **kwargs)
        self.max_length = max_length
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim

    @property
    def element_dim(self):
        return self.embedding_dim

    @property
    def shape_rule(self):
        at_most = "up to " if self.use_mask else ""
        return (
            f"Sequences must have shape `(batch, length)` with {at_most}"
            f"{self.max_length} ids."
        )

    @property
    def input_range(self):
        return (0, self.vocabulary_size - 1)

    def build(self, inputs_shape):
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size,
            self.embedding_dim,
            # As large as sines and cosines, since all are normalized together.
            embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.embedding.build((None, *self.input_shape))
        super().build(inputs_shape)

    def elements(self, inputs):
        return self.embedding(inputs)

    @property
    def text_hint(self):
        if self.vocabulary_size == _NUM_BYTES:
            return f"Type a text, which becomes up to {self.max_length} UTF-8 bytes."
        return (
            f"Type up to {self.max_length} ids from 0 to {self.vocabulary_size - 1}, "
            "separated by spaces."
        )

    def from_text(self, text):
        """Returns ids: the UTF-8 bytes of a text if there are 256, otherwise numbers.

        Without a mask, they are padded with id 0.

        Raises:
            ValueError: if the text is too long, or not of ids.
        """
        if self.vocabulary_size == _NUM_BYTES:
            ids = np.frombuffer(text.encode(), "uint8").astype(self.input_dtype)
        else:
            ids = read_numbers(text, self.input_name, (None,), self.input_dtype)
        if not 0 < len(ids) <= self.max_length:
            raise ValueError(
                f"A text must have from 1 to {self.max_length} ids. Received: {len(ids)}. "
                "Change the text."
            )
        missing = 0 if self.use_mask else self.max_length - len(ids)
        return np.pad(ids, (0, missing))
