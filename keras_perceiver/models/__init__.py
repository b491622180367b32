"""Models: the encoder, tasks, presets, losses, metrics and FLOPs."""

from keras_perceiver.models.cost import flops
from keras_perceiver.models.encoder import Encoded, Perceiver
from keras_perceiver.models.losses import SmoothedCrossentropy
from keras_perceiver.models.metrics import Accuracy, MeanAveragePrecision
from keras_perceiver.models.tasks import (
    PerceiverClassifier,
    PerceiverMultiLabelClassifier,
    Task,
)

__all__ = [
    "Accuracy",
    "Encoded",
    "MeanAveragePrecision",
    "Perceiver",
    "PerceiverClassifier",
    "PerceiverMultiLabelClassifier",
    "SmoothedCrossentropy",
    "Task",
    "flops",
]
