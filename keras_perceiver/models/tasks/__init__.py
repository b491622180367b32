"""Tasks: an encoder with a head, and its targets, loss, metrics, outputs and report."""

from keras_perceiver.models.tasks.base import TargetSpec, Task
from keras_perceiver.models.tasks.classifier import PerceiverClassifier
from keras_perceiver.models.tasks.dense_predictor import (
    PerceiverDensePredictor,
    PerceiverSegmenter,
)
from keras_perceiver.models.tasks.multi_label_classifier import (
    PerceiverMultiLabelClassifier,
)

__all__ = [
    "PerceiverClassifier",
    "PerceiverDensePredictor",
    "PerceiverMultiLabelClassifier",
    "PerceiverSegmenter",
    "TargetSpec",
    "Task",
]
