"""Sequences of ids: tokens, bytes, events."""

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.modalities.base import Series


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Sequence(Series):
    """Turns sequences of ids into elements: learned vectors with position features.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2107.14795), section 4.1 (text as
        UTF-8 bytes).

    Args:
        max_length: Integer, number of ids; with `use_mask` the greatest number.
        vocabulary_size: Integer, number of different ids.
        embedding_dim: Integer, width of the vector of an id.
        num_bands: Integer, number of Fourier frequencies. Defaults to 64. Only for
            Fourier features, so not together with `position_encoding`.
        max_resolution: Integer, see `FourierPositionEncoding`. Defaults to `max_length`.
        position_encoding: Layer that is called on a tensor of shape
            `(batch, length, embedding_dim)` and returns position features of shape
            `(batch, length, features)`, such as `LearnedPositionEncoding`. Needs
            `compute_output_shape`. Defaults to
            `FourierPositionEncoding(num_bands, max_resolution)`.
        use_mask: Boolean. `True` gives a model a second input, the `inputs_mask` of the
            call, under the modality's name and `"_mask"`, and lets batches be shorter
            than `max_length`. Positions stay those of the greatest length.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer tensor of shape `(batch, length)`, ids in
            `[0, vocabulary_size)`. A model refuses NumPy arrays with others; in
            tensors they are an error, NaN or nonsense, as the backend has it.
        inputs_mask: Boolean tensor of shape `(batch, length)`, `False` for padding,
            which is read as id 0, or `None`.

    Returns:
        Tensor of shape `(batch, length, input_dim)`, with `input_dim` the width of the
        vector of an id and of its position features.

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
    _fix = "Cut or pad the sequences, or make the modality for this length."

    def __init__(
        self,
        max_length,
        vocabulary_size,
        embedding_dim,
        num_bands=None,
        max_resolution=None,
        position_encoding=None,
        use_mask=False,
        **kwargs,
    ):
        check_positive(
            max_length=max_length,
            vocabulary_size=vocabulary_size,
            embedding_dim=embedding_dim,
        )
        super().__init__(
            max_length, num_bands, max_resolution, position_encoding, use_mask, **kwargs
        )
        self.max_length = max_length
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim

    @property
    def _element_dim(self):
        return self.embedding_dim

    def _rule(self):
        at_most = "up to " if self.use_mask else ""
        return (
            f"Sequences must have shape `(batch, length)` with {at_most}"
            f"{self.max_length} ids."
        )

    def check_values(self, inputs, inputs_mask=None):
        ids = inputs if inputs_mask is None else inputs[np.asarray(inputs_mask, "bool")]
        low, high = np.min(ids, initial=0), np.max(ids, initial=0)
        if low < 0 or high >= self.vocabulary_size:
            raise ValueError(
                f"Ids must be in [0, {self.vocabulary_size}), the vocabulary. Received: "
                f"ids from {low} to {high}. "
                "Correct the ids, or make the modality with a larger vocabulary."
            )

    def random_inputs(self, rng, batch_size):
        shape = (batch_size, *self.example_shape)
        return rng.integers(0, self.vocabulary_size, shape).astype("int32")

    def build(self, inputs_shape):
        super().build(inputs_shape)
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size,
            self.embedding_dim,
            # As large as sines and cosines: all are normalised together.
            embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.embedding.build((None, *self.input_shape))

    def grid_of(self, lengths):
        return tuple(lengths)

    def _elements(self, inputs):
        return self.embedding(inputs)

    def get_config(self):
        return {
            **super().get_config(),
            "max_length": self.max_length,
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
        }
