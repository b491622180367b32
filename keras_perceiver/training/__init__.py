"""Training: what a recipe is, how one is run, and what Keras lacks for it."""

from keras_perceiver.training.evaluate import evaluate, write_report
from keras_perceiver.training.lamb import Lamb
from keras_perceiver.training.resume import NonFiniteLossError, TrainingInterruptedError
from keras_perceiver.training.schedules import flat_cosine, step_decay, warm_cosine
from keras_perceiver.training.tracking import TrackingOptimizer
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
    "Lamb",
    "NonFiniteLossError",
    "Recipe",
    "TrackingOptimizer",
    "TrainingInterruptedError",
    "compile_classifier",
    "evaluate",
    "flat_cosine",
    "step_decay",
    "train",
    "warm_cosine",
    "write_report",
]
