"""Losses that Keras lacks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_perceiver._checks import check_fraction


@keras.saving.register_keras_serializable(package="keras_perceiver")
class SmoothedCrossentropy(keras.losses.Loss):
    """Computes the cross-entropy of class indices or soft labels with label smoothing.

    It is `keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=...)`
    that takes class indices as well: the target is `1 - label_smoothing` for the class of
    the label, plus `label_smoothing` spread evenly over all classes. So a model can be
    trained on mixed images (CutMix, MixUp), which have soft labels, and validated on
    images with class indices.

    Reference:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), section 7.

    Args:
        label_smoothing: Float in `[0, 1)`, the smoothing factor.
        **kwargs: Arguments of `keras.losses.Loss`, such as `name` and `reduction`.

    Call arguments:
        y_true: Tensor of shape `(batch,)` or `(batch, 1)`, class indices, or
            `(batch, num_classes)`, the probability of each class.
        y_pred: Tensor of shape `(batch, num_classes)`, logits.

    Returns:
        Scalar tensor, the mean over the batch by default, see `reduction`.

    Raises:
        ValueError: if `label_smoothing` is out of range.

    Example:

    >>> loss = SmoothedCrossentropy(label_smoothing=0.1)
    >>> labels, logits = np.array([2, 0]), np.array([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    >>> round(float(loss(labels, logits)), 3)
    0.6
    """

    def __init__(self, label_smoothing: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fraction(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if is_soft(y_true, y_pred):
            targets = ops.cast(y_true, y_pred.dtype)
        else:
            labels = ops.reshape(ops.cast(y_true, "int32"), ops.shape(y_pred)[:-1])
            targets = ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            targets, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def is_soft(y_true, y_pred):
    """Returns whether labels are class probabilities instead of class indices."""
    return len(y_true.shape) == len(y_pred.shape) and (
        y_true.shape[-1] == y_pred.shape[-1]
    )
