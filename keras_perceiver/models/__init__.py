"""Models: the encoder, tasks, presets, losses, metrics and FLOPs."""

from keras_perceiver.models.cost import flops
from keras_perceiver.models.decoder import PerceiverDecoder
from keras_perceiver.models.encoder import Encoded, Perceiver
from keras_perceiver.models.losses import SmoothedCrossentropy
from keras_perceiver.models.metrics import R2, Accuracy, MeanAveragePrecision, MeanIoU
from keras_perceiver.models.modality_queries import ModalityQueries
from keras_perceiver.models.queries import (
    InputQueries,
    LearnedQueries,
    PositionQueries,
    Queries,
)
from keras_perceiver.models.tasks import (
    PerceiverClassifier,
    PerceiverDensePredictor,
    PerceiverMultiLabelClassifier,
    PerceiverSegmenter,
    Task,
)

__all__ = [
    "R2",
    "Accuracy",
    "Encoded",
    "InputQueries",
    "LearnedQueries",
    "MeanAveragePrecision",
    "MeanIoU",
    "ModalityQueries",
    "Perceiver",
    "PerceiverClassifier",
    "PerceiverDecoder",
    "PerceiverDensePredictor",
    "PerceiverMultiLabelClassifier",
    "PerceiverSegmenter",
    "PositionQueries",
    "Queries",
    "SmoothedCrossentropy",
    "Task",
    "flops",
]
