"""Tasks: an encoder with a head, and its targets, loss, metrics, outputs and report."""

from keras_perceiver.models.tasks.base import TargetSpec, Task
from keras_perceiver.models.tasks.classifier import PerceiverClassifier
from keras_perceiver.models.tasks.multi_label_classifier import (
    PerceiverMultiLabelClassifier,
)

__all__ = [
    "PerceiverClassifier",
    "PerceiverMultiLabelClassifier",
    "TargetSpec",
    "Task",
]
