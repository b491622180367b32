"""The base class of tasks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_perceiver._checks import not_defined
from keras_perceiver.layers.composite import inner_settings as settings_of
from keras_perceiver.layers.composite import restore_inner_settings
from keras_perceiver.modalities.preprocessors.base import preprocessors_by_name
from keras_perceiver.models import handles
from keras_perceiver.models.checked_model import CheckedModel
from keras_perceiver.models.encoder import Perceiver
from keras_perceiver.models.logits import check_takes_logits
from keras_perceiver.models.presets import PRESETS, built_in

if TYPE_CHECKING:
    from keras_perceiver._typing import Preprocessors


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """The targets that the loss of a task accepts.

    Attributes:
        shape: Tuple, shape of the target of an example.
        dtype: String, dtype of the targets.
        low: Number, the minimum.
        high: Number, the maximum.
        ignore: Number, a value that the loss ignores, or `None`.
    """

    shape: tuple
    dtype: str
    low: float
    high: float
    ignore: float | None = None

    def accepts(self, targets):
        """Returns a boolean NumPy array of whether each value is in the range."""
        is_integer = keras.backend.is_int_dtype(self.dtype)
        margin = 0 if is_integer else 1e-3  # soft labels are rounded
        is_valid = (targets >= self.low - margin) & (targets <= self.high + margin)
        if is_integer:
            is_valid &= targets == np.floor(targets)
        return is_valid if self.ignore is None else is_valid | (targets == self.ignore)


class Task(CheckedModel):
    """Base class of tasks: models of an encoder and a head with a defined meaning.

    A task is a functional Keras model with `compile`, `fit`, `evaluate`, `predict`,
    `save` and `export`. Training, evaluation, tuning and export get everything that
    differs between tasks from its methods, so that a new task is a subclass.
    A new task is not compiled. `compile()` without arguments uses the defaults of the
    task, and must be called before `fit`. Without it, a model is saved without an
    optimizer, whose class may exist on one backend only.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        outputs: `keras.KerasTensor` that depends on `encoder.input`.
        preprocessor: `Preprocessor` that turns files into raw inputs, or dict of
            preprocessors by modality name. It is saved with the model.
        inputs: `keras.KerasTensor` or dict of these: the inputs of the encoder with those
            of the task. Defaults to those of the encoder.
        inner_settings: Dict of settings of the layers outside of the encoder, such as
            `trainable`, in the config of a saved model, see `CompositeLayer`.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Attributes:
        score: String, the name of the metric that models are compared by, where larger
            is better. It is one of the default metrics and of the report.
        has_logits: Boolean, whether the outputs are logits, so that losses and metrics
            must take logits.
    """

    has_logits = False

    def __init__(
        self,
        encoder: Perceiver,
        outputs: keras.KerasTensor,
        preprocessor: Preprocessors | None = None,
        *,
        inputs: dict[str, keras.KerasTensor] | None = None,
        inner_settings: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inputs=encoder.input if inputs is None else inputs,
            outputs=outputs,
            # The policy of the encoder, so that the loss is scaled in float16.
            dtype=encoder.dtype_policy,
            **kwargs,
        )
        self.encoder = encoder
        self.preprocessor = preprocessor
        restore_inner_settings(self, inner_settings)

    @classmethod
    def from_preset(cls, name, load_weights=True, **overrides):
        """Creates a task from a folder or hub that `save_to_preset` has written.

        Args:
            name: String, the path of a folder, or `"hf://<owner>/<model>"`.
            load_weights: Boolean. `False`: only the settings.
            **overrides: Arguments of `Perceiver` that replace those of the preset, by
                dotted paths such as `num_latents` and `cross_attend.num_heads`.

        Returns:
            Task of this class.

        Raises:
            ValueError: if the preset is that of another model, if there is no such
                argument, or if weights do not fit the settings.
            FileNotFoundError: if there is no such folder or model, or no connection.
        """
        return cls._loaded(name, None, load_weights, overrides)

    @classmethod
    def _loaded(cls, name, num_classes, load_weights, overrides):
        """Returns the task of a folder or hub, optionally with a new head."""
        if not handles.is_handle(name) or name in PRESETS:
            built_in(name)  # raises an error unless there is one
            raise cls._not_its_preset(f"name={name!r}, a preset of classifiers")
        model = handles.load(name, num_classes, load_weights, overrides)
        return model if isinstance(model, cls) else cls._of(model, num_classes)

    @classmethod
    def _of(cls, model, num_classes):
        """Returns a task of this class with the parts of another model."""
        raise cls._not_its_preset(f"that of a `{type(model).__name__}`")

    @classmethod
    def _not_its_preset(cls, received):
        return ValueError(
            f"The preset must be that of a `{cls.__name__}`. Received: {received}. Load "
            "its encoder by `keras_perceiver.Perceiver.from_preset`, and create a "
            f"`{cls.__name__}` with it."
        )

    def save_to_preset(self, folder):
        """Writes the settings, weights and preprocessor for `from_preset`.

        Args:
            folder: Path of a folder, which is created.

        Raises:
            FileExistsError: if the folder has a `config.json` of another kind.
        """
        handles.save(self, folder)

    @property
    def separately_stored(self):
        return self.encoder, self.encoder.view

    @property
    def modalities(self):
        """Dict of the modality layers by name."""
        return self.encoder.modalities

    @property
    def preprocessor(self):
        """`Preprocessor` of the files, or dict of preprocessors by modality name."""
        return self._preprocessor

    @preprocessor.setter
    def preprocessor(self, preprocessor):
        preprocessors_by_name(preprocessor, self.modalities)  # checks them
        self._preprocessor = preprocessor

    @property
    def target_spec(self):
        """`TargetSpec` of the compiled loss, or dict of these."""
        raise not_defined(
            self, "a task", "target_spec", "a `TargetSpec` or a dict of these"
        )

    def default_loss(self):
        """Returns the loss of `compile(loss="auto")`."""
        raise not_defined(self, "a task", "default_loss", "a loss")

    def used_loss(self):
        """Returns the compiled loss, or that of the task."""
        loss = keras.losses.get(_only(self.loss)) if self.compiled else None
        return self.default_loss() if loss is None else loss

    def default_metrics(self):
        """Returns the list of metrics of `compile(metrics="auto")`."""
        raise not_defined(self, "a task", "default_metrics", "a list of metrics")

    def accuracy(self, name):
        """Returns the metric for the name `"accuracy"` or `"acc"` in `compile`.

        Keras chooses one by the shapes of the targets, and would compare a logit with
        0.5, like a probability.

        Args:
            name: String, the name of the metric.
        """
        return name

    def serving_outputs(self, y_pred):
        """Returns the dict of outputs of an exported model.

        Args:
            y_pred: Tensor or array, predictions of the model.
        """
        raise not_defined(self, "a task", "serving_outputs", "a dict of arrays")

    def card_entries(self):
        """Returns a dict of additional entries for the card of an exported model."""
        return {}

    def mean_prediction(self, y_preds):
        """Returns the predictions for examples that consist of several clips.

        Args:
            y_preds: Sequence of arrays of predictions, one per clip.
        """
        return sum(y_preds) / len(y_preds)

    def report(self, y_true, y_pred):
        """Returns the evaluation of predictions, see `keras_perceiver.models.reports`.

        Args:
            y_true: NumPy array of targets.
            y_pred: NumPy array of predictions.
        """
        raise not_defined(self, "a task", "report", "a `Report`")

    def check_inputs(self, inputs):
        self.encoder.check_inputs(inputs)

    def check_scale(self, inputs):
        known = preprocessors_by_name(self.preprocessor, self.modalities)
        self.encoder.check_scale(inputs, known)

    def has_values_to_check(self, name):
        return self.encoder.has_values_to_check(name)

    def compile(
        self,
        optimizer="auto",
        loss="auto",
        *,
        metrics="auto",
        weighted_metrics=None,
        jit_compile="auto",
        **kwargs,
    ):
        """Configures the model for training, see `keras.Model.compile`.

        Args:
            optimizer: Optimizer, its name, or `"auto"` for Adam with a learning rate of
                1e-3.
            loss: Loss, its name, or `"auto"` for that of the task.
            metrics: List of metrics, or `"auto"` for those of the task, or none if
                `weighted_metrics` are passed.
            weighted_metrics: List of metrics that are weighted by sample weights.
            jit_compile: Boolean, or `"auto"` for the best choice on the backend. A saved
                model keeps `"auto"`, so that it is resolved again on another backend.
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(1e-3)
        if isinstance(loss, str) and loss == "auto":
            loss = self.default_loss()
        if isinstance(metrics, str) and metrics == "auto":
            is_default = loss is not None and weighted_metrics is None
            metrics = self.default_metrics() if is_default else None
        metrics, weighted_metrics = map(
            self._with_accuracy, (metrics, weighted_metrics)
        )
        if self.has_logits:
            check_takes_logits("loss", loss)
            check_takes_logits("metrics", metrics)
            check_takes_logits("weighted_metrics", weighted_metrics)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=jit_compile,
            **kwargs,
        )
        self._has_auto_jit = jit_compile == "auto"

    def _with_accuracy(self, metrics):
        """Returns metrics with those of the task for the names of an accuracy."""
        if isinstance(metrics, str):  # must be in a list, as Keras' error says
            return metrics
        return keras.tree.map_structure(
            lambda x: self.accuracy(x) if x in ("accuracy", "acc") else x, metrics
        )

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self._has_auto_jit:  # Keras saves the resolved value
            config["jit_compile"] = "auto"
        return config

    def compile_from_config(self, config):
        # Keras only does this if `compile` is not overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        settings = settings_of(self)
        return {
            "name": self.name,
            "trainable": self.trainable,
            **({"inner_settings": settings} if settings else {}),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        objects = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
            for name in ("encoder", "preprocessor", "decoder")
            if name in config
        }
        return cls(**{**config, **objects})


def _only(loss):
    """Returns the loss of the only output, which may be in a list or dict."""
    if isinstance(loss, dict) and "class_name" not in loss:
        loss = list(loss.values())
    return loss[0] if isinstance(loss, (list, tuple)) and len(loss) == 1 else loss


def check_is_one_target(targets):
    """Raises `ValueError` unless targets are one array, such as for a dict of these."""
    if not hasattr(targets, "shape"):
        names = f" with the keys {list(targets)}" if isinstance(targets, dict) else ""
        raise ValueError(
            "Targets must be one array, since the model has one output. Received: a "
            f"{type(targets).__name__}{names}. Pass the array alone."
        )


def no_class_weight(class_weight, weights):
    """Returns the error for `class_weight` where an example has no single class.

    Args:
        class_weight: The argument.
        weights: String, what `sample_weight` contains instead.
    """
    return ValueError(
        "`class_weight` is for one class per example. Received: "
        f"class_weight={class_weight!r}. Pass `sample_weight` instead, {weights}."
    )


def check_model(model):
    """Raises `TypeError` unless `model` is a `Perceiver` or a task."""
    if not isinstance(model, (Perceiver, Task)):
        raise TypeError(
            "`model` must be a `Perceiver` or a task. Received: "
            f"model={model!r} of type {type(model).__name__}. Pass one of these; a file "
            "is loaded by `keras.saving.load_model`."
        )


def check_encoder(encoder, cls):
    """Raises `TypeError` unless `encoder` is a `Perceiver`."""
    if not isinstance(encoder, Perceiver):
        raise TypeError(
            f"`encoder` must be a `Perceiver`. Received: encoder={encoder!r} of type "
            f"{type(encoder).__name__}. Create one with "
            "`keras_perceiver.Perceiver(modality, ...)`, or use "
            f"`{cls.__name__}.from_preset(name, num_classes)`."
        )
