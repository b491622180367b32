"""The base class of classifiers: the paper's head and class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_perceiver._checks import check_ordered, check_positive
from keras_perceiver.models.presets import PRESETS
from keras_perceiver.models.tasks.base import Task, check_encoder

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors
    from keras_perceiver.models.encoder import Perceiver


class ClassificationTask(Task):
    """A task with one logit per class, from the mean latent and a linear layer.

    Args:
        encoder: `Perceiver`.
        num_classes: Integer, number of logits.
        preprocessor: See `Task`.
        class_names: Sequence of strings, or `None`.
        **kwargs: `name` and `trainable`.
    """

    presets = PRESETS

    def __init__(
        self,
        encoder: Perceiver,
        num_classes: int,
        preprocessor: Preprocessors | None = None,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_encoder(encoder, type(self))
        check_positive(num_classes=num_classes)
        # float32 from here on, since the mean is over many latents, and losses need it.
        pool = keras.layers.GlobalAveragePooling1D(dtype="float32", name="latent_mean")
        head = keras.layers.Dense(
            num_classes,
            kernel_initializer="lecun_normal",
            dtype="float32",
            name="head",
        )
        logits = head(pool(encoder(encoder.input)))
        super().__init__(encoder, logits, preprocessor, **kwargs)
        self.head = head
        self.num_classes = num_classes
        self.class_names = class_names

    @classmethod
    def from_preset(cls, name, num_classes=None, **overrides):
        """Creates a model with the settings of a preset and random weights.

        Args:
            name: String, a key of `presets`.
            num_classes: Integer, number of classes. Defaults to that of the preset.
            **overrides: Arguments of `Perceiver` that replace those of the preset, by
                dotted paths such as `num_latents` and `cross_attend.num_heads`.

        Returns:
            Model that is not trained.

        Raises:
            ValueError: if there is no such preset, or no such argument.

        Example:

        >>> overrides = {"num_latents": 16, "self_attend.dropout": 0.2}
        >>> model = PerceiverClassifier.from_preset("digits", **overrides)
        >>> tuple(model(keras.random.normal((2, 8, 8, 1))).shape)
        (2, 10)
        """
        if name not in PRESETS:
            raise ValueError(
                f"`name` must be one of the presets {sorted(PRESETS)}. "
                f"Received: name={name!r}. Choose one of them."
            )
        preset = PRESETS[name]
        encoder = preset.encoder.replace(overrides)
        if num_classes is None:
            num_classes = preset.num_classes
        return cls(encoder(), num_classes)

    @property
    def class_names(self):
        """Tuple of strings, the names of the classes, or `None`."""
        return self._class_names and tuple(self._class_names)

    @class_names.setter
    def class_names(self, class_names):
        if class_names is not None:
            check_ordered("class_names", class_names)
            class_names = [str(name) for name in class_names]
            size = self._num_names
            if len(class_names) != size or len(set(class_names)) < size:
                raise ValueError(
                    f"`class_names` must be {size} different names, one for each class "
                    f"of the model. Received: {len(class_names)} names, "
                    f"{class_names[:20]}. Pass one name per class, in the order of the "
                    "classes."
                )
        self._class_names = class_names

    @property
    def _num_names(self):
        return self.num_classes

    def names(self):
        """Returns the tuple of class names, which defaults to the class indices."""
        return self.class_names or tuple(map(str, range(self._num_names)))

    def card_entries(self):
        return {"labels": list(self.names())}

    def check_targets(self, targets):
        spec = self.target_spec
        if spec is not None:
            check_labels(spec, self._rule(spec), targets)

    def _rule(self, spec):
        """Returns the rule of the error for labels that are not class indices."""
        return "Labels must be in [0, 1], the range that the loss accepts."

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "class_names": self.class_names and list(self.class_names),
        }

    def _named(self, indices):
        """Returns the class names for an integer tensor of class indices."""
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf  # strings have no Keras operation

            return tf.gather(tf.constant(self.names()), indices)
        return np.array(self.names())[keras.ops.convert_to_numpy(indices)]


def check_labels(spec, rule, labels):
    """Raises `ValueError` unless all labels are in the range of `spec`.

    Args:
        spec: `TargetSpec`.
        rule: String, the first sentence of the error.
        labels: NumPy array.
    """
    if labels.dtype.kind not in "biuf" or spec.accepts(labels).all():
        return
    wrong = labels[~spec.accepts(labels)]
    raise ValueError(
        f"{rule} Received: labels from {labels.min()} to {labels.max()}, such as "
        f"{wrong.flat[0]}. Correct the labels, or create the model with more classes."
    )
