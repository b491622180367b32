"""The base class of classifiers: their heads and class names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_perceiver._checks import check_ordered, check_positive, nearest
from keras_perceiver.layers.composite import check_template
from keras_perceiver.models import handles
from keras_perceiver.models.decoder import (
    PerceiverDecoder,
    assign_body,
    decoder_of,
    serialized_template,
)
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.presets import PRESETS, built_in
from keras_perceiver.models.tasks.base import Task, check_encoder

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors


def takes_values(loss):
    """Returns whether a loss of Keras compares each output with a target of its own."""
    others = keras.losses.CTC, keras.losses.Circle
    others += (keras.losses.SparseCategoricalCrossentropy,)
    return loss.__module__.partition(".")[0] == "keras" and not isinstance(loss, others)


class ClassNames:
    """What every task with classes has: their number and names."""

    has_logits = True

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

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "class_names": self.class_names and list(self.class_names),
        }


class ClassificationTask(ClassNames, Task):
    """A task that gives one logit per class.

    Args:
        encoder: `Perceiver`.
        num_classes: Integer, number of logits.
        preprocessor: See `Task`.
        class_names: Sequence of strings, or `None`.
        decoder: `PerceiverDecoder` with one query, not built, whose settings the decoder
            of the model has, or `None` for the mean over the latents and a linear layer.
        **kwargs: `name` and `trainable`.
    """

    presets = PRESETS

    def __init__(
        self,
        encoder: Perceiver,
        num_classes: int,
        preprocessor: Preprocessors | None = None,
        class_names: Sequence[str] | None = None,
        decoder: PerceiverDecoder | None = None,
        **kwargs: Any,
    ) -> None:
        check_encoder(encoder, type(self))
        check_positive(num_classes=num_classes)
        if decoder is None:
            # float32 from here on, since the mean is over many latents, and losses need
            # it.
            pool = keras.layers.GlobalAveragePooling1D(
                dtype="float32", name="latent_mean"
            )
            head = keras.layers.Dense(
                num_classes,
                kernel_initializer="lecun_normal",
                dtype="float32",
                name="head",
            )
            logits = head(pool(encoder(encoder.input)))
        else:
            _check_decoder(decoder)
            decoder = decoder_of(decoder, num_classes, encoder.dtype_policy)
            logits = decoder(encoder(encoder.input))  # (B, 1, C)
            logits = keras.layers.Reshape(
                (num_classes,), dtype="float32", name="logits"
            )(logits)
            head = None
        super().__init__(encoder, logits, preprocessor, **kwargs)
        self.decoder = decoder
        self.head = head  # with a decoder it is inside that
        self.num_classes = num_classes
        self.class_names = class_names

    @classmethod
    def from_preset(cls, name, num_classes=None, load_weights=True, **overrides):
        """Creates a model from a preset: its settings, and its weights if it has any.

        The built-in presets are settings only: their models have the initial weights of
        their layers. A folder or a hub has weights, a preprocessor and class names.

        Args:
            name: String, a key of `presets`; or the path of a folder that
                `save_to_preset` or `transformers` has written; or
                `"hf://<owner>/<model>"`, which is downloaded from Hugging Face's hub.
            num_classes: Integer, number of classes. Defaults to the preset's. Another
                number than that of pretrained weights gives a new head.
            load_weights: Boolean. `False`: only the settings of a folder or hub.
            **overrides: Arguments of `Perceiver` that replace those of the preset, by
                dotted paths such as `num_latents` and `cross_attend.num_heads`.

        Returns:
            Model.

        Raises:
            ValueError: if there is no such preset or argument, or if weights do not fit
                the settings.
            FileNotFoundError: if there is no such folder or model, or no connection.

        Example:

        >>> overrides = {"num_latents": 16, "self_attend.dropout": 0.2}
        >>> model = PerceiverClassifier.from_preset("digits", **overrides)
        >>> tuple(model(keras.random.normal((2, 8, 8, 1))).shape)
        (2, 10)
        """
        _check_names(overrides, ("num_classes", "load_weights"))
        # A folder of the name of a built-in preset does not hide that.
        if handles.is_handle(name) and name not in PRESETS:
            return cls._loaded(name, num_classes, load_weights, overrides)
        preset = built_in(name)
        encoder = preset.encoder.replace(overrides)
        if num_classes is None:
            num_classes = preset.num_classes
        decoder = preset.decoder and preset.decoder()
        return cls(encoder(), num_classes, decoder=decoder)

    @classmethod
    def _of(cls, model, num_classes):
        """Returns a task of this class with the encoder of another model.

        Of a decoder the weights are copied, but for its last layer.
        """
        if isinstance(model, Perceiver):
            if num_classes is None:
                raise ValueError(
                    "`num_classes` must be given for the preset of an encoder. Received: "
                    "num_classes=None. Give the number of classes."
                )
            return cls(model, num_classes)
        if not isinstance(model, ClassificationTask):
            return super()._of(model, num_classes)
        decoder = model.decoder
        if decoder is not None:
            decoder = decoder_of(decoder, model.num_classes, decoder.dtype_policy)
        task = cls(
            model.encoder,
            model.num_classes if num_classes is None else num_classes,
            model.preprocessor,
            decoder=decoder,
        )
        if decoder is not None:
            assign_body(task.decoder, model.decoder)
        return task

    def with_num_classes(self, num_classes):
        """Returns a model of other classes: with the same encoder, and a new head.

        Args:
            num_classes: Integer, number of logits.
        """
        return self._of(self, num_classes)

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
            "decoder": serialized_template(self.decoder),
        }

    def _named(self, indices):
        """Returns the class names for an integer tensor of class indices."""
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf  # strings have no Keras operation

            return tf.gather(tf.constant(self.names()), indices)
        return np.array(self.names())[keras.ops.convert_to_numpy(indices)]


def _check_names(overrides, arguments):
    """Raises `ValueError` if an override is an argument of `from_preset`, misspelled."""
    for name in (
        overrides.keys() - inspect.signature(Perceiver.__init__).parameters.keys()
    ):
        if hint := nearest(name, arguments):
            raise ValueError(
                "A name must be an argument of `from_preset` or `Perceiver`. Received: "
                f"{name}={overrides[name]!r}. {hint}"
            )


def _check_decoder(decoder):
    """Raises an error unless a decoder has one query for the class of an example."""
    check_template("decoder", decoder, PerceiverDecoder)
    number = None if decoder.queries.uses_inputs else decoder.queries.num_queries()
    if number != 1:
        received = "as many as inputs" if number is None else number
        raise ValueError(
            "`decoder` of a classifier must have one query. Received: "
            f"{received} queries. Pass for example "
            "`PerceiverDecoder(LearnedQueries(1, 1024))`."
        )


def check_target_shape(targets, num_classes, takes_indices, takes_values, fix):
    """Raises `ValueError` unless targets are class indices, or have a value per class.

    Args:
        targets: NumPy array.
        num_classes: Integer.
        takes_indices: Boolean, whether the loss takes class indices.
        takes_values: Boolean, whether it takes a value per class.
        fix: String, the last sentence of the error.
    """
    shape = targets.shape[1:]
    is_valid = (takes_indices and shape in ((), (1,))) or (
        takes_values and shape == (num_classes,)
    )
    if not is_valid:
        indices = "class indices of shape `(batch,)`"
        values = f"values per class of shape `(batch, {num_classes})`"
        rule = " or ".join(
            [*([indices] if takes_indices else []), *([values] if takes_values else [])]
        )
        raise ValueError(
            f"The loss takes {rule}. Received: targets of shape {targets.shape}. {fix}"
        )


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
    if keras.backend.is_int_dtype(spec.dtype) and (wrong != np.floor(wrong)).any():
        rule = rule.replace("must be in", "must be integers in")
    is_from_one = (
        not spec.shape and labels.min() == 1 and spec.accepts(labels - 1).all()
    )
    fix = "Subtract 1 if the first class is 1" if is_from_one else "Correct the labels"
    raise ValueError(
        f"{rule} Received: labels from {labels.min()} to {labels.max()}, such as "
        f"{wrong.flat[0]}. {fix}, or create the model with more classes."
    )
