"""Training: what a recipe is, how one is run, and what Keras lacks for it."""

from keras_perceiver.training.losses import SmoothedCrossentropy
from keras_perceiver.training.optimizers import FlatCosineDecay, Lamb, Warmup
from keras_perceiver.training.resume import NonFiniteLossError, TrainingInterruptedError
from keras_perceiver.training.train import CHECKPOINTS, PRECISIONS, Recipe, train

__all__ = [
    "CHECKPOINTS",
    "PRECISIONS",
    "FlatCosineDecay",
    "Lamb",
    "NonFiniteLossError",
    "Recipe",
    "SmoothedCrossentropy",
    "TrainingInterruptedError",
    "Warmup",
    "train",
]
