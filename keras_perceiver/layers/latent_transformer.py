"""The latent Transformer: a stack of self-attends."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.composite import CompositeLayer, check_template, clone_layer
from keras_perceiver.layers.recompute import call_with, recompute
from keras_perceiver.layers.self_attend import SelfAttend


@keras.saving.register_keras_serializable(package="keras_perceiver")
class LatentTransformer(CompositeLayer):
    """A stack of self-attends over the latents, which gives a Perceiver its depth.

    Its cost depends on the number of latents, not on the number of inputs.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        num_self_attends: Integer, number of `SelfAttend` layers.
        self_attend: Unbuilt `SelfAttend`, a template whose settings all of them have,
            except for name and dtype. Defaults to `SelfAttend()`.
        use_remat: Boolean. `True`: training keeps only the input of each self-attend
            and recomputes the rest in the backward pass, including dropout. This saves
            memory for a third more compute.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        seeds: Result of `draw_seeds`, to repeat the dropout of another call. `None` to
            draw new seeds.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        TypeError: if `self_attend` is not a `SelfAttend`.
        ValueError: if `num_self_attends` is not positive, if `self_attend` is built, or
            if `latents` does not fit it.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> tuple(LatentTransformer(num_self_attends=6)(latents).shape)
    (2, 32, 64)
    """

    def __init__(
        self,
        num_self_attends: int,
        self_attend: SelfAttend | None = None,
        use_remat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(num_self_attends=num_self_attends)
        self_attend = SelfAttend() if self_attend is None else self_attend
        check_template("self_attend", self_attend, SelfAttend)
        self.num_self_attends = num_self_attends
        self.use_remat = use_remat
        # Serialized, so that the template does not become an inner layer.
        self._self_attend = keras.saving.serialize_keras_object(self_attend)
        self.self_attends = [
            clone_layer(self_attend, f"self_attend_{i}", self.dtype_policy)
            for i in range(num_self_attends)
        ]

    def build(self, latents_shape):
        for self_attend in self.self_attends:
            self_attend.build(latents_shape)
        self.restore_inner_settings()

    def macs(self, num_latents, latent_dim):
        """Returns the multiply-accumulates per example, see `AttentionBlock.macs`."""
        shape = (num_latents, num_latents, latent_dim, latent_dim)
        return sum(self_attend.macs(*shape) for self_attend in self.self_attends)

    def num_parameters(self, latent_dim):
        """Returns the number of parameters, see `AttentionBlock.num_parameters`."""
        return sum(
            self_attend.num_parameters(latent_dim, latent_dim)
            for self_attend in self.self_attends
        )

    def draw_seeds(self, training):
        """Returns the seeds of a call, `(num_self_attends, 2, 2)`, or `None`."""
        seeds = [layer.draw_seeds(training) for layer in self.self_attends]
        return None if seeds[0] is None else ops.stack(seeds)

    def call(self, latents, seeds=None, training=None):
        if seeds is None:
            seeds = self.draw_seeds(training)
        for i, layer in enumerate(self.self_attends):
            seed = None if seeds is None else seeds[i]
            if self.use_remat and training:
                latents = _keep_latents_only(layer, latents, seed)
            else:
                latents = layer(latents, seeds=seed, training=training)
        return latents

    def compute_output_shape(self, latents_shape):
        return tuple(latents_shape)

    @property
    def stored_arguments(self):
        return {"self_attend": dict(self._self_attend)}


def _keep_latents_only(self_attend, latents, seed):
    """Returns the outputs of a self-attend in training, keeping only its input."""
    weights = [ops.copy(weight) for weight in self_attend.weights]

    def run(latents, *tensors):
        # The seed is an argument, so that the dropout of both runs is the same.
        seed = tensors[len(weights)] if tensors[len(weights) :] else None
        return call_with(
            self_attend, tensors[: len(weights)], latents, seeds=seed, training=True
        )

    return recompute(run, latents, *weights, *([] if seed is None else [seed]))
