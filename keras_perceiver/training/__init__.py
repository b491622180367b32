"""Training: what a recipe is, how one is run, and what Keras lacks for it."""

from keras_perceiver.training.losses import SmoothedCrossentropy
from keras_perceiver.training.optimizers import FlatCosineDecay, Lamb, Warmup
from keras_perceiver.training.train import PRECISIONS, Recipe, train

__all__ = [
    "PRECISIONS",
    "FlatCosineDecay",
    "Lamb",
    "Recipe",
    "SmoothedCrossentropy",
    "Warmup",
    "train",
]
