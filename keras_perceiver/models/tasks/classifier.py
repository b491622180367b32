"""The Perceiver classifier of the paper."""

import keras
from keras import ops

from keras_perceiver.models import reports
from keras_perceiver.models.losses import SmoothedCrossentropy
from keras_perceiver.models.metrics import Accuracy
from keras_perceiver.models.tasks.base import TargetSpec, check_is_one_target
from keras_perceiver.models.tasks.classification import (
    ClassificationTask,
    check_target_shape,
    takes_values,
)

_BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
_CROSSENTROPIES = (  # with a target in [0, 1] per class
    *_BINARY,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)
_ROUNDING = 1e-2  # of soft labels, which may be float16


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverClassifier(ClassificationTask):
    """The paper's classifier: the mean over the latents and a linear layer.

    It is a Keras model with `compile`, `fit`, `evaluate`, `predict`, `save` and `export`.
    Its outputs are logits, which are float32 under every dtype policy. Compile it without
    arguments to use the default optimizer, loss and metrics, or with a loss that takes
    logits, such as `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`.
    With `num_classes=1`, the only logit is the log-odds of class 1 against class 0, for
    `keras.losses.BinaryCrossentropy(from_logits=True)`.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 3.1.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        num_classes: Integer, number of logits.
        preprocessor: `Preprocessor` that turns files into raw inputs, or dict of
            preprocessors by modality name. It is saved with the model.
        class_names: Sequence of strings, the names of the classes (both of them if there
            is one logit). Defaults to the class indices.
        decoder: `PerceiverDecoder` with one query, not built, whose settings the decoder
            of the model has. Defaults to the mean over the latents and a linear layer.
        **kwargs: `name` and `trainable`, as for every Keras model.

    Call arguments:
        inputs: The inputs of the encoder.
        training: Boolean, whether dropout is active.

    Returns:
        Logits, float32 tensor of shape `(batch, num_classes)`.

    Raises:
        TypeError: if `encoder` is not a `Perceiver`.
        ValueError: if `num_classes` is not positive, if the number of class names is
            not that of the classes, if the inputs of a call are invalid for the
            encoder, or if a batch of `fit`, `evaluate`, `train_on_batch` or
            `test_on_batch` has a label outside the classes that the loss does not
            ignore.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> model = PerceiverClassifier(encoder, num_classes=10)
    >>> tuple(model(keras.random.normal((2, 32, 32, 3))).shape)
    (2, 10)
    """

    score = "accuracy"

    def default_loss(self, label_smoothing=0.0):
        """Returns the cross-entropy of logits with class indices or soft labels.

        Args:
            label_smoothing: Float in `[0, 1)`, the smoothing factor.
        """
        if self.num_classes == 1:
            return keras.losses.BinaryCrossentropy(
                from_logits=True, label_smoothing=label_smoothing
            )
        return SmoothedCrossentropy(label_smoothing)

    def default_metrics(self):
        return [Accuracy()]

    def accuracy(self, name):
        return Accuracy(name)

    @property
    def target_spec(self):
        """`TargetSpec` of the compiled loss, or `None` for a custom loss."""
        n, loss = self.num_classes, self.used_loss()
        if isinstance(loss, SmoothedCrossentropy):
            return TargetSpec((), "int32", 0, n - 1)
        if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
            return TargetSpec((), "int32", 0, n - 1, loss.get_config()["ignore_class"])
        if isinstance(loss, _CROSSENTROPIES):
            return TargetSpec((n,), "float32", 0, 1)
        return None

    def check_targets(self, targets):
        spec, loss = self.target_spec, self.used_loss()
        if spec is None:
            if takes_values(loss):
                check_is_one_target(targets)
                fix = 'For class indices use the default loss: `compile(loss="auto")`.'
                indices = self.num_classes == 1
                check_target_shape(targets, self.num_classes, indices, True, fix)
            return
        check_is_one_target(targets)
        takes_both = isinstance(loss, SmoothedCrossentropy)
        is_values = targets.ndim > 1 and targets.shape[-1] == self.num_classes > 1
        check_target_shape(
            targets,
            self.num_classes,
            takes_indices=not spec.shape or self.num_classes == 1,
            takes_values=bool(spec.shape) or takes_both,
            fix="Correct them, or create the model with their number of classes."
            if takes_both
            else 'Use the default loss, which takes both: `compile(loss="auto")`.',
        )
        if not (takes_both and is_values):
            super().check_targets(targets)
        if is_values and not isinstance(loss, _BINARY):
            self._check_soft_labels(targets)

    def _check_soft_labels(self, targets):
        targets = targets.astype("float64")
        sums = targets.sum(axis=-1)
        if targets.min() >= -_ROUNDING and sums.max() <= 1 + _ROUNDING:
            return
        raise ValueError(
            "Soft labels must be the probability of each class, with a sum of 1 per "
            f"example. Received: values from {targets.min():g} to {targets.max():g} with "
            f"a sum of up to {sums.max():g}. Correct them, or use "
            "`PerceiverMultiLabelClassifier` for several labels per example."
        )

    def check_class_weight(self, class_weight):
        classes = range(self._num_names)
        if not isinstance(class_weight, dict) or not class_weight.keys() <= {*classes}:
            raise ValueError(
                "`class_weight` must be a dict from class indices to weights, with keys in "
                f"[0, {len(classes)}). Received: class_weight={class_weight!r}. Correct "
                "it; a class that is missing has a weight of 1."
            )

    def _rule(self, spec):
        if spec.shape:
            return super()._rule(spec)
        ignored = "" if spec.ignore is None else f", or {spec.ignore}, which is ignored"
        return f"Labels must be in [0, {self.num_classes}), the classes{ignored}."

    @property
    def _num_names(self):
        return max(self.num_classes, 2)

    def serving_outputs(self, y_pred):
        """Returns logits, probabilities and the name of the most probable class.

        Args:
            y_pred: Tensor of shape `(batch, num_classes)`, logits.
        """
        logits = self._logits_of_all(y_pred)
        return {
            "logits": y_pred,
            "probabilities": ops.softmax(logits),
            "classes": self._named(ops.argmax(logits, axis=-1)),
        }

    def _logits_of_all(self, y_pred):
        if self.num_classes > 1:
            return y_pred
        return ops.concatenate([ops.zeros_like(y_pred), y_pred], axis=-1)

    def mean_prediction(self, y_preds):
        """Returns logits of the mean probabilities."""
        return reports.mean_of_softmax(y_preds)

    def report(self, y_true, y_pred):
        """Returns a `ClassificationReport`.

        Args:
            y_true: Array of class indices, of shape `(num_examples,)` or
                `(num_examples, 1)`, or of soft labels, whose largest one counts.
            y_pred: Array of logits, of shape `(num_examples, num_classes)`.
        """
        return reports.ClassificationReport.of(y_true, y_pred, self.names())
