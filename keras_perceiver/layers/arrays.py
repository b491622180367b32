"""Learned arrays: weights that do not depend on the inputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.arguments import ArgumentsConfig


def learned_array_initializer():
    """Returns a new initializer for latents and learned positions.

    It is the paper's truncated normal distribution with standard deviation 0.02. Keras
    truncates at two standard deviations, as DeepMind's code does.
    """
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LatentArray(ArgumentsConfig, keras.layers.Layer):
    """The learned initial state of the latents, repeated for every example.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1 and
        appendix C (initialization).

    Args:
        num_latents: Integer, number of latents N.
        latent_dim: Integer, width of each latent D.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`, of which only the batch size is used.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        ValueError: if a size is not positive.

    Example:

    >>> pixels = keras.random.normal((2, 1024, 261))
    >>> tuple(LatentArray(num_latents=32, latent_dim=64)(pixels).shape)
    (2, 32, 64)
    """

    def __init__(self, num_latents: int, latent_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(num_latents=num_latents, latent_dim=latent_dim)
        self.num_latents = num_latents
        self.latent_dim = latent_dim

    def build(self, inputs_shape):
        self.latents = self.add_weight(
            shape=(self.num_latents, self.latent_dim),
            initializer=learned_array_initializer(),
            name="latents",
        )

    def call(self, inputs):
        shape = (ops.shape(inputs)[0], self.num_latents, self.latent_dim)
        return ops.broadcast_to(ops.convert_to_tensor(self.latents)[None], shape)

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], self.num_latents, self.latent_dim)
