"""The Perceiver with a classification head, as in the paper."""

import keras
import numpy as np

from keras_perceiver._checks import check_positive
from keras_perceiver.models.perceiver import (
    CheckedModel,
    Perceiver,
    is_tf_dataset,
)
from keras_perceiver.models.presets import PRESETS


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverClassifier(CheckedModel):
    """The paper's classifier: mean over the latents, then one linear layer.

    A plain Keras model: `compile`, `fit`, `evaluate`, `predict`, `save`, `export`. The
    logits are float32 under every dtype policy, so compile it with a loss that takes
    logits: `keras.losses.SparseCategoricalCrossentropy(from_logits=True)` for one class
    an example, `keras.losses.BinaryCrossentropy(from_logits=True)` for any number of
    them, with targets of shape `(batch, num_classes)`.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        num_classes: Integer, number of classes.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: What the encoder reads.
        training: Boolean, whether dropout is active.

    Returns:
        Logits, float32 tensor of shape `(batch, num_classes)`.

    Raises:
        TypeError: if `encoder` is not a `Perceiver`.
        ValueError: if `num_classes` is not positive, if the inputs of a call do not fit
            the encoder, or if `fit` gets a class index that is negative or not below
            `num_classes` (in a `tf.data.Dataset`: TensorFlow's
            `InvalidArgumentError`, before the step with that batch).

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> model = PerceiverClassifier(encoder, num_classes=10)
    >>> tuple(model(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 10)
    """

    presets = PRESETS

    def __init__(self, encoder, num_classes, **kwargs):
        if not isinstance(encoder, Perceiver):
            raise TypeError(
                "`encoder` must be a `Perceiver`. Received: "
                f"encoder={encoder!r} of type {type(encoder).__name__}. "
                "Make one with `keras_perceiver.Perceiver(modality, ...)`, or use "
                "`PerceiverClassifier.from_preset(name, num_classes)`."
            )
        check_positive(num_classes=num_classes)
        # float32 from here on: the mean is over many latents, and losses want it.
        pool = keras.layers.GlobalAveragePooling1D(dtype="float32", name="latent_mean")
        head = keras.layers.Dense(
            num_classes,
            kernel_initializer="lecun_normal",
            dtype="float32",
            name="head",
        )
        logits = head(pool(encoder(encoder.input)))
        super().__init__(inputs=encoder.input, outputs=logits, **kwargs)
        self.encoder = encoder
        self.head = head
        self.num_classes = num_classes

    @classmethod
    def from_preset(cls, name, num_classes=None, **overrides):
        """Makes a new, untrained model with the settings of a preset.

        Args:
            name: String, a key of `PerceiverClassifier.presets`.
            num_classes: Integer, number of classes. Defaults to the preset's.
            **overrides: Arguments of `Perceiver` that replace those of the preset.

        Returns:
            `PerceiverClassifier` with the initial weights of its layers.

        Raises:
            ValueError: if there is no such preset.

        Example:

        >>> model = PerceiverClassifier.from_preset("digits")
        >>> tuple(model(keras.random.normal((2, 8, 8, 1))).shape)
        (2, 10)
        """
        if name not in PRESETS:
            raise ValueError(
                f"`name` must be one of the presets {sorted(PRESETS)}. "
                f"Received: name={name!r}. Choose one of them."
            )
        preset = PRESETS[name]
        settings = {"modality": None, **preset.encoder, **overrides}
        if settings["modality"] is None:
            settings["modality"] = preset.modality()
        if num_classes is None:
            num_classes = preset.num_classes
        return cls(Perceiver(**settings), num_classes)

    def check_inputs(self, inputs):
        self.encoder.check_inputs(inputs)

    def check_data(self, x, y=None):
        # Backends differ in what they make of a label outside the classes: an error, a
        # NaN, or silence.
        x = super().check_data(x, y)
        if is_tf_dataset(x):
            return _with_label_check(x, self.num_classes)
        if y is not None:
            labels = np.asarray(keras.ops.convert_to_numpy(y))
            if np.issubdtype(labels.dtype, np.integer) and labels.size:
                low, high = int(labels.min()), int(labels.max())
                if low < 0 or high >= self.num_classes:
                    raise ValueError(
                        f"{_label_rule(self.num_classes)} Received: labels from {low} "
                        f"to {high}. {_LABEL_FIX}"
                    )
        return x

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(
            config["encoder"], custom_objects=custom_objects
        )
        return cls(**{**config, "encoder": encoder})


_LABEL_FIX = "Correct the labels, or make the model with more classes."


def _label_rule(num_classes):
    return f"Labels must be in [0, {num_classes}), the classes of the model."


def _with_label_check(dataset, num_classes):
    """Maps a dataset to itself, with an error at the first label outside the classes."""
    import tensorflow as tf  # loaded already: the dataset is its

    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        return dataset
    if not getattr(getattr(spec[1], "dtype", None), "is_integer", False):
        return dataset  # probabilities

    def check(inputs, labels, *rest):
        wide = tf.cast(labels, "int64")
        is_class = (wide >= 0) & (wide < num_classes)
        tf.debugging.Assert(
            tf.reduce_all(is_class),
            [
                f"{_label_rule(num_classes)} Received:",
                tf.boolean_mask(wide, ~is_class),
                _LABEL_FIX,
            ],
        )
        return (inputs, labels, *rest)

    return dataset.map(check)
