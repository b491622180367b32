"""The Perceiver: raw inputs to latents."""

import keras
import numpy as np

from keras_perceiver.layers import ByteArray, IterativeAttention, LatentArray
from keras_perceiver.modalities.base import Modality
from keras_perceiver.models.checked_model import CheckedModel


def checked_modalities(modality):
    """Returns the modality layers of a model as a list.

    Args:
        modality: Modality layer or dict of them.

    Raises:
        TypeError: if it is none.
    """
    layers = list(modality.values()) if isinstance(modality, dict) else [modality]
    for layer in layers:
        if not isinstance(layer, Modality):
            raise TypeError(
                "`modality` must be a modality layer or a dict of them. Received: "
                f"{layer!r} of type {type(layer).__name__}. "
                "Pass for example `keras_perceiver.Image((height, width, channels))`."
            )
    return layers


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Perceiver(CheckedModel):
    """The iterative encoder: raw inputs of any kind to an array of latents.

    A small learned latent array reads the inputs through cross-attends and refines
    what it read with latent Transformers, again and again. Compute and memory are
    linear in the number of input elements, and the depth does not depend on it.
    Defaults are the paper's setting for ImageNet.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206).

    Args:
        modality: Modality layer that turns the raw inputs into elements, such as
            `keras_perceiver.Image((224, 224, 3))`, or dict of modality layers by name.
        num_latents: Integer, number of latents N.
        latent_dim: Integer, width of each latent D.
        num_blocks: Integer, number of latent Transformers in the sequence.
        num_self_attends_per_block: Integer, self-attends in each latent Transformer.
        num_cross_attends: Integer, number of cross-attends, at most `num_blocks`,
            spread evenly over the blocks. `None` means one per block; 1 gives the
            encoder of Perceiver IO.
        num_cross_attend_heads: Integer, attention heads of the cross-attends.
        num_self_attend_heads: Integer, attention heads of the self-attends.
        share_weights: Boolean. `True`: the first cross-attend has its own weights, all
            later ones share one set, and all latent Transformers share one set.
            `False`: nothing is shared.
        use_cross_attends_at_start: Boolean. `True`: all cross-attends come first, then
            all latent Transformers. `False`: they are interleaved.
        cross_attend_qk_dim: Integer, total width of the cross-attends' queries and
            keys. Defaults to the width of the elements.
        cross_attend_v_dim: Integer, total width of the cross-attends' values. Defaults
            to that of the queries and keys.
        cross_attend_widening_factor: Integer, hidden width of the cross-attends' MLPs
            over `latent_dim`.
        self_attend_qk_dim: Integer, total width of the self-attends' queries and keys.
            Defaults to `latent_dim`.
        self_attend_v_dim: Integer, total width of the self-attends' values. Defaults
            to that of the queries and keys.
        self_attend_widening_factor: Integer, hidden width of the self-attends' MLPs
            over `latent_dim`.
        activation: Activation of all MLPs. Defaults to the exact GELU.
        dropout: Float in `[0, 1)`, rate at the end of every residual branch. The paper
            uses none.
        use_remat: Boolean. `True`: training keeps only the input of each self-attend
            and computes the rest again in the backward pass, dropout included: up to a
            third more compute for less memory.
        modality_dim: Integer, see `ByteArray`.
        modality_dropout: Float in `[0, 1)`, or dict of these by the modality's name:
            rate at which training hides a modality of an example, never its last one.
        element_dropout: Float in `[0, 1)`, or dict of these by the modality's name:
            rate at which training hides elements.
        dtype: Dtype policy of latents and attention. Defaults to the global policy.
            The modality layers bring their own.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: What the modality reads, for `Image` a tensor of shape
            `(batch, height, width, channels)`. With `use_mask`, a dict of it and its
            mask, `{"image": ..., "image_mask": ...}`; for a dict of modalities, a dict
            with the inputs of all of them, and the masks of those with `use_mask`.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`.

    Raises:
        TypeError: if `modality` is neither a modality layer nor a dict of them.
        ValueError: if a size is not positive, if a width is not divisible by its number
            of heads, if `num_cross_attends > num_blocks`, if `ByteArray` refuses its
            settings, or if the inputs of a call do not fit the modalities.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> tuple(encoder(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 16, 64)
    """

    def __init__(
        self,
        modality,
        num_latents=512,
        latent_dim=1024,
        num_blocks=8,
        num_self_attends_per_block=6,
        num_cross_attends=None,
        num_cross_attend_heads=1,
        num_self_attend_heads=8,
        share_weights=True,
        use_cross_attends_at_start=False,
        cross_attend_qk_dim=None,
        cross_attend_v_dim=None,
        cross_attend_widening_factor=1,
        self_attend_qk_dim=None,
        self_attend_v_dim=None,
        self_attend_widening_factor=1,
        activation="gelu",
        dropout=0.0,
        use_remat=False,
        modality_dim=4,
        modality_dropout=0.0,
        element_dropout=0.0,
        dtype=None,
        **kwargs,
    ):
        modalities = checked_modalities(modality)
        byte_array = ByteArray(
            modality,
            modality_dim=modality_dim,
            modality_dropout=modality_dropout,
            element_dropout=element_dropout,
            # That of the elements, for the trunk to read all their digits.
            dtype=next((layer.dtype_policy for layer in modalities), None),
            name="byte_array",
        )
        latent_array = LatentArray(
            num_latents, latent_dim, dtype=dtype, name="latent_array"
        )
        iterative_attention = IterativeAttention(
            num_blocks=num_blocks,
            num_self_attends_per_block=num_self_attends_per_block,
            num_cross_attends=num_cross_attends,
            num_cross_attend_heads=num_cross_attend_heads,
            num_self_attend_heads=num_self_attend_heads,
            share_weights=share_weights,
            use_cross_attends_at_start=use_cross_attends_at_start,
            cross_attend_qk_dim=cross_attend_qk_dim,
            cross_attend_v_dim=cross_attend_v_dim,
            cross_attend_widening_factor=cross_attend_widening_factor,
            self_attend_qk_dim=self_attend_qk_dim,
            self_attend_v_dim=self_attend_v_dim,
            self_attend_widening_factor=self_attend_widening_factor,
            activation=activation,
            dropout=dropout,
            use_remat=use_remat,
            dtype=dtype,
            name="iterative_attention",
        )

        inputs = {}
        for name, layer in byte_array.modalities.items():
            inputs[name] = keras.Input(
                layer.input_shape, dtype=layer.input_dtype, name=name
            )
            if layer.use_mask:
                mask_name = f"{name}_mask"
                inputs[mask_name] = keras.Input(
                    layer.mask_shape, dtype="bool", name=mask_name
                )
        elements, inputs_mask = byte_array(inputs)  # (B, M, C), (B, M)
        latents = iterative_attention(
            latent_array(elements), elements, inputs_mask=inputs_mask
        )
        if byte_array.is_single and len(inputs) == 1:
            (inputs,) = inputs.values()
        super().__init__(
            inputs=inputs, outputs=latents, dtype=latent_array.dtype_policy, **kwargs
        )

        self.byte_array = byte_array
        self.latent_array = latent_array
        self.iterative_attention = iterative_attention

    @property
    def modality(self):
        """The modality layer, or the dict of modality layers by name."""
        return self.byte_array.modality

    def check_inputs(self, inputs):
        names = [x.name for x in self.inputs]
        if not isinstance(inputs, dict):
            inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            inputs = dict(zip(names, inputs, strict=False))
        missing = [name for name in names if inputs.get(name) is None]
        if missing:
            raise ValueError(
                f"The inputs must be {names}. Received: {sorted(inputs)}. "
                f"Add {missing}, as in `model({{name: array}})` with all these names."
            )
        for name, modality in self.byte_array.modalities.items():
            mask = inputs[f"{name}_mask"] if modality.use_mask else None
            modality.check_inputs(inputs[name].shape, getattr(mask, "shape", None))
            if isinstance(inputs[name], np.ndarray):
                modality.check_values(inputs[name], mask)

    @property
    def modalities(self):
        """Dict of the modality layers by name."""
        return self.byte_array.modalities

    def serving_outputs(self, y_pred):
        """Returns the dict of outputs of an exported encoder."""
        return {"latents": y_pred}

    def card_entries(self):
        """Returns the dict of what the card of an exported encoder says besides."""
        return {}

    def has_values_to_check(self, name):
        modality = self.byte_array.modalities[name.removesuffix("_mask")]
        has_own_check = type(modality).check_values is not Modality.check_values
        return has_own_check or modality.input_range is not None

    def get_config(self):
        # The model has a name and a trainable switch of its own, and the dtype is that
        # of the trunk.
        return {
            **self.byte_array.get_config(),
            **self.iterative_attention.get_config(),
            "num_latents": self.latent_array.num_latents,
            "latent_dim": self.latent_array.latent_dim,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        modality = keras.saving.deserialize_keras_object(
            config["modality"], custom_objects=custom_objects
        )
        return cls(**{**config, "modality": modality})
