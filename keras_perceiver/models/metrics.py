"""Metrics that Keras does not have."""

import keras
from keras import ops

from keras_perceiver.models.losses import is_soft


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Accuracy(keras.metrics.MeanMetricWrapper):
    """Computes how often the class with the largest logit is the label.

    Labels are class indices or, as in `SmoothedCrossentropy`, soft labels, of which the
    largest counts. Keras' `"accuracy"` settles on one kind at the first batch. A single
    logit stands for class 1 where it is positive.

    Args:
        name: String.
        dtype: Dtype of the result.
    """

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(_is_correct, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _is_correct(y_true, y_pred):
    is_binary = y_pred.shape[-1] == 1
    if is_soft(y_true, y_pred) and not is_binary:
        labels = ops.argmax(y_true, axis=-1)
    else:
        labels = ops.reshape(y_true, ops.shape(y_pred)[:-1])
    if is_binary:
        found = y_pred[..., 0] > 0
        return ops.cast((ops.cast(labels, "float32") > 0.5) == found, "float32")
    found = ops.argmax(y_pred, axis=-1)
    return ops.cast(ops.cast(labels, found.dtype) == found, "float32")


@keras.saving.register_keras_serializable(package="keras_perceiver")
class MeanAveragePrecision(keras.metrics.AUC):
    """Computes the mean over classes of the area under precision against recall.

    It is computed from counts at fixed thresholds, so that its memory does not grow with
    the number of examples; the report of the task has the exact value. The thresholds
    are spread over a fourth of the logits: a rare class has small probabilities only,
    which `keras.metrics.AUC` would all put between the first two thresholds.

    Args:
        num_labels: Integer, number of classes.
        name: String.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Tensor of shape `(batch, num_labels)`, 0 or 1.
        y_pred: Tensor of shape `(batch, num_labels)`, logits.
    """

    is_approximate = True  # so that a test takes the exact value of the report

    def __init__(self, num_labels, name="mean_average_precision", dtype=None):
        super().__init__(
            num_thresholds=400,
            curve="PR",
            name=name,
            dtype=dtype,
            multi_label=True,
            num_labels=num_labels,
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, ops.sigmoid(y_pred / 4), sample_weight)

    def get_config(self):
        return {"num_labels": self.num_labels, "name": self.name, "dtype": self.dtype}
