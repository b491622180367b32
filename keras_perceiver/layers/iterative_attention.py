"""The trunk of the Perceiver: alternating cross-attends and latent Transformers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_positive
from keras_perceiver.layers.composite import CompositeLayer, check_template, clone_layer
from keras_perceiver.layers.cross_attend import CrossAttend
from keras_perceiver.layers.latent_transformer import LatentTransformer
from keras_perceiver.layers.norm import inverse_std
from keras_perceiver.layers.repeat import run_blocks
from keras_perceiver.layers.self_attend import SelfAttend


@keras.saving.register_keras_serializable(package="keras_perceiver")
class IterativeAttention(CompositeLayer):
    """Alternates between cross-attends to the inputs and latent Transformers.

    It is a sequence of blocks, each a cross-attend to the inputs followed by a latent
    Transformer. Fewer cross-attends than blocks are spread evenly, starting with the
    first block.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1, figure 1,
        and table 6 for the arrangements.

    Args:
        num_blocks: Integer, number of latent Transformers in the sequence.
        num_self_attends_per_block: Integer, self-attends in each latent Transformer.
        num_cross_attends: Integer, number of cross-attends, at most `num_blocks`.
            `None` means one per block; 1 gives the encoder of Perceiver IO.
        cross_attend: Unbuilt `CrossAttend`, a template whose settings all cross-attends
            have, except for name and dtype. Defaults to the paper's,
            `CrossAttend(num_heads=1)`.
        self_attend: Unbuilt `SelfAttend`, a template whose settings all self-attends
            have. Defaults to the paper's, `SelfAttend(num_heads=8)`.
        share_weights: Boolean. `True`: the first cross-attend has its own weights, all
            later ones share one set, and all latent Transformers share one set.
            `False`: nothing is shared.
        use_cross_attends_at_start: Boolean. `True`: all cross-attends come first, then
            all latent Transformers. `False`: they are interleaved.
        use_remat: Boolean. `True`: training keeps only the input of each self-attend
            and recomputes the rest in the backward pass, including dropout. This saves
            memory for up to a third more compute.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for padding,
            or `None`.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        TypeError: if a template is of another class.
        ValueError: if a size is not positive, if `num_cross_attends > num_blocks`, if a
            template is built, or if a width is not divisible by its number of heads.

    Example:

    >>> latents = keras.random.normal((2, 32, 64))
    >>> pixels = keras.random.normal((2, 1024, 261))
    >>> trunk = IterativeAttention(
    ...     num_blocks=2, num_self_attends_per_block=1, self_attend=SelfAttend(num_heads=4)
    ... )
    >>> tuple(trunk(latents, pixels).shape)
    (2, 32, 64)
    """

    def __init__(
        self,
        num_blocks: int = 8,
        num_self_attends_per_block: int = 6,
        num_cross_attends: int | None = None,
        cross_attend: CrossAttend | None = None,
        self_attend: SelfAttend | None = None,
        share_weights: bool = True,
        use_cross_attends_at_start: bool = False,
        use_remat: bool = False,
        **kwargs: Any,
    ) -> None:
        # As in `CrossAttend`, inputs keep their precision.
        super().__init__(autocast=False, **kwargs)
        check_positive(
            num_blocks=num_blocks, num_self_attends_per_block=num_self_attends_per_block
        )
        if num_cross_attends is not None:
            check_positive(num_cross_attends=num_cross_attends)
            if num_cross_attends > num_blocks:
                raise ValueError(
                    "`num_cross_attends` must not exceed `num_blocks`. Received: "
                    f"num_cross_attends={num_cross_attends}, num_blocks={num_blocks}. "
                    f"Set `num_cross_attends` to {num_blocks} or fewer, or to None for "
                    "one per block."
                )
        cross_attend = CrossAttend() if cross_attend is None else cross_attend
        self_attend = SelfAttend() if self_attend is None else self_attend
        check_template("cross_attend", cross_attend, CrossAttend)
        check_template("self_attend", self_attend, SelfAttend)
        self.num_blocks = num_blocks
        self.num_self_attends_per_block = num_self_attends_per_block
        self.num_cross_attends = num_cross_attends
        self.share_weights = share_weights
        self.use_cross_attends_at_start = use_cross_attends_at_start
        self.use_remat = use_remat
        # Serialized, so that the templates do not become inner layers.
        self._templates = {
            "cross_attend": keras.saving.serialize_keras_object(cross_attend),
            "self_attend": keras.saving.serialize_keras_object(self_attend),
        }
        self.cross_attends = [
            clone_layer(cross_attend, f"cross_attend_{i}", self.dtype_policy)
            for i in range(self._num_unshared_cross_attends)
        ]
        self.latent_transformers = [
            LatentTransformer(
                num_self_attends_per_block,
                self_attend,
                use_remat=use_remat,
                dtype=self.dtype_policy,
                name=f"latent_transformer_{i}",
            )
            for i in range(1 if share_weights else num_blocks)
        ]

    @property
    def _num_unshared_cross_attends(self):
        num_cross_attends = self.num_cross_attends or self.num_blocks
        # The first cross-attend is never shared: the paper found that unstable.
        return min(num_cross_attends, 2) if self.share_weights else num_cross_attends

    def build(self, latents_shape, inputs_shape):
        for cross_attend in self.cross_attends:
            cross_attend.build(latents_shape, inputs_shape)
        for latent_transformer in self.latent_transformers:
            latent_transformer.build(latents_shape)
        self.restore_inner_settings()

    def macs(self, num_latents, num_inputs, latent_dim, input_dim):
        """Returns the multiply-accumulates per example, see `AttentionBlock.macs`."""
        return sum(
            layer.macs(num_latents, num_inputs, latent_dim, input_dim)
            if isinstance(layer, CrossAttend)
            else layer.macs(num_latents, latent_dim)
            for layer in self.sequence()
        )

    def num_parameters(self, latent_dim, input_dim):
        """Returns the number of parameters, see `AttentionBlock.num_parameters`."""
        cross_attends = [
            layer.num_parameters(latent_dim, input_dim) for layer in self.cross_attends
        ]
        transformers = [
            layer.num_parameters(latent_dim) for layer in self.latent_transformers
        ]
        return sum(cross_attends) + sum(transformers)

    def blocks(self):
        """Returns `sequence()` as blocks, tuples of cross-attend and latent Transformer.

        A block may have only one of them. Blocks of the same layers are equal tuples.
        """
        blocks = []
        for layer in self.sequence():
            is_second = isinstance(layer, LatentTransformer)
            if is_second and blocks and isinstance(blocks[-1][-1], CrossAttend):
                blocks[-1] = (*blocks[-1], layer)
            else:
                blocks.append((layer,))
        return blocks

    def sequence(self):
        """Returns the layers in the order of their calls, with shared ones repeated."""
        num_cross_attends = self.num_cross_attends or self.num_blocks
        cross_attends = [
            self.cross_attends[min(i, len(self.cross_attends) - 1)]
            for i in range(num_cross_attends)
        ]
        transformers = [
            self.latent_transformers[min(i, len(self.latent_transformers) - 1)]
            for i in range(self.num_blocks)
        ]
        if self.use_cross_attends_at_start:
            return cross_attends + transformers
        # Block i * num_blocks // num_cross_attends starts with the i-th cross-attend.
        layers = []
        for i, cross_attend in enumerate(cross_attends):
            start = i * self.num_blocks // num_cross_attends
            stop = (i + 1) * self.num_blocks // num_cross_attends
            layers += [cross_attend, *transformers[start:stop]]
        return layers

    def call(self, latents, inputs, inputs_mask=None, training=None):
        latents = ops.cast(latents, self.compute_dtype)
        attended = {"inputs": inputs, "inputs_mask": inputs_mask}
        shape = (latents.shape[1], *inputs.shape[1:])
        if any(layer.absorbs_projections(*shape) for layer in self.cross_attends):
            # Once for all cross-attends.
            attended["inputs_inverse_std"] = inverse_std(inputs, inputs_mask)

        def run(layer, latents, seeds, call=None):
            kwargs = attended if isinstance(layer, CrossAttend) else {}
            call = call or layer
            return call(latents, **kwargs, seeds=seeds, training=training)

        return run_blocks(run, latents, self.blocks(), training)

    def compute_output_shape(self, latents_shape, inputs_shape):
        return tuple(latents_shape)

    @property
    def stored_arguments(self):
        return {name: dict(template) for name, template in self._templates.items()}
