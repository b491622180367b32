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
        ignore_class: Integer, a label that is left out, or `None`.
    """

    def __init__(
        self,
        name: str = "accuracy",
        dtype: str | keras.DTypePolicy | None = None,
        ignore_class: int | None = None,
    ) -> None:
        super().__init__(_is_correct, name=name, dtype=dtype)
        self.ignore_class = ignore_class

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.ignore_class is not None:
            labels = ops.reshape(y_true, ops.shape(y_pred)[:-1])
            is_counted = ops.cast(labels != self.ignore_class, self.dtype)
            if sample_weight is not None:
                shape = ops.shape(labels)
                is_counted *= _for_points(sample_weight, shape, self.dtype)
            sample_weight = is_counted
        return super().update_state(y_true, y_pred, sample_weight)

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "ignore_class": self.ignore_class,
        }


def _is_correct(y_true, y_pred):
    y_true, y_pred = map(ops.convert_to_tensor, (y_true, y_pred))
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


def _for_points(sample_weight, shape, dtype):
    """Returns the weights of examples or points as those of points."""
    weights = ops.cast(sample_weight, dtype)
    for _ in range(len(shape) - len(weights.shape)):
        weights = ops.expand_dims(weights, -1)
    return ops.broadcast_to(weights, shape)


@keras.saving.register_keras_serializable(package="keras_perceiver")
class MeanIoU(keras.metrics.MeanIoU):
    """Computes the mean over classes of intersection over union, from logits.

    Args:
        num_classes: Integer, number of classes.
        ignore_class: Integer, a label that is left out, or `None`.
        name: String.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Integer tensor of shape `(batch, *grid)`, or soft labels of shape
            `(batch, *grid, num_classes)`, whose largest one counts.
        y_pred: Tensor of shape `(batch, *grid, num_classes)`, logits.
        sample_weight: Tensor of shape `(batch,)` or `(batch, *grid)`, or `None`.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_class: int | None = None,
        name: str = "mean_iou",
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            name=name,
            # Not that of Keras, an integer, to which it rounds weights down.
            dtype=dtype or "float32",
            ignore_class=ignore_class,
            sparse_y_pred=False,
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = map(ops.convert_to_tensor, (y_true, y_pred))
        shape, number = ops.shape(y_pred)[:-1], self.num_classes
        if is_soft(y_true, y_pred):
            y_true = ops.argmax(y_true, axis=-1)
        labels = ops.cast(ops.reshape(y_true, shape), "int32")
        found = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        weights = ops.ones(shape, self.dtype)
        if sample_weight is not None:
            weights = weights * _for_points(sample_weight, shape, self.dtype)
        is_valid = ops.logical_and(labels >= 0, labels < number)
        if self.ignore_class is not None:
            is_valid = ops.logical_and(is_valid, labels != self.ignore_class)
        weights = ops.where(is_valid, weights, 0.0)
        cells = ops.where(is_valid, labels, 0) * number + found
        # A matrix per example, since float32 cannot count beyond 2**24 by ones.
        matrices = ops.arange(shape[0], dtype="int32") * number**2
        cells = ops.reshape(cells, (shape[0], -1)) + matrices[:, None]
        counts = ops.segment_sum(
            ops.reshape(weights, (-1,)),
            ops.reshape(cells, (-1,)),
            num_segments=shape[0] * number**2,
        )
        counts = ops.sum(ops.reshape(counts, (-1, number, number)), axis=0)
        self.total_cm.assign(self.total_cm + counts)

    def get_config(self):
        return {
            "num_classes": self.num_classes,
            "ignore_class": self.ignore_class,
            "name": self.name,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="keras_perceiver")
class R2(keras.metrics.R2Score):
    """Computes the coefficient of determination over all points of all examples.

    1 for perfect predictions, 0 for those of the mean of each channel.

    Args:
        name: String.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Tensor of shape `(batch, *grid, channels)`.
        y_pred: Tensor of the same shape.
        sample_weight: Tensor of shape `(batch,)` or `(batch, *grid)`, or `None`.
    """

    def __init__(self, name: str = "r2", dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.convert_to_tensor(y_true)
        shape, num_channels = ops.shape(y_true)[:-1], y_true.shape[-1]
        if sample_weight is not None:
            weights = _for_points(sample_weight, shape, self.dtype)
            sample_weight = ops.reshape(weights, (-1,))
        rows = (-1, num_channels)
        super().update_state(
            ops.reshape(y_true, rows), ops.reshape(y_pred, rows), sample_weight
        )

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


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
