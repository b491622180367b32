"""Metrics that Keras lacks."""

from __future__ import annotations

import keras
from keras import ops

from keras_perceiver.models.losses import is_soft


@keras.saving.register_keras_serializable(package="keras_perceiver")
class Accuracy(keras.metrics.MeanMetricWrapper):
    """Computes how often the class with the largest logit is the label.

    Labels are class indices or, as in `SmoothedCrossentropy`, soft labels, whose largest
    one counts. Keras' `"accuracy"` settles on one of them at the first batch. A single
    logit predicts class 1 if it is positive.

    Args:
        name: String, name of the metric.
        dtype: Dtype of the result.
    """

    def __init__(
        self, name: str = "accuracy", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
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
    """Computes the mean over classes of the area under the precision-recall curve.

    It is computed from counts at fixed thresholds, so that its memory does not grow with
    the number of examples. The report of the task has the exact value. Thresholds apply
    to the sigmoid of a fourth of the logits, since the probabilities of a rare class are
    so small that `keras.metrics.AUC` would put all of them between the first two
    thresholds.

    Args:
        num_labels: Integer, number of classes.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Tensor of shape `(batch, num_labels)`, 0 or 1.
        y_pred: Tensor of shape `(batch, num_labels)`, logits.
    """

    is_approximate = True  # tests use the exact value of the report

    def __init__(
        self,
        num_labels: int,
        name: str = "mean_average_precision",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
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
