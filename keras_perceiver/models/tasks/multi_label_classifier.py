"""The Perceiver classifier for any number of labels per example."""

import keras
from keras import ops

from keras_perceiver.models import reports
from keras_perceiver.models.metrics import MeanAveragePrecision
from keras_perceiver.models.tasks.base import (
    TargetSpec,
    check_is_one_target,
    no_class_weight,
)
from keras_perceiver.models.tasks.classification import (
    ClassificationTask,
    check_target_shape,
    takes_values,
)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class PerceiverMultiLabelClassifier(ClassificationTask):
    """The paper's classifier for any number of labels per example, as on AudioSet.

    It is the same network as `PerceiverClassifier`. Each class has its own probability,
    the sigmoid of its logit. The default loss is the binary cross-entropy, and the
    default metric is the mean average precision over the classes.

    Reference:
        [Jaegle et al., 2021](https://arxiv.org/abs/2103.03206), section 4.2.

    Args:
        encoder: `Perceiver`, the model that turns raw inputs into latents.
        num_classes: Integer, number of classes.
        preprocessor: `Preprocessor` that turns files into raw inputs, or dict of
            preprocessors by modality name. It is saved with the model.
        class_names: Sequence of strings, the names of the classes. Defaults to the class
            indices.
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
            `test_on_batch` has a target outside `[0, 1]`.

    Example:

    >>> encoder = Perceiver(
    ...     Image((32, 32, 3), num_bands=6), num_latents=16, latent_dim=64, num_blocks=2
    ... )
    >>> model = PerceiverMultiLabelClassifier(encoder, num_classes=10)
    >>> model.compile()
    >>> images, targets = np.zeros((2, 32, 32, 3)), np.eye(10)[:2]
    >>> sorted(model.evaluate(images, targets, return_dict=True, verbose=0))
    ['loss', 'mean_average_precision']
    """

    score = "mean_average_precision"

    def default_loss(self, label_smoothing=0.0):
        """Returns the binary cross-entropy of logits.

        Args:
            label_smoothing: Float in `[0, 1)`, the smoothing factor.
        """
        return keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        )

    def default_metrics(self):
        return [MeanAveragePrecision(self.num_classes)]

    def accuracy(self, name):
        return keras.metrics.BinaryAccuracy(name, threshold=0.0)

    @property
    def target_spec(self):
        return TargetSpec((self.num_classes,), "float32", 0, 1)

    def check_targets(self, targets):
        check_is_one_target(targets)
        if takes_values(self.used_loss()):
            fix = "Pass an array of 0 and 1 with a column per class."
            check_target_shape(targets, self.num_classes, False, True, fix)
        super().check_targets(targets)

    def check_class_weight(self, class_weight):
        raise no_class_weight(class_weight, "one weight per example")

    def serving_outputs(self, y_pred):
        """Returns logits, probabilities and the name of the most probable class.

        Args:
            y_pred: Tensor of shape `(batch, num_classes)`, logits.
        """
        return {
            "logits": y_pred,
            "probabilities": ops.sigmoid(y_pred),
            "classes": self._named(ops.argmax(y_pred, axis=-1)),
        }

    def mean_prediction(self, y_preds):
        """Returns logits of the mean probabilities."""
        return reports.mean_of_sigmoid(y_preds)

    def report(self, y_true, y_pred):
        """Returns a `MultiLabelReport`.

        Args:
            y_true: Array of 0 and 1, of shape `(num_examples, num_classes)`.
            y_pred: Array of logits, of shape `(num_examples, num_classes)`.
        """
        return reports.MultiLabelReport.of(y_true, y_pred, self.names())
