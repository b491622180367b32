"""Activations that Keras has, but under no name that a config can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from keras_perceiver._typing import Tensor


@keras.saving.register_keras_serializable(package="keras_perceiver")
def gelu_tanh(x: Tensor) -> Tensor:
    """Returns the tanh approximation of the GELU, that of DeepMind's code.

    Reference:
        [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415), section 2.

    Args:
        x: Tensor.
    """
    return keras.activations.gelu(x, approximate=True)
