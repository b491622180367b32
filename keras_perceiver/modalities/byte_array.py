"""The byte array: the inputs of one or several modalities as one array."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_fraction, check_positive
from keras_perceiver.layers.arguments import ArgumentsConfig
from keras_perceiver.layers.arrays import learned_array_initializer
from keras_perceiver.layers.seeds import DrawnSeed, draw_seed
from keras_perceiver.modalities.base import Modality


@keras.saving.register_keras_serializable(package="keras_perceiver")
class ByteArray(ArgumentsConfig, keras.layers.Layer):
    """Concatenates the elements of all modalities into the inputs of a Perceiver.

    The elements of a single modality are returned unchanged. With several modalities,
    the elements of each are padded to a common width, the largest one plus
    `modality_dim`, by a learned vector that identifies the modality. A modality whose
    mask is all `False` is missing from an example.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2 and
        appendix C (modality encodings, and video dropout for 30 % of the examples).

    Args:
        modality: Modality layer, or dict of modality layers by name.
        modality_dim: Integer, width of the learned vector of the widest modality. It
            has no effect on a single modality.
        modality_dropout: Float in `[0, 1)`, or dict of floats by modality name.
            Training masks a modality of an example at this rate, but never the only
            remaining one. It needs several modalities.
        element_dropout: Float in `[0, 1)`, or dict of floats by modality name. Training
            masks elements at this rate.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`. The dtype
            policy defaults to that of the first modality.

    Call arguments:
        inputs: Dict of the raw inputs of every modality by name, and of the boolean
            mask of raw positions (`False` for padding) of modalities with `use_mask`,
            whose key has the suffix `"_mask"`. Without a mask, there is no padding. The
            name of a single modality is its `input_name`, and its raw inputs may be
            passed without a dict.
        training: Boolean, whether modalities and elements are dropped.

    Returns:
        Tensor of shape `(batch, num_inputs, input_dim)`, the elements in the order of
        the modalities. If `has_mask` is `True`, because of dropout or a modality with
        `use_mask`, a tuple of this tensor and the boolean mask of the elements of shape
        `(batch, num_inputs)`.

    Raises:
        TypeError: if `modality` is neither a modality layer nor a dict of them.
        ValueError: if a size or rate is out of range, if a rate has an unknown modality
            name, if modality dropout is used with one modality, if a name ends with
            `"_mask"`, or if the inputs or the mask of a modality are missing or
            invalid.

    Example:

    >>> byte_array = ByteArray(
    ...     {
    ...         "image": Image((8, 8, 3), num_bands=4),  # 64 elements, 3 + 18 wide
    ...         "audio": Audio(800, 8000, patch_size=20, num_bands=4),  # 40, 20 + 9
    ...     }
    ... )
    >>> images = keras.random.normal((2, 8, 8, 3))
    >>> sounds = keras.random.uniform((2, 800), -1, 1)
    >>> tuple(byte_array({"image": images, "audio": sounds}).shape)
    (2, 104, 33)
    """

    def __init__(
        self,
        modality: Modality | dict[str, Modality],
        modality_dim: int = 4,
        modality_dropout: float | dict[str, float] = 0.0,
        element_dropout: float | dict[str, float] = 0.0,
        **kwargs: Any,
    ) -> None:
        layers = modality_layers(modality)
        # Modalities cast by themselves, and define the dtype of their elements.
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = next((layer.dtype_policy for layer in layers), None)
        super().__init__(autocast=False, **kwargs)
        self.is_single = not isinstance(modality, dict)
        self.modalities: dict[Any, Modality] = (
            dict(modality)
            if isinstance(modality, dict)
            else {modality.input_name: modality}
        )
        if not self.modalities or any(n.endswith("_mask") for n in self.modalities):
            raise ValueError(
                "`modality` must have names that do not end with '_mask', like those of "
                f"masks. Received: names {list(self.modalities)}. Rename the modalities."
            )
        check_positive(modality_dim=modality_dim)
        self.modality_dim = modality_dim
        self.modality_dropout = modality_dropout
        self.element_dropout = element_dropout
        self._modality_rates = self._rates("modality_dropout", modality_dropout)
        self._element_rates = self._rates("element_dropout", element_dropout)
        if any(self._modality_rates.values()) and len(self.modalities) == 1:
            raise ValueError(
                "`modality_dropout` needs several modalities. Received: "
                f"modality_dropout={modality_dropout} for {list(self.modalities)} only. "
                "Set it to 0.0, or use `element_dropout`."
            )
        self._has_dropout = any(
            (*self._modality_rates.values(), *self._element_rates.values())
        )
        if self._has_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def _rates(self, name, rates):
        """Returns the rate of every modality."""
        if not isinstance(rates, dict):
            rates = dict.fromkeys(self.modalities, rates)
        unknown = set(rates) - set(self.modalities)
        if unknown:
            raise ValueError(
                f"The keys of `{name}` must be modalities. Received: {sorted(unknown)}. "
                f"The modalities are {list(self.modalities)}."
            )
        for rate in rates.values():
            check_fraction(**{name: rate})
        return {modality: rates.get(modality, 0.0) for modality in self.modalities}

    @property
    def modality(self):
        """The modality layer, or the dict of modality layers by name."""
        if self.is_single:
            return next(iter(self.modalities.values()))
        return dict(self.modalities)

    @property
    def has_mask(self):
        """Boolean, whether a call also returns a mask."""
        uses_mask = any(modality.use_mask for modality in self.modalities.values())
        return self._has_dropout or uses_mask

    def build(self, inputs_shape):
        inputs_shape = self._by_name(inputs_shape)
        widths = {}
        for name, modality in self.modalities.items():
            if not modality.built:  # models may share it
                modality.build(inputs_shape[name])
            widths[name] = modality.compute_output_shape(inputs_shape[name])[-1]
        self._dim = max(widths.values())
        if self.is_single:
            return
        self._dim += self.modality_dim
        self.modality_features = {
            name: self.add_weight(
                shape=(self._dim - width,),
                initializer=learned_array_initializer(),
                name=f"{name}_features",
            )
            for name, width in widths.items()
        }

    def call(self, inputs, training=None):
        inputs = self._by_name(inputs)
        arrays, masks = [], []
        for name, modality in self.modalities.items():
            mask = inputs.get(f"{name}_mask") if modality.use_mask else None
            # `training` is passed explicitly, since not every trainer passes it to
            # inner layers.
            elements = modality(inputs[name], inputs_mask=mask, training=training)
            elements = ops.cast(elements, self.compute_dtype)  # (B, M_i, C_i)
            if not self.is_single:
                features = ops.cast(self.modality_features[name], self.compute_dtype)
                shape = (*ops.shape(elements)[:2], features.shape[0])
                features = ops.broadcast_to(features, shape)
                elements = ops.concatenate([elements, features], axis=-1)
            arrays.append(elements)
            if self.has_mask:  # modalities without a mask have all elements
                masks.append(
                    ops.ones(ops.shape(elements)[:2], "bool")
                    if mask is None
                    else modality.elements_mask(mask)
                )
        elements = arrays[0] if self.is_single else ops.concatenate(arrays, axis=1)
        if not self.has_mask:
            return elements
        if self._has_dropout and training:
            masks = self._drop(masks)
        return elements, masks[0] if self.is_single else ops.concatenate(masks, axis=1)

    def _drop(self, masks):
        """Applies both dropouts to the masks `(B, M_i)` of the modalities."""
        rates = list(self._modality_rates.values())
        if any(rates):
            present = ops.stack([ops.any(mask, axis=1) for mask in masks], axis=1)
            rates = ops.convert_to_tensor(rates, "float32")
            drawn = self._draw(ops.shape(present)) >= rates  # (B, modalities)
            # If no modality of an example would be left, it keeps all of them.
            keep = drawn | ~ops.any(drawn & present, axis=1, keepdims=True)
            masks = [mask & keep[:, i, None] for i, mask in enumerate(masks)]
        rates = self._element_rates.values()
        return [
            mask & (self._draw(ops.shape(mask)) >= rate) if rate else mask
            for mask, rate in zip(masks, rates, strict=True)
        ]

    def _draw(self, shape):
        """Draws uniform random numbers in [0, 1)."""
        seed = DrawnSeed(draw_seed(self.seed_generator))
        return keras.random.uniform(shape, dtype="float32", seed=seed)

    def compute_output_spec(self, inputs, training=None):
        shapes = [
            modality.compute_output_shape(self._by_name(inputs)[name].shape)
            for name, modality in self.modalities.items()
        ]
        lengths = [shape[1] for shape in shapes]
        shape = (shapes[0][0], None if None in lengths else sum(lengths))
        elements = keras.KerasTensor((*shape, self._dim), self.compute_dtype)
        if not self.has_mask:
            return elements
        return elements, keras.KerasTensor(shape, "bool")

    def _by_name(self, inputs):
        if not isinstance(inputs, dict):
            return dict.fromkeys(self.modalities, inputs)
        missing = [name for name in self.modalities if name not in inputs]
        if missing:
            raise ValueError(
                f"The inputs must have the keys {list(self.modalities)}. Received: "
                f"{sorted(inputs)}. Add {missing}."
            )
        return inputs


def modality_layers(modality):
    """Returns the modality layers of a model as a list.

    Args:
        modality: Modality layer or dict of them.

    Raises:
        TypeError: if it is neither.
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
