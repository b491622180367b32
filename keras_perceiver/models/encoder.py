"""The Perceiver: an encoder from raw inputs to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_perceiver._checks import check_backend_variable
from keras_perceiver.layers import IterativeAttention, LatentArray
from keras_perceiver.layers.arguments import restored_argument
from keras_perceiver.layers.composite import inner_settings, restore_inner_settings
from keras_perceiver.modalities import ByteArray, Modality
from keras_perceiver.models import handles
from keras_perceiver.models.checked_model import CheckedModel, to_numpy
from keras_perceiver.models.lora import (
    LORA_LAYER_NAMES,
    enable_lora,
    load_lora_weights,
    save_lora_weights,
)
from keras_perceiver.models.scale import needs_scale, warn_unscaled

if TYPE_CHECKING:
    from keras_perceiver.layers import CrossAttend, SelfAttend


class Encoded(NamedTuple):
    """The result of `Perceiver.encode`: everything that a decoder may need.

    Attributes:
        latents: Tensor of shape `(batch, num_latents, latent_dim)`.
        inputs: Tensor of shape `(batch, num_inputs, input_dim)`, the byte array: the
            elements of all modalities with their positions.
        inputs_mask: Boolean tensor of shape `(batch, num_inputs)`, `False` for padding,
            or `None` if the model has no masks.
    """

    latents: Any
    inputs: Any
    inputs_mask: Any = None


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Perceiver(CheckedModel):
    """Encodes raw inputs of any modality as an array of latents.

    A small array of learned latents repeatedly attends to the inputs and is refined by
    latent Transformers. Compute and memory are linear in the number of input elements,
    and the depth is independent of it. The defaults are the paper's for ImageNet.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206).

    Args:
        modality: Modality layer that turns the raw inputs into elements, such as
            `keras_perceiver.Image((224, 224, 3))`, or dict of modality layers by name,
            or a `ByteArray` with further options, such as modality dropout.
        num_latents: Integer, number of latents N.
        latent_dim: Integer, width of each latent D.
        num_blocks: Integer, number of latent Transformers in the sequence.
        num_self_attends_per_block: Integer, self-attends in each latent Transformer.
        num_cross_attends: Integer, number of cross-attends, at most `num_blocks`,
            spread evenly over the blocks. `None` means one per block, and 1 gives the
            encoder of Perceiver IO.
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
        dtype: Dtype policy of latents and attention. Defaults to the global policy.
            Modality layers have their own.
        inner_settings: Dict of settings of inner layers, such as `trainable`, in the
            config of a saved model, see `CompositeLayer`.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: Raw inputs of the modality, such as a tensor of shape
            `(batch, height, width, channels)` for `Image`. With `use_mask`, a dict of
            the inputs and their mask, `{"image": ..., "image_mask": ...}`. With several
            modalities, a dict of the inputs of all modalities, and of the masks of
            those with `use_mask`.
        training: Boolean, whether dropout is active.

    Returns:
        Tensor of shape `(batch, num_latents, latent_dim)`. `encode` also returns the
        inputs and their mask.

    Raises:
        TypeError: if `modality` is neither a modality layer nor a dict of them, or if a
            template is of another class.
        ValueError: if a size is not positive, if a width is not divisible by its number
            of heads, if `num_cross_attends > num_blocks`, if a template is built, or if
            the inputs of a call are invalid for the modalities.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> tuple(encoder(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 16, 64)
    """

    def __init__(
        self,
        modality: Modality | dict[str, Modality] | ByteArray,
        num_latents: int = 512,
        latent_dim: int = 1024,
        num_blocks: int = 8,
        num_self_attends_per_block: int = 6,
        num_cross_attends: int | None = None,
        cross_attend: CrossAttend | None = None,
        self_attend: SelfAttend | None = None,
        share_weights: bool = True,
        use_cross_attends_at_start: bool = False,
        use_remat: bool = False,
        dtype: str | keras.DTypePolicy | None = None,
        *,
        inner_settings: dict | None = None,
        **kwargs: Any,
    ) -> None:
        check_backend_variable(keras.backend.backend())
        is_byte_array = isinstance(modality, ByteArray)
        byte_array = (
            modality
            if isinstance(modality, ByteArray)
            else ByteArray(modality, name="byte_array")
        )
        latent_array = LatentArray(
            num_latents, latent_dim, dtype=dtype, name="latent_array"
        )
        iterative_attention = IterativeAttention(
            num_blocks,
            num_self_attends_per_block,
            num_cross_attends,
            cross_attend,
            self_attend,
            share_weights,
            use_cross_attends_at_start,
            use_remat,
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
        outputs = byte_array(inputs)
        elements, mask = outputs if byte_array.has_mask else (outputs, None)
        latents = iterative_attention(
            latent_array(elements), elements, inputs_mask=mask
        )
        if byte_array.is_single and len(inputs) == 1:
            (inputs,) = inputs.values()
        super().__init__(
            inputs=inputs,
            outputs=latents,
            # Determines whether Keras scales the loss.
            dtype=iterative_attention.dtype_policy,
            **kwargs,
        )

        self._is_byte_array = is_byte_array
        self.byte_array = byte_array
        self.latent_array = latent_array
        self.iterative_attention = iterative_attention
        self._encoded = {"latents": latents, "inputs": elements}  # (B, N, D), (B, M, C)
        if mask is not None:
            self._encoded["inputs_mask"] = mask  # (B, M)
        restore_inner_settings(self, inner_settings)

    @classmethod
    def from_preset(cls, name, load_weights=True, **overrides):
        """Creates an encoder from a preset: its settings, and its weights if it has any.

        Args:
            name: As for `PerceiverClassifier.from_preset`.
            load_weights: Boolean. `False`: only the settings of a folder or hub.
            **overrides: Arguments of `Perceiver` that replace those of the preset, by
                dotted paths such as `num_latents` and `cross_attend.num_heads`.

        Returns:
            `Perceiver`.

        Raises:
            ValueError: as `PerceiverClassifier.from_preset`.
            FileNotFoundError: as `PerceiverClassifier.from_preset`.
        """
        from keras_perceiver.models.presets import (  # which needs this class
            PRESETS,
            built_in,
        )

        if not handles.is_handle(name) or name in PRESETS:
            return built_in(name).encoder.replace(overrides)()
        model = handles.load(name, load_weights=load_weights, overrides=overrides)
        return model if isinstance(model, cls) else model.encoder

    def save_to_preset(self, folder):
        """Writes the encoder for `from_preset`.

        Args:
            folder: Path of a folder, which is created.
        """
        handles.save(self, folder)

    def encode(self, inputs, training=None):
        """Returns the latents together with the inputs that they attend to.

        It is for decoders, which attend to the latents with queries made from the inputs.
        For symbolic inputs, it is a single node of the functional model.

        Args:
            inputs: As for a call.
            training: Boolean, whether dropout is active.

        Returns:
            `Encoded`.
        """
        return Encoded(**self.view(inputs, training=training))

    @property
    def view(self):
        """The functional model of the same layers behind `encode`."""
        if "_view" not in self.__dict__:
            # Not tracked: Keras would take it for a part of the model.
            view = keras.Model(self.input, self._encoded, name=self.name)
            self.__dict__["_view"] = view
        return self.__dict__["_view"]

    def enable_lora(self, rank, target_layer_names=LORA_LAYER_NAMES):
        """Freezes all layers and adds low-rank adapters to some of them.

        Training then updates only the adapters and the layers outside of the encoder.
        Saving the model merges adapters into its weights. `save_lora_weights` saves them
        separately.

        Reference:
            [Hu et al., 2021](https://arxiv.org/abs/2106.09685).

        Args:
            rank: Integer, rank of the adapters.
            target_layer_names: Sequence of strings, names of linear layers. Defaults to
                those of queries and values.

        Raises:
            ValueError: if a name is not that of a linear layer, or if there are
                adapters already.
        """
        enable_lora(self, rank, target_layer_names)

    def save_lora_weights(self, filepath):
        """Saves the adapters without the other weights.

        Args:
            filepath: Path that ends with `.lora.h5`.

        Raises:
            ValueError: if the path does not end with `.lora.h5`, or if there are no
                adapters.
        """
        save_lora_weights(self, filepath)

    def load_lora_weights(self, filepath):
        """Loads adapters that were saved from an encoder of the same architecture.

        Args:
            filepath: Path that ends with `.lora.h5`.

        Raises:
            ValueError: if the path does not end with `.lora.h5`, or if the adapters are
                for other layers or sizes.
        """
        load_lora_weights(self, filepath)

    def macs(self, num_inputs):
        """Returns the multiply-accumulates per example, see `AttentionBlock.macs`.

        Args:
            num_inputs: Integer, number of elements of all modalities together.
        """
        num_latents, latent_dim = self.output_shape[1:]
        return self.iterative_attention.macs(
            num_latents, num_inputs, latent_dim, self.input_dim
        )

    @property
    def input_dim(self):
        """Width of the inputs: an element with its positions."""
        return self._encoded["inputs"].shape[-1]

    @property
    def modality(self):
        """The modality layer, or the dict of modality layers by name."""
        return self.byte_array.modality

    def check_inputs(self, inputs):
        names, inputs = self._input_names, self._by_name(inputs)
        missing = [name for name in names if inputs.get(name) is None]
        if missing:
            raise ValueError(
                f"The inputs must have the keys {names}. Received: {sorted(inputs)}. "
                f"Add {missing}."
            )
        for name, modality in self.byte_array.modalities.items():
            mask = inputs[f"{name}_mask"] if modality.use_mask else None
            modality.check_inputs(inputs[name].shape, getattr(mask, "shape", None))
            if isinstance(inputs[name], np.ndarray):
                modality.check_values(inputs[name], mask)

    def _by_name(self, inputs):
        if isinstance(inputs, dict):
            return inputs
        inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        return dict(zip(self._input_names, inputs, strict=False))

    def check_scale(self, inputs, preprocessors=None):
        """Warns about inputs that are far from -1 to 1.

        Args:
            inputs: Array, or dict of arrays.
            preprocessors: Dict of the `Preprocessor` by modality name, whose ranges of
                values are right, or `None`.
        """
        inputs = self._by_name(inputs)
        for name, modality in self.modalities.items():
            if needs_scale(modality, (preprocessors or {}).get(name)):
                mask = inputs.get(f"{name}_mask") if modality.use_mask else None
                mask = mask if mask is None else to_numpy(mask)
                warn_unscaled(name, modality, to_numpy(inputs[name]), mask)

    @property
    def modalities(self):
        """Dict of the modality layers by name."""
        return self.byte_array.modalities

    def serving_outputs(self, y_pred):
        """Returns the dict of outputs of an exported encoder."""
        return {"latents": y_pred}

    @property
    def separately_stored(self):
        return tuple(self.byte_array.modalities.values())

    def card_entries(self):
        """Returns a dict of additional entries for the card of an exported encoder."""
        return {}

    def has_values_to_check(self, name):
        modality = self.byte_array.modalities[name.removesuffix("_mask")]
        has_own_check = type(modality).check_values is not Modality.check_values
        return has_own_check or modality.input_range is not None

    def get_config(self):
        config = {**self.iterative_attention.get_config()}
        settings = inner_settings(self)
        config.pop("inner_settings", None)  # included in those of the model
        if settings:
            config["inner_settings"] = settings
        return {
            **config,  # with the dtype of the model
            "modality": keras.saving.serialize_keras_object(
                self.byte_array if self._is_byte_array else self.modality
            ),
            "num_latents": self.latent_array.num_latents,
            "latent_dim": self.latent_array.latent_dim,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        layers = {
            name: restored_argument(config[name], custom_objects)
            for name in ("modality", "cross_attend", "self_attend")
        }
        return cls(**{**config, **layers})
