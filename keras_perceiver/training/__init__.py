"""Training: what a recipe is, how one is run, and what Keras lacks for it."""

from keras_perceiver.training.evaluate import Evaluation, evaluate
from keras_perceiver.training.losses import SmoothedCrossentropy
from keras_perceiver.training.metrics import Accuracy, MeanAveragePrecision
from keras_perceiver.training.optimizers import (
    FlatCosineDecay,
    Lamb,
    TrackingOptimizer,
    Warmup,
    warm_cosine,
)
from keras_perceiver.training.resume import NonFiniteLossError, TrainingInterruptedError
from keras_perceiver.training.train import (
    CHECKPOINTS,
    LOGS,
    PRECISIONS,
    Recipe,
    compile_classifier,
    train,
)

__all__ = [
    "CHECKPOINTS",
    "LOGS",
    "PRECISIONS",
    "Accuracy",
    "Evaluation",
    "FlatCosineDecay",
    "Lamb",
    "MeanAveragePrecision",
    "NonFiniteLossError",
    "Recipe",
    "SmoothedCrossentropy",
    "TrackingOptimizer",
    "TrainingInterruptedError",
    "Warmup",
    "compile_classifier",
    "evaluate",
    "train",
    "warm_cosine",
]
